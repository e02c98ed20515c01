"""Sends probes and receives replies, in the network namespace of the calling thread.

All probes run at once: a closed port takes the whole timeout, and a job can have hundreds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from vllmwall.inspect.prove import packets
from vllmwall.inspect.prove.harness import PORTS
from vllmwall.inspect.prove.plan import Probe, Source, Way
from vllmwall.inspect.prove.verdicts import Reply
from vllmwall.model import Address, Proto

_ROUNDS = 3
_BURST = 64  # packets; the kernel queues 1000 on a processor, for all programs
_REST = 0.002  # seconds
_HALF = len(PORTS) // 2
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger
_ICMP = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_Key = tuple[Address, Address, Proto, int]


class ProbeRun:
    """One run of probes. Replies are in ``seen``; a probe that is not there got none."""

    def __init__(self, probes: Collection[Probe]) -> None:
        self.seen: dict[Probe, Reply] = {}
        self.probes = list(probes)
        self._raw = {(_key(one)): one for one in probes if one.way is not Way.CONNECT}
        self._dialled: dict[Probe, socket.socket] = {}
        self._port = PORTS[os.getpid() % _HALF]
        self._sequence = secrets.randbits(32)
        self._selector = selectors.DefaultSelector()
        self._senders: dict[tuple[Source, Proto], socket.socket] = {}
        self._is_stopped = False
        self._wake, self._woken = socket.socketpair()

    def run(self, patience: float) -> None:
        """Send each probe, and repeat it while nothing answers, for ``patience`` seconds."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._selector.close)
            stack.callback(self._wake.close)
            stack.callback(self._woken.close)
            stack.callback(self._hang_up)
            self._open(stack)
            for attempt in range(_ROUNDS):
                self._dial(attempt)
                self._send()
                self._listen(time.monotonic() + patience / _ROUNDS)

    def stop(self) -> None:
        """Make `run` return. For another thread: the interpreter waits for its threads at exit."""
        self._is_stopped = True
        with contextlib.suppress(OSError):  # it has returned
            self._wake.send(b"x")

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._selector.register(self._woken, selectors.EVENT_READ, (_nothing, None))
        for source in {one.source for one in self.probes}:
            family = _FAMILIES[source.address.version]
            for proto, number in ((Proto.TCP, socket.IPPROTO_TCP), (Proto.UDP, socket.IPPROTO_UDP)):
                made = stack.enter_context(socket.socket(family, socket.SOCK_RAW, number))
                made.bind((str(source.address), 0))
                self._senders[source, proto] = made
                if proto is Proto.TCP:
                    self._register(made, source, self._take_segment)
            made = stack.enter_context(
                socket.socket(family, socket.SOCK_RAW, _ICMP[source.address.version][1])
            )
            made.bind((str(source.address), 0))
            self._register(made, source, self._take_message)

    def _register(self, made: socket.socket, source: Source, take: object) -> None:
        made.setblocking(False)
        self._selector.register(made, selectors.EVENT_READ, (take, source))

    def _dial(self, attempt: int) -> None:
        """Connect again where nothing answered: the kernel itself repeats after a second."""
        self._hang_up()
        for one in self.probes:
            if one.way is Way.CONNECT and one not in self.seen:
                made = self._dialled[one] = _dialling(one, attempt)
                status = made.connect_ex((str(one.target.address), one.target.port))
                if status in (0, errno.EINPROGRESS):
                    about = (self._take_connection, one)
                    self._selector.register(made, selectors.EVENT_WRITE, about)
                else:
                    self.seen[one] = Reply.REFUSED

    def _hang_up(self) -> None:
        for made in self._dialled.values():
            with contextlib.suppress(KeyError):  # it was answered
                self._selector.unregister(made)
            made.close()
        self._dialled.clear()

    def _send(self) -> None:
        waiting = [one for one in self._raw.values() if one not in self.seen]
        for number, one in enumerate(waiting):
            if number % _BURST == _BURST - 1:
                self._listen(time.monotonic() + _REST)
            sender = self._senders[one.source, one.target.proto]
            with contextlib.suppress(
                OSError
            ):  # an ICMP error for an earlier packet, which `_take_message` reads
                sender.sendto(self._packet(one), (str(one.target.address), 0))

    def _packet(self, one: Probe) -> bytes:
        ends = one.source.address, one.target.address, (one.target.port, self._port)
        if one.way is Way.DATAGRAM:
            return packets.broken_datagram(*ends)
        return packets.syn(*ends, self._sequence)

    def _listen(self, until: float) -> None:
        """Receive replies until then, or until every probe has one."""
        while (left := until - time.monotonic()) > 0 and not self._is_done():
            for key, _ in self._selector.select(left):
                take, about = key.data
                take(key.fileobj, about)

    def _is_done(self) -> bool:
        return self._is_stopped or len(self.seen) == len(self.probes)

    def _take_segment(self, receiver: socket.socket, source: Source) -> None:
        for data, address in _received(receiver):
            segment = data[packets.ip_header(data) :] if address.version == 4 else data
            found = packets.answer(segment)
            if found is not None and found[0][1] == self._port:
                (theirs, _), is_open = found
                self._note(
                    (source.address, address, Proto.TCP, theirs),
                    Reply.OPEN if is_open else Reply.REFUSED,
                )

    def _take_message(self, receiver: socket.socket, source: Source) -> None:
        for data, address in _received(receiver):
            start = packets.ip_header(data) if address.version == 4 else 0
            found = packets.rejected(data[start:], address.version)
            if found is not None and found[2][1] == self._port:
                target, proto, (theirs, _) = found
                self._note((source.address, target, proto, theirs), Reply.REFUSED)

    def _take_connection(self, made: socket.socket, one: Probe) -> None:
        self._selector.unregister(made)
        failed = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed != errno.ETIMEDOUT:
            self.seen[one] = Reply.REFUSED if failed else Reply.OPEN

    def _note(self, key: _Key, seen: Reply) -> None:
        if key in self._raw:
            self.seen.setdefault(self._raw[key], seen)


def _nothing(_: object, __: object) -> None:
    """The wake-up itself is enough."""


def _key(one: Probe) -> _Key:
    return one.source.address, one.target.address, one.target.proto, one.target.port


def _dialling(one: Probe, attempt: int) -> socket.socket:
    """A socket that closes with a reset, so that neither end keeps state."""
    made = socket.socket(_FAMILIES[one.source.address.version], socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    made.bind((str(one.source.address), PORTS[_HALF + (os.getpid() + attempt) % _HALF]))
    return made


def _received(receiver: socket.socket) -> Iterator[tuple[bytes, IPv4Address | IPv6Address]]:
    with contextlib.suppress(OSError):  # nothing left, or an error that ICMP put there
        while True:
            data, address = receiver.recvfrom(2048)
            yield data, ip_address(address[0])
