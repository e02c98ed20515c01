"""Programs and files of a user who wants to stop the daemon, for `python -c` and for tests."""

from __future__ import annotations

SLEEP = "import time; time.sleep(600)"

ODD = {
    "bool": "a: !!bool x\n",
    "float": "a: !!float ''\n",
    "digits": f"port: 0x{'f' * 6000}\n",
    "deep": "[" * 30_000,
    "merges": "a0: &a0 {x: 1}\n"
    + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)),
}
"""Settings files that are odd in one way each."""

MANY = """
import os, time
for _ in range(60):
    if os.fork() == 0: time.sleep(600)
time.sleep(600)
"""

EXEC_MANY = """
import subprocess, sys, time
words = [sys.executable, "-c", "import time; time.sleep(600)", *sys.argv[1:]]
for _ in range(40): subprocess.Popen(words)
time.sleep(600)
"""

MAPS = """
import mmap, os, socket, sys, ctypes
os.chdir(sys.argv[1])
for _ in range(18):
    os.makedirs("x" * 200, exist_ok=True); os.chdir("x" * 200)
open("libtorch_cpu.so", "wb").write(bytes(16384))
f = open("libtorch_cpu.so", "rb")
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
args = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
libc.mmap.argtypes = args
for i in range(60000):
    libc.mmap(None, 4096, 1 + (i % 2) * 4, 2, f.fileno(), (i % 2) * 4096)
one = socket.create_server(("0.0.0.0", 0))
print("ready", flush=True)
import time; time.sleep(600)
"""

STORM = """
import socket, time
while True:
    due = time.monotonic() + 0.01
    for _ in range(20):
        one = socket.socket()
        one.bind(("0.0.0.0", 0))
        one.listen(128)
        one.close()
    time.sleep(max(0, due - time.monotonic()))
"""
"""2,000 ports a second."""

NAMESPACES = """
import ctypes, os, socket, time
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
libc = ctypes.CDLL(None)
def inside():
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
        socket.create_server(("0.0.0.0", 0))
        one = socket.create_server(("0.0.0.0", 0))
        time.sleep(1)
    os._exit(0)
living = 0
while True:
    if living == 200:
        os.wait()
        living -= 1
    if os.fork() == 0:
        inside()
    living += 1
"""
"""200 at a time, of one user; each lives for a second."""

ALIKE = """
import os, socket, sys, time
inner = socket.create_server(("0.0.0.0", 0), backlog=4096)
if os.fork() == 0:
    os.environ.clear()
    os.execv(sys.executable, [sys.executable, "-c", '''
import socket, sys, time
outer = socket.create_server(("0.0.0.0", 0), backlog=4096)
ends, held = (int(sys.argv[1]), outer.getsockname()[1]), []
for number in range(2000):
    for port in ends:
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(b"x" * 10)
        held.append(one)
    held.append(outer.accept()[0])
    held[-1].recv(10)
time.sleep(600)
''', str(inner.getsockname()[1])])
while True:
    one, _ = inner.accept()
    one.recv(10)
    os.dup(one.detach())
"""
"""2,000 connections to a workload's port and as many to another, with equal counts of bytes."""

UNREAD = """
import json, socket, sys, time
path, command, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
line = json.dumps({"command": command}).encode() + b"\\n"
def ask():
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
        one.settimeout(0.5)
        try:
            one.sendall(line * times)
            time.sleep(0.5)
        except OSError:
            pass
while True:
    try:
        ask()
    except OSError:
        time.sleep(0.01)
"""
"""Requests in one write whose answers nobody reads, again and again."""
