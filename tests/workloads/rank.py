"""A process that opens and closes ports when it is told to on its standard input.

Without an argument it listens as a rank of torch does; with a number, with that backlog; with any
other words, as a web server does that was started with them. Tests copy this text into scripts
whose names are those of servers, also for users who cannot read the checkout. The environment says
more:

LIBTORCH    a file to map: a real rank has torch mapped when it listens
RUN_AS      the user to become
DUMPABLE    that user can read it in /proc, as a process that it started itself
TITLE       the new command line; the old one and the environment are overwritten
FORK_FIRST  have a child that looks the same and does nothing
"""

import contextlib
import ctypes
import mmap
import os
import socket
import sys
import threading
import time
from pathlib import Path


def map_library(path: str) -> mmap.mmap:
    """Map a file that stands for torch."""
    with Path(path).open("rb") as library:
        return mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)


def backlog(words: list[str]) -> int:
    """As the words of the command line say."""
    if not words:
        return 128
    return int(words[0]) if words[0].isdigit() else 2048


def become(user: int) -> None:
    """Run as this user from now on."""
    os.setuid(user)
    if "DUMPABLE" in os.environ:
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE


def retitle(title: bytes, last: int) -> None:
    """Overwrite the memory from the command line on: until field ``last`` of proc_pid_stat(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[last - 3])
    ctypes.memmove(start, title.ljust(end - start, bytes(1)), end - start)


def fork() -> int:
    """Start a child that inherits every socket and forgets what it was; its pid."""
    renamed, done = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        retitle(b"job", 49)  # arg_end
        Path("/proc/self/comm").write_text("job")
        os.write(done, b"x")
        time.sleep(600)
    os.read(renamed, 1)
    return child


def listen(kind: str, address: str, port: int) -> socket.socket:
    """Open a port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind == "tcp":
        made.listen(backlog(sys.argv[1:]))
    return made


def echo(listening: socket.socket) -> None:
    """Accept connections for ever, and send back what comes."""
    while True:
        made, _ = listening.accept()
        threading.Thread(target=answer, args=(made,), daemon=True).start()


def answer(made: socket.socket) -> None:
    """Send back what comes over a connection, until it ends."""
    with made, contextlib.suppress(OSError):
        while data := made.recv(64):
            made.sendall(data)


def obey() -> None:
    """Do what each line says: ``open|echo|close|fork KIND ADDRESS PORT``."""
    held: dict[tuple[str, str, str], socket.socket] = {}
    for line in sys.stdin:
        verb, kind, address, port = line.split()
        answer = "done"
        if verb == "fork":
            answer = str(fork())
        elif verb == "close":
            held.pop((kind, address, port)).close()
        else:
            held[kind, address, port] = listen(kind, address, int(port))
        if verb == "echo":
            served = held[kind, address, port]
            threading.Thread(target=echo, args=(served,), daemon=True).start()
        print(answer, flush=True)


if __name__ == "__main__":
    if "FORK_FIRST" in os.environ and os.fork() == 0:
        time.sleep(600)
    mapped = map_library(os.environ["LIBTORCH"]) if os.environ.get("LIBTORCH") else None
    if "RUN_AS" in os.environ:
        become(int(os.environ["RUN_AS"]))
    if "TITLE" in os.environ:
        retitle(os.environ["TITLE"].encode(), 51)  # env_end
    print("ready", flush=True)
    obey()
