"""Changes to our table by other programs, from the notifications of nfnetlink.

The kernel reports each commit to subscribers: what was added and deleted, then a message that names
the process (nf_tables_commit and nf_tables_gen_notify, net/netfilter/nf_tables_api.c; since
Linux 4.16). Most commits are other programs' own affairs and thousands of messages long, so a
datagram is taken apart only where the name of our table is in it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vllmwall.enforce.nftables.names import TABLE_NAME
from vllmwall.linux import netlink

_GROUP = 7  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NFGENMSG = 4  # bytes of struct nfgenmsg
_INET = 1  # NFPROTO_INET, linux/netfilter.h
_NAME = TABLE_NAME.encode() + b"\0"
_NAMED = struct.pack("=HH", 4 + len(_NAME), 1) + _NAME  # attribute 1 is the table in every message
_NAT = struct.pack("=HH", 8, 7) + b"nat\0"  # NFTA_CHAIN_TYPE, in no other message
_NEWGEN, _GEN_PID, _GEN_NAME = 15, 2, 3
_RECEIVE_BUFFER = 4 << 20  # bytes; a script of 10,000 rules is 3 MB of messages
_DATAGRAM = 1 << 16  # NLMSG_GOODSIZE is a page; a message alone may be longer
_AT_ONCE = 2048  # datagrams; the caller polls again for the others
_MOST_DEEDS = 6

_MADE, _DELETED = "made or changed the table", "deleted the table"

# Message numbers of linux/netfilter/nf_tables.h, and the attribute that says which one is meant.
_DEEDS = {
    0: (_MADE, 0),
    2: (_DELETED, 0),
    3: ("added chain", 3),
    5: ("deleted chain", 3),
    6: ("added a rule to", 2),
    8: ("deleted a rule of", 2),
    9: ("added set", 2),
    11: ("deleted set", 2),
    12: ("added elements to", 2),
    14: ("deleted elements of", 2),
    18: ("added object", 2),
    20: ("deleted object", 2),
    22: ("added flowtable", 2),
    24: ("deleted flowtable", 2),
}


@dataclass(frozen=True)
class Touch:
    """A commit of somebody else that touched our table.

    ``pid`` is the kernel's own number of the process (of the thread, where it has several);
    0 where notifications were lost, so that a change is possible.
    """

    pid: int
    command: str
    what: str

    def __str__(self) -> str:
        """For the log."""
        return f"{self.command} (pid {self.pid}) {self.what}" if self.pid else self.what


LOST = Touch(0, "", "notifications were lost: too many changes at once")


class Watch:
    """Notifications of the network namespace that the calling thread is in.

    ``portid`` is the netlink socket that our own changes come from: those are left out.
    It keeps the namespace alive until `close`. Raises OSError.
    """

    def __init__(self, portid: int = 0) -> None:
        self._portid = portid
        self._deeds: list[str] = []
        self._has_new_nat = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, netlink.NETFILTER
        )
        with suppress(OSError):  # beyond the limit with CAP_NET_ADMIN only
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        try:
            self._socket.bind((0, 1 << (_GROUP - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when there are notifications; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket, and with it the namespace, back."""
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()

    def read(self) -> tuple[Touch, ...]:
        """What others did to our table since the last call. Never waits."""
        return tuple(self._touches())

    def found_nat(self) -> bool:
        """Whether a chain of the type nat was made or deleted since the last call. `read` first."""
        found, self._has_new_nat = self._has_new_nat, False
        return found

    def _touches(self) -> Iterator[Touch]:
        for _ in range(_AT_ONCE):
            try:
                datagram = self._socket.recv(_DATAGRAM)
                self._has_new_nat = self._has_new_nat or _NAT in datagram
                if self._deeds or _NAMED in datagram:
                    yield from self._decoded(datagram)
            except BlockingIOError:
                return
            except netlink.MalformedMessageError:
                yield self._lost()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield self._lost()

    def _lost(self) -> Touch:
        self._deeds.clear()
        return LOST

    def _decoded(self, datagram: bytes) -> Iterator[Touch]:
        for kind, port, family, body in _messages(datagram):
            if kind == _NEWGEN:
                if self._deeds:
                    yield _touch(body, self._deeds)
                self._deeds = []
            elif port != self._portid and family == _INET and body.startswith(_NAMED):
                self._note(_deed(kind, body))

    def _note(self, deed: str) -> None:
        if deed not in self._deeds and (len(self._deeds) <= _MOST_DEEDS or deed == _DELETED):
            self._deeds.append(deed)


_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


def _messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Each nf_tables message's kind, sender, family and attributes."""
    for kind, port, start, end in netlink.every_message(datagram):
        if kind >> 8 == _SUBSYSTEM and end > start + _NFGENMSG:
            yield kind & 0xFF, port, datagram[start], datagram[start + _NFGENMSG : end]


def _deed(kind: int, body: bytes) -> str:
    words, attribute = _DEEDS.get(kind, (f"sent message {kind}", 0))
    name = _text(netlink.values(body).get(attribute, b"")) if attribute else ""
    return f"{words} {name}".strip()


def _touch(body: bytes, deeds: list[str]) -> Touch:
    attributes = netlink.values(body)
    pid = int.from_bytes(attributes.get(_GEN_PID, b""), "big")
    if _DELETED in deeds:  # with everything in it, which the kernel lists first
        deeds = [_DELETED]
    what = ", ".join(deeds[:_MOST_DEEDS]) + (", …" if len(deeds) > _MOST_DEEDS else "")
    name = _text(attributes.get(_GEN_NAME, b""))
    return Touch(pid or -1, name or _command_of(pid), what)


def _command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return "?"


def _text(raw: bytes) -> str:
    """A name that others chose, fit for a log line."""
    text = raw.rstrip(b"\0").decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
