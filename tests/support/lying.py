"""Users who lie to the kernel's tracing: names of everything, made of events and random bytes."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.support.guarded import Guarded

USER = 1000
PYTHON = "/usr/bin/python3"  # which every user may read


def trace_line(task: int, text: str) -> str:
    """An event as trace_pipe prints it: the name of the thread takes 16 columns."""
    return f"{'<...>':>16}-{task} [000] ..... 1.000000: {text}"


def listen_line(task: int, port: int) -> str:
    """The event of a listen() on every address."""
    return trace_line(
        task,
        f"inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport={port} dport=0 "
        "saddr=0.0.0.0 daddr=0.0.0.0 saddrv6=::ffff:0.0.0.0 daddrv6=::ffff:0.0.0.0 "
        "oldstate=TCP_CLOSE newstate=TCP_LISTEN",
    )


def as_user(argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` as a user without privileges."""
    ids = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return ["setpriv", *ids, *argv]


_EXECUTE = """
import os, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for name in sys.argv[2:]:
        child = os.fork()
        if child == 0:
            os.execv(name, ["true"])
        os.waitpid(child, 0)
    time.sleep(0.005)
"""


def execute(
    node: Guarded, folder: Path, lines: Sequence[str], seconds: float
) -> subprocess.Popen[str]:
    """Have a user execute files whose names hold these lines, again and again."""
    names = []
    for line in lines:
        file = folder / f"python\n{line}\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to("/bin/true")
        names.append(str(file))
    argv = [PYTHON, "-c", _EXECUTE, str(seconds), *names]
    return node.lab.node.popen(as_user(argv))


FUZZ = textwrap.dedent("""
    import ctypes, os, random, socket, sys, time
    seed, seconds, folder, group, *lines = sys.argv[1:]
    chosen = random.Random(int(seed))
    prctl = ctypes.CDLL(None).prctl

    def name(longest):
        parts = []
        for _ in range(chosen.randint(1, 4)):
            kind = chosen.randrange(3)
            if kind == 0:
                parts.append(chosen.randbytes(chosen.randint(1, 20)))
            elif kind == 1:
                parts.append(chosen.choice(lines).encode())
            else:
                parts.append(chosen.choice([b"\\n", b" ", b"\\r\\n", b"python", b"vllm", b"%s"]))
        made = b"".join(parts).replace(b"\\0", b"").replace(b"/", b"")[-longest:]
        return made if made not in (b"", b".", b"..") else b"x"

    def program():
        path = os.path.join(folder.encode(), b"python" + name(240))
        if not os.path.lexists(path):
            os.symlink("/bin/sleep", path)
        child = os.fork()
        if child == 0:
            prctl(15, name(15))
            os.execve(path, [name(200), b"0"], {name(30).replace(b"=", b"") or b"x": name(100)})
        os.waitpid(child, 0)

    def thread():
        prctl(15, name(15))

    def control_group():
        path = os.path.join(group.encode(), name(200).replace(b"\\n", b""))
        try:
            os.mkdir(path)
            os.rmdir(path)
        except OSError:
            pass

    def unix():
        with socket.socket(socket.AF_UNIX) as made:
            try:
                made.bind(b"\\0" + name(90))
                made.listen(chosen.choice([2048, -1, 100, 5]))
            except OSError:
                pass

    def loopback():
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))
            made.listen(chosen.choice([2048, -1, 100, 5]))

    end, done = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        chosen.choice([program, thread, control_group, unix, loopback])()
        done += 1
    print(done, flush=True)
""")


def fuzz(
    node: Guarded, folders: tuple[Path, Path], lines: Sequence[str], seconds: float, boxed: bool
) -> subprocess.Popen[str]:
    """Have a user choose every name at random; it prints how many.

    ``folders`` are where programs and cgroups go. ``boxed``: in namespaces of its own.
    """
    box = "unshare --user --map-root-user --net --pid --fork --mount-proc --uts --ipc --cgroup"
    argv = [PYTHON, "-c", FUZZ, "11", str(seconds), *map(str, folders), *lines]
    return node.lab.node.popen(as_user([*(box.split() if boxed else ()), *argv]))
