"""The cgroup in which a listening socket was created.

Guards match the cgroup of the process when it *created* the socket, not its current one
(sock_cgroup_ptr). sock_diag reports its number (INET_DIAG_CGROUP_ID, since Linux 5.9).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from vllmwall.linux import netlink
from vllmwall.linux.cgroups import mount_point
from vllmwall.linux.netns import run_in

_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_LISTEN = 1 << 10
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID
# linux/inet_diag.h: inet_diag_req_v2; of inet_diag_msg only its length and its inode are read.
_REQUEST = struct.Struct("=BBBxIHH16s16sIII")
_MESSAGE, _INODE = 72, 68
_ANY = 0xFFFFFFFF


def birth_cgroups(path: str, port: int) -> dict[int, int]:
    """The cgroup's number of each TCP listener of a port, by inode, in the namespace behind
    ``path``. Raises OSError."""
    with closing(run_in(path, lambda: netlink.opened(netlink.SOCK_DIAG))) as asked:
        return dict(pair for family in (2, 10) for pair in _read(asked, family, port))


def ancestors(number: int, likely: Iterable[str] = ()) -> Mapping[int, int] | None:
    """The numbers of a cgroup and those above it, by depth from 1; None: there is none of that
    number (any more).

    ``likely`` are paths that are looked at first; else the whole hierarchy is (milliseconds).
    """
    mount = mount_point()
    if mount is None:
        return None
    if number == mount.stat().st_ino:  # the root is at no depth that a rule can name
        return {}
    for path in likely:
        line = _line(mount, path)
        if number in line.values():
            return {depth: one for depth, one in line.items() if depth <= _depth(line, number)}
    for found in _walk(mount, number):
        return _line(mount, found)
    return None


def _read(asked: socket.socket, family: int, port: int) -> Iterator[tuple[int, int]]:
    request = _REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, _LISTEN, socket.htons(port), 0, b"", b"", 0, _ANY, _ANY
    )
    for data in netlink.dumped(asked, _BY_FAMILY, request):
        for start, end in netlink.messages(data, _BY_FAMILY, _MESSAGE):
            (inode,) = struct.unpack_from("=I", data, start + _INODE)
            number = netlink.values(data, start + _MESSAGE, end).get(_CGROUP_ID)
            if number is not None:
                yield inode, int.from_bytes(number, sys.byteorder)


def _line(mount: Path, path: str) -> dict[int, int]:
    """The numbers of a path's cgroups from the first below the root to the last."""
    found = {}
    parts = [part for part in path.split("/") if part]
    for depth in range(1, len(parts) + 1):
        with suppress(OSError):
            found[depth] = mount.joinpath(*parts[:depth]).stat().st_ino
    return found


def _depth(line: Mapping[int, int], number: int) -> int:
    return next(depth for depth, one in line.items() if one == number)


def _walk(mount: Path, number: int) -> Iterator[str]:
    waiting = [os.fspath(mount)]
    while waiting:
        folder = waiting.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.inode() == number:
                        yield os.path.relpath(entry.path, mount)
                    waiting.append(entry.path)
