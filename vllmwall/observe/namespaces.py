"""The network namespaces of this node and a sock_diag socket into each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from vllmwall.linux.listeners import SocketDump, most_listeners
from vllmwall.linux.netns import OWN, creator_of, inode_of, run_in
from vllmwall.model import Listener, Process, Proto
from vllmwall.observe.packet_paths import PacketPath, packet_path
from vllmwall.observe.proc import parts_of, read

NAMED = Path("/run/netns")
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_IPVS_HEADER = 3  # lines, net/netfilter/ipvs/ip_vs_ctl.c: ip_vs_info_seq_show
_IPVS_ENOUGH = 4096  # bytes
_UNIX_LIMIT = 1 << 20
_MOST_MADE = 32  # namespaces that one user made without root: half a megabyte each
_ACCEPTS_CONNECTIONS = "00010000"  # __SO_ACCEPTCON, net/unix/af_unix.c: unix_seq_show


class Namespaces:
    """Which network namespaces there are, and how to look into them.

    Descriptors into a namespace keep it alive, so they are held for `keep` only and given back
    as soon as no process is left in it. ``only`` restricts everything to these inodes.
    """

    def __init__(self, only: frozenset[int] = frozenset()) -> None:
        self.own = self._host = inode_of(OWN)
        with suppress(OSError):  # a hardened init may hide its namespaces even from root
            self._host = inode_of("/proc/1/ns/net")
        self.errors: dict[int, str] = {}
        self._only = only
        self._members: dict[int, int] = {}
        self._empty: dict[int, str] = {}
        self._dumps: dict[int, SocketDump] = {}
        self._paths: dict[int, PacketPath] = {}
        self._over: dict[int, frozenset[int]] = {}
        self._creators: dict[int, int] = {}
        self._made: Counter[int] = Counter()

    def update(self, processes: Mapping[int, Process]) -> None:
        """Learn the namespaces from their processes; close the sockets of those that ended."""
        members: dict[int, int] = {}
        for process in processes.values():
            if self._is_ours(process.namespace):
                members.setdefault(process.namespace, process.pid)
        self._creators = {inode: self._creator(inode, pid) for inode, pid in members.items()}
        self._members = members = self._shared(members)
        self._empty = dict(_named_paths(self._only - members.keys()))
        self._paths.clear()
        for inode in self._dumps.keys() - members.keys():
            self._dumps.pop(inode).close()
        self.errors = {inode: text for inode, text in self.errors.items() if inode in self.inodes}
        self._over = {inode: users for inode, users in self._over.items() if inode in members}

    def _shared(self, members: Mapping[int, int]) -> dict[int, int]:
        """Without what users made beyond their share; those that are known stay."""
        made: Counter[int] = Counter()
        kept = {}
        for inode in sorted(members, key=lambda one: one not in self._members):
            creator = self._creators[inode]
            made[creator] += 1
            if not creator or made[creator] <= _MOST_MADE:
                kept[inode] = members[inode]
        self._made = made
        return kept

    def _creator(self, inode: int, pid: int) -> int:
        known = self._creators.get(inode)
        if known is None:
            with suppress(OSError):
                return creator_of(f"/proc/{pid}/ns/net")
        return known or 0

    def keep(self, inodes: Iterable[int]) -> None:
        """Keep sockets open in these namespaces only (those with workloads)."""
        for inode in self._dumps.keys() - set(inodes) - {self.own}:
            self._dumps.pop(inode).close()
        for inode in set(inodes) & self._members.keys():
            with suppress(OSError, KeyError):  # `listeners` tries again and reports it
                self._dump(inode)

    @property
    def inodes(self) -> tuple[int, ...]:
        """All namespaces that hold a process, our own one first, and those of ``only`` that have
        but a name."""
        every = self._members.keys() | self._empty.keys()
        return tuple(sorted(every, key=lambda one: (one != self.own, one)))

    def adopt(self, process: Process) -> None:
        """Learn the namespace of one process that an event named.

        A known process there is kept while it lives: the new one may end at once, and then the
        namespace could not be entered until the next full pass.
        """
        inode = process.namespace
        if not self._is_ours(inode) or self._is_known(inode):
            return
        creator = self._creators[inode] = self._creator(inode, process.pid)
        if inode not in self._members:
            self._made[creator] += 1
        if not creator or self._made[creator] <= _MOST_MADE:
            self._members[inode] = process.pid

    def path(self, inode: int) -> str:
        """A path through which the namespace can be entered; raises KeyError when unknown."""
        return self._empty.get(inode) or f"{self._member(inode)}/ns/net"

    def name(self, inode: int) -> str:
        """The name under /run/netns, ``host``, or the inode: for people."""
        for path in _named():
            with suppress(OSError):
                if path.stat().st_ino == inode:
                    return path.name
        return "host" if inode == self._host else f"net:{inode}"

    def packet_path(self, inode: int) -> PacketPath:
        """The way of packets there, read once between two updates; the usual one where it cannot
        be read."""
        if inode not in self._paths:
            self._paths[inode] = PacketPath()
            with suppress(OSError, KeyError):
                self._paths[inode] = run_in(self.path(inode), packet_path)
        return self._paths[inode]

    def forget_packet_path(self, inode: int) -> None:
        """Read the way of packets again when it is asked for."""
        self._paths.pop(inode, None)

    def delivers_elsewhere(self, inode: int) -> bool:
        """Whether IPVS takes packets there that no local socket is meant to get."""
        try:
            table = read(f"{self._member(inode)}/net/ip_vs", _IPVS_ENOUGH)
        except KeyError:
            return False
        return len(table.splitlines()) > _IPVS_HEADER

    def longest_queue(self, inode: int) -> int:
        """The sysctl somaxconn of a namespace, which cuts the backlog; 0: it cannot be read."""
        with suppress(OSError, KeyError, ValueError):
            return run_in(self.path(inode), lambda: int(_SOMAXCONN.read_text()))
        return 0

    def listeners(self, inode: int, port: int = 0, only: Proto | None = None) -> list[Listener]:
        """The listeners in one namespace; an empty list and a line in `errors` on failure."""
        try:
            found = self._read(inode, port, only)
        except (OSError, KeyError) as error:
            self.errors[inode] = f"listeners cannot be read: {error}"
            return []
        self.errors.pop(inode, None)
        return found

    def unix_listeners(self, inode: int) -> list[Listener]:
        """The listening unix sockets of one namespace, of the first `_UNIX_LIMIT` bytes of all."""
        try:
            path = f"{self._member(inode)}/net/unix"
        except KeyError:
            return []
        text = b"".join(parts_of(path, _UNIX_LIMIT, short_is_last=False)).decode(errors="replace")
        rows = (line.split(None, 7) for line in text.split("\n")[1:-1])
        return [
            Listener(inode, Proto.UNIX, 0, path=row[7], inode=int(row[6]), order=int(row[6]))
            for row in rows
            if len(row) == 8 and row[3] == _ACCEPTS_CONNECTIONS
        ]

    @property
    def left_out(self) -> Iterator[str]:
        """The users with more listeners than are looked at, a line for each namespace."""
        for creator, number in self._made.items():
            if creator and number > _MOST_MADE:
                yield (
                    f"user {creator}: {number - _MOST_MADE} of the network namespaces that this "
                    "user made are not looked at"
                )
        for inode, users in self._over.items():
            for uid in users:
                yield (
                    f"user {uid}: more than {most_listeners(uid)} listeners in "
                    f"{self.name(inode)}, of which the others are not seen"
                )

    @property
    def sees_udp(self) -> bool:
        """Whether the kernel shows UDP sockets, as far as we looked."""
        return all(dump.sees_udp for dump in self._dumps.values())

    def close(self) -> None:
        """Give all descriptors back."""
        for dump in self._dumps.values():
            dump.close()
        self._dumps.clear()

    def _member(self, inode: int) -> str:
        """The folder of a process in there; raises KeyError when none is known."""
        pid = self._members[inode]
        return "/proc/self" if inode == self.own else f"/proc/{pid}"

    def _is_known(self, inode: int) -> bool:
        with suppress(OSError, KeyError):
            return inode_of(self.path(inode)) == inode
        return False

    def _is_ours(self, inode: int) -> bool:
        return inode != 0 and (not self._only or inode in self._only)

    def _read(self, inode: int, port: int, only: Proto | None) -> list[Listener]:
        held = self._dumps.get(inode)
        if held is not None or inode == self.own:
            return self._listed(held or self._dump(inode), port, only)
        dump = self._open(inode)
        try:
            return self._listed(dump, port, only)
        finally:
            dump.close()

    def _listed(self, dump: SocketDump, port: int, only: Proto | None) -> list[Listener]:
        found = dump.listeners(port, only)
        if not port and only is None:
            self._over[dump.namespace] = frozenset(dump.over)
        return found

    def _dump(self, inode: int) -> SocketDump:
        if inode not in self._dumps:
            self._dumps[inode] = self._open(inode)
        return self._dumps[inode]

    def _open(self, inode: int) -> SocketDump:
        dump = run_in(self.path(inode), SocketDump)
        if dump.namespace != inode:  # the pid was reused by a process elsewhere
            dump.close()
            raise OSError(f"network namespace {inode} is gone")
        return dump


def _named_paths(inodes: Collection[int]) -> Iterator[tuple[int, str]]:
    """The paths under /run/netns of these namespaces."""
    for path in _named() if inodes else ():
        with suppress(OSError):
            if (inode := path.stat().st_ino) in inodes:
                yield inode, str(path)


def _named() -> list[Path]:
    """The files under /run/netns; none if they cannot be listed."""
    try:
        return list(NAMED.iterdir())
    except OSError:
        return []


def inode_of_name(name: str) -> int:
    """The inode behind a name under /run/netns or a path. Raises OSError."""
    return inode_of(name if "/" in name else str(NAMED / name))


def every_namespace() -> Mapping[int, str]:
    """All network namespaces that have a process or a name, by inode, with a path into each.

    For ``vllmwall down`` and the like, where time does not matter.
    """
    import psutil

    found: dict[int, str] = {}
    paths = [OWN, *(f"/proc/{pid}/ns/net" for pid in psutil.pids())]
    if NAMED.is_dir():
        paths += [os.fspath(path) for path in NAMED.iterdir()]
    for path in paths:
        with suppress(OSError):
            found.setdefault(inode_of(path), path)
    return found
