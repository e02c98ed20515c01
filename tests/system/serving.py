"""A stand-in for `vllm serve` that any Python runs: an API, opened last, and what is internal.

Installed as a script called ``vllm`` and started like it; under another name it is a job that the
configuration teaches. Whatever comes to its ports is echoed.
"""

import argparse
import select
import signal
import socket
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a container's first process must want it
parser = argparse.ArgumentParser(prog="vllm")
parser.add_argument("command", choices=["serve"])
parser.add_argument("model")
parser.add_argument("--host", default="0.0.0.0")
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--master-port", type=int, default=29500)
parser.add_argument("--delay", type=float, default=0.5)  # the real one imports torch, for seconds
asked = parser.parse_args()
time.sleep(asked.delay)
listening: list[socket.socket] = []
for port, backlog in ((asked.master_port, 128), (asked.port, 2048)):  # uvicorn's: 2048
    family = socket.AF_INET6 if ":" in asked.host else socket.AF_INET
    server = socket.create_server(
        (asked.host, port), family=family, backlog=backlog, dualstack_ipv6=":" in asked.host
    )
    listening.append(server)
connected: list[socket.socket] = []
while True:
    for ready in select.select([*listening, *connected], [], [])[0]:
        if ready in listening:
            connected.append(ready.accept()[0])
            continue
        data = b""
        try:
            data = ready.recv(1024)
            ready.sendall(data)
        except OSError:
            pass
        if not data:
            connected.remove(ready)
            ready.close()
