"""Programs that relay what comes to a port to another one, byte for byte, or do not."""

from __future__ import annotations

import subprocess
import sys

from tests.support.lab import Host

# Where a second argument names a network namespace, it connects from within: as forkproxy does.
RELAY = r"""
import ctypes, os, select, socket, sys
port, inside, target, written = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
if os.environ.get("RUN_AS"):
    os.setuid(int(os.environ["RUN_AS"]))
server = socket.create_server(("0.0.0.0", port))
if inside != "-":
    assert ctypes.CDLL(None).setns(os.open(inside, os.O_RDONLY), 0x40000000) == 0
print("ready", flush=True)
others = {}
while True:
    for one in select.select([server, *others], [], [])[0]:
        if one is server:
            client, _ = server.accept()
            try:
                there = socket.socket()  # another user may not read all of Python
                there.connect(("127.0.0.1", target))
            except OSError:
                client.close()
                continue
            there.sendall(written.encode())  # a proxy that writes something of its own
            others |= {client: there, there: client}
        elif one in others:
            try:
                data = one.recv(65536)
                others[one].sendall(data)
            except OSError:
                data = b""
            if not data:
                other = others.pop(one)
                del others[other]
                one.close()
                other.close()
"""


def relay(
    host: Host, port: int, target: int, *, inside: str = "-", written: str = ""
) -> subprocess.Popen[str]:
    """Start one on a host: from ``port`` to ``target`` on loopback there, or ``inside``."""
    argv = [sys.executable, "-c", RELAY, str(port), inside, str(target), written]
    process = host.popen(argv)
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    return process
