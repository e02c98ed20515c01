"""Relays among a user's many connections that look alike."""

from __future__ import annotations

import os
import socket
import tracemalloc
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from tests.support.lab import Lab
from vllmwall.model import Listener, Process, Proto
from vllmwall.observe.relays import Relays

ALIKE, JOB = 600, 1
_MIB = 1 << 20


def listening(
    port: int, pid: int, stack: ExitStack, namespace: int
) -> tuple[socket.socket, Listener]:
    made = stack.enter_context(socket.create_server(("127.0.0.1", port), backlog=ALIKE))
    inode = os.fstat(made.fileno()).st_ino
    address = ip_address("127.0.0.1" if pid == JOB else "192.0.2.1")
    return made, Listener(namespace, Proto.TCP, port, address, inode=inode, pids=(pid,))


def dialled(server: socket.socket, stack: ExitStack) -> None:
    """One connection to it, with five bytes each way."""
    client = stack.enter_context(socket.create_connection(server.getsockname()))
    end = stack.enter_context(server.accept()[0])
    for one, other in ((client, end), (end, client)):
        one.sendall(b"hello")
        other.recv(5)


def test_connections_that_look_alike_cost_no_pair_each(lab: Lab) -> None:
    """The relay is found, in memory for each connection and not for each pair of them."""
    namespace = Path(lab.node.path).stat().st_ino
    with ExitStack() as stack:

        def connect() -> tuple[Listener, Listener]:
            inner, behind = listening(29601, JOB, stack, namespace)
            outer, front = listening(39601, os.getpid(), stack, namespace)
            for _ in range(ALIKE):
                dialled(inner, stack)
                dialled(outer, stack)
            return front, behind

        front, behind = lab.node.call(connect)
        me = {os.getpid(): Process(os.getpid(), 1, "relay")}
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        found = Relays().update((front, behind), me, {JOB}, lambda _: lab.node.path)
        assert ((namespace, front.inode, behind.inode),) == found
        assert tracemalloc.get_traced_memory()[1] < 8 * _MIB
