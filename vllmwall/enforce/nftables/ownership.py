"""The owner of our table: the one netlink socket that may change it.

A table with the flags owner and persist (Linux 6.9) is changed by one netlink socket only: a
`flush ruleset` of another program passes it over, everything else of theirs is refused with
EPERM. When the socket closes the table stays, an orphan that the next one adopts by sending it
with the same flags. Read in net/netfilter/nf_tables_api.c and seen on 6.18:

- nf_tables_updtable refuses flags other than the table's own: an orphan gets its owner back, a
  table without ``persist`` never gets one. Such a table has to be deleted and made again.
- So does the sender of a NEWTABLE without flags, which is what nft's ``table inet x { … }`` is:
  of an owned table only its parts can be named (`Table.commands`).
- Without ``persist`` an owned table dies with its owner: never one without the other.
- libnftables 1.0.6 does not know ``persist``; so the messages here are our own, over its socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.names import TABLE_NAME
from vllmwall.linux import netlink
from vllmwall.linux.netns import run_in_new

SWITCH = "VLLMWALL_OWNER"
"""Environment: ``off`` gives up the owner flag, as on a kernel that does not know it."""

OWNER, PERSIST = 2, 4  # NFT_TABLE_F_*, linux/netfilter/nf_tables.h

_NEWTABLE, _GETTABLE, _DELTABLE = 0x0A00, 0x0A01, 0x0A02  # NFNL_SUBSYS_NFTABLES << 8
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_TABLE_NAME, _TABLE_FLAGS, _TABLE_USERDATA, _TABLE_OWNER = 1, 2, 6, 7
_COMMENT = 0  # NFTNL_UDATA_TABLE_COMMENT, libnftnl/udata.h
_INET = 1  # NFPROTO_INET


@dataclass(frozen=True)
class TableState:
    """A table of ours: its flags, and the netlink port of its owner (0: none)."""

    flags: int
    owner: int

    @property
    def is_orphan(self) -> bool:
        """A program that sends it with the same flags owns it (nft_table_is_orphan)."""
        return self.flags & (OWNER | PERSIST) == PERSIST


@lru_cache(maxsize=1)
def why_not_owned() -> str:
    """Why no table can be owned on this kernel, in words; empty: it can. Asked once a process."""
    if os.environ.get(SWITCH) == "off":
        return f"switched off by {SWITCH}"
    try:
        return run_in_new(_why_refused)
    except OSError as error:
        return f"not tried: {error.strerror or error}"


def _why_refused() -> str:
    """Make a table with both flags where the calling thread is, and read it back."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETFILTER) as ours:
            ours.bind((0, 0))
            make(ours, OWNER | PERSIST, "probe")
            found = table(ours)
            taken = found is not None and found.flags == OWNER | PERSIST
            return "" if taken else "the kernel forgets the flags owner and persist"
    except (OSError, EnforceError) as error:
        return f"the kernel does not take the flags owner and persist: {error}"


def table(sender: socket.socket, name: str = TABLE_NAME) -> TableState | None:
    """The table in the network namespace of the socket; None: there is none."""
    request = _message(_GETTABLE, netlink.REQUEST, netlink.text(_TABLE_NAME, name), 1)
    for kind, body in _exchange(sender, request):
        if kind == netlink.ERROR:
            _check(body, missing=errno.ENOENT)
        elif kind == _NEWTABLE:
            found = netlink.values(body, 4)
            number = {key: int.from_bytes(value, "big") for key, value in found.items()}
            return TableState(number.get(_TABLE_FLAGS, 0), number.get(_TABLE_OWNER, 0))
    return None


def adopt(sender: socket.socket) -> None:
    """Become the owner of the orphaned table. Raises EnforceError."""
    commit(sender, [_new_table(OWNER | PERSIST, b"")])


def make(sender: socket.socket, flags: int, comment: str) -> None:
    """Replace our table by an empty one, in one transaction. Raises EnforceError.

    In a table that had chains this is a gap: something else must guard meanwhile.
    """
    text = comment.encode() + b"\0"
    userdata = netlink.attribute(_TABLE_USERDATA, bytes([_COMMENT, len(text)]) + text)
    new = _new_table(flags, userdata)
    commit(sender, [_delete(TABLE_NAME), new] if table(sender) else [new])


def delete(sender: socket.socket, *names: str) -> bool:
    """Take these tables away; False: there was none. Raises EnforceError."""
    there = [name for name in names if table(sender, name) is not None]
    if there:
        commit(sender, [_delete(name) for name in there])
    return bool(there)


def holder(portid: int, sockets: str = "/proc/thread-self/net/netlink") -> str:
    """The process behind a netlink port of the namespace that we are in, for people."""
    inode = ""
    for line in Path(sockets).read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == str(netlink.NETFILTER) and fields[2] == str(portid):
            inode = fields[-1]
    for link in Path("/proc").glob("[0-9]*/fd/*") if inode else ():
        try:
            if os.readlink(link) == f"socket:[{inode}]":  # noqa: PTH115 (not a path)
                pid = link.parts[2]
                command = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
                return f"{command} (pid {pid})"
        except OSError:
            continue
    return f"another program (netlink port {portid})"


def message(kind: int, body: bytes) -> bytes:
    """A message about our table that makes something, for `commit`."""
    return _message(kind, netlink.REQUEST | netlink.CREATE | netlink.ACK, body, 1)


def _new_table(flags: int, more: bytes) -> bytes:
    body = netlink.text(_TABLE_NAME, TABLE_NAME)
    body += netlink.attribute(_TABLE_FLAGS, struct.pack("!I", flags)) + more
    return _message(_NEWTABLE, netlink.REQUEST | netlink.CREATE | netlink.ACK, body, 1)


def _delete(name: str) -> bytes:
    body = netlink.text(_TABLE_NAME, name)
    return _message(_DELTABLE, netlink.REQUEST | netlink.ACK, body, 1)


def commit(sender: socket.socket, messages: list[bytes]) -> None:
    """Send messages as one transaction. Raises EnforceError with the first refusal."""
    begin, end = (_message(kind, netlink.REQUEST, b"", 0, 10) for kind in (_BEGIN, _END))
    for kind, body in _exchange(sender, begin + b"".join(messages) + end):
        if kind == netlink.ERROR:
            _check(body)


def _check(body: bytes, missing: int = 0) -> None:
    """Raise EnforceError for a refusal; the code ``missing`` is none."""
    code = netlink.error_code(body, 0)
    if code not in (0, missing):
        raise EnforceError(f"the kernel refused our table: {os.strerror(code)}")


def _exchange(sender: socket.socket, request: bytes) -> list[tuple[int, bytes]]:
    """The kernel's answers, which are there when sending returns."""
    _answers(sender)
    sender.sendto(request, (0, 0))
    return _answers(sender)


def _answers(sender: socket.socket) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while True:
        try:
            data = sender.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        for kind, _, start, end in netlink.every_message(data):
            found.append((kind, data[start:end]))


def _message(kind: int, flags: int, body: bytes, sequence: int, resource: int = 0) -> bytes:
    header = struct.pack("!BBH", 0 if resource else _INET, 0, resource)  # struct nfgenmsg
    return netlink.message(kind, flags, header + body, sequence)
