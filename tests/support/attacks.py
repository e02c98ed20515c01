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
