"""A node with a workload and a vllmwall daemon on it, for tests of the daemon.

The workload is small but real: a process that torch.distributed's environment marks as a rank
and that opens ports when told to. What recognition makes of real torch and vLLM is tested in
tests/unit/recognize and tests/real.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cgroups import inside
from tests.support.lab import Host, Lab
from tests.support.sharing import TRACEFS
from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.options import Options

PATIENCE = 15.0  # seconds; far more than anything here needs on a busy machine
PEERS = "[peers]\ncidrs = ['192.0.2.2/32', '2001:db8::2/128']\n"

# A real rank has torch mapped when it listens; here a file of that name stands for it.
RANK = """
import ctypes, mmap, os, socket, sys, time
if os.environ.get("LIBTORCH"):
    library = open(os.environ["LIBTORCH"], "rb")
    mapped = mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)
held = {}
if "RUN_AS" in os.environ:
    os.setuid(int(os.environ["RUN_AS"]))
print("ready", flush=True)
for line in sys.stdin:
    verb, kind, address, port = line.split()
    key = kind, address, port
    if verb == "fork":
        renamed, done = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            fields = open("/proc/self/stat").read().rpartition(")")[2].split()
            start, size = int(fields[45]), int(fields[46]) - int(fields[45])
            ctypes.memmove(start, b"job".ljust(size, bytes(1)), size)
            open("/proc/self/comm", "w").write("job")
            os.write(done, b"x")
            time.sleep(600)
        os.read(renamed, 1)
        print(child, flush=True)
        continue
    if verb == "close":
        held.pop(key).close()
    else:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, int(port)))
        if kind == "tcp":
            one.listen(int(sys.argv[1]) if len(sys.argv) > 1 else 128)
        held[key] = one
    print("done", flush=True)
"""
SERVE = "import sys; sys.argv[1:2] = ['2048']\n" + RANK


def eventually(condition: Callable[[], object], what: str, log: Path | None = None) -> None:
    """Wait until it holds; fail loudly, with the log, when it does not within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        text = log.read_text() if log and time.monotonic() >= deadline else ""
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{text}"
        time.sleep(0.02)


class Program:
    """A process on the node that opens and closes ports when told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "ready\n" == line, line + process.stdout.read()

    def open(self, kind: str, address: str, port: int) -> None:
        """Listen."""
        self._tell(f"open {kind} {address} {port}")

    def close(self, kind: str, address: str, port: int) -> None:
        """Stop listening."""
        self._tell(f"close {kind} {address} {port}")

    def fork(self) -> int:
        """Have a child that inherits every socket and forgets what it was; its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("fork - - -", file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def kill_root(self) -> None:
        """End the process itself and leave its children alone."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert "done\n" == answer, answer + self._process.stdout.read()


@dataclass
class Guarded:
    """The lab's node under a daemon of its own."""

    lab: Lab
    folder: Path
    on: Host | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o755, exist_ok=True)
        self.config = self.folder / "vllmwall.toml"
        self.runtime = self.folder / "run"
        self.log = self.folder / "log"
        self.configure(PEERS)
        self.process: subprocess.Popen[str] | None = None

    def configure(self, text: str) -> None:
        """Write the configuration; nobody reads it until start or reload."""
        self.config.write_text("[daemon]\nfull_pass_seconds = 600\n" + text)
        self.config.chmod(0o644)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.process = self.launch()
        eventually(self._answers, "the daemon answers", self.log)

    def settled(self) -> None:
        """Wait for the full pass that follows the last event."""

        def reason() -> object:
            return self.ask("status")["daemon"]["last_pass"]["reason"]  # type: ignore[index]

        eventually(lambda: reason() == "settle", "the pass after the event")

    def stands(self, listeners: int) -> None:
        """Wait until the workloads have so many listeners, and the rule of each stands.

        A workload is known as soon as its program has started, which tells nothing of its ports.
        """

        def rules() -> list[str]:
            workloads = self.ask("status")["workloads"]
            return [one["rule"] for each in workloads for one in each["listeners"]]  # type: ignore[attr-defined]

        eventually(lambda: rules() == ["stands"] * listeners, "the rules stand")

    def launch(self) -> subprocess.Popen[str]:
        """Start the daemon."""
        command = [sys.executable, "-m", "vllmwall", "daemon", "--log", "json"]
        command += ["--config", str(self.config), "--runtime-dir", str(self.runtime)]
        command += ["--only-namespace", self.lab.node.path, *self.arguments]
        if self.before:
            command = ["unshare", "-m", "sh", "-c", f'{self.before}; exec "$@"', "sh", *command]
        host = self.on or self.lab.node
        environment = {**os.environ, **self.environment}
        host._stack.callback(self._remove_instance)  # what a killed daemon leaves goes on tracing
        return host.popen(command, env=environment, output=self.log)

    @property
    def trace_instance(self) -> Path:
        """Where the daemon reads the kernel's events."""
        return TRACEFS / "instances" / Options(self.config, self.runtime).instance

    def _remove_instance(self) -> None:
        with contextlib.suppress(OSError):
            self.trace_instance.rmdir()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the daemon ended:\n" + self.log.read_text()
        try:
            return bool(self.ask("status")["daemon"]["passes"])  # type: ignore[index]
        except ControlError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the daemon by a signal; its exit status."""
        assert self.process is not None
        self.signal(number)
        return self.process.wait(timeout=PATIENCE)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def ask(self, command: str, **arguments: object) -> dict[str, object]:
        """Ask over the control socket."""
        return request(command, arguments, self.runtime / "control.sock")

    def logged(self, key: EventKey) -> list[dict[str, object]]:
        """The log's records of one event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[0] == "{"]
        return [line for line in lines if line["event"] == key.key]

    def rank(self, cgroup: Path | None = None) -> Program:
        """A torch.distributed rank that opens ports on command."""
        env = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        library = self.folder / "libtorch_cpu.so"
        library.write_bytes(b"not really")
        env |= {"MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "29500", "LIBTORCH": str(library)}
        return self._program([sys.executable, "-c", RANK], env, cgroup)

    def server(self, port: int, cgroup: Path | None = None, user: int = 0) -> Program:
        """A process started as `vllm serve` is, which listens as uvicorn does."""
        script = self.folder / "vllm"
        script.write_text(f"#!{sys.executable}\n{SERVE}")
        script.chmod(0o755)
        argv = [str(script), "serve", "tiny", "--port", str(port)]
        return self._program(argv, {**os.environ, "RUN_AS": str(user)}, cgroup)

    def bystander(self, cgroup: Path | None = None) -> Program:
        """A process that is no workload."""
        return self._program([sys.executable, "-c", RANK], {**os.environ}, cgroup)

    def _program(self, argv: list[str], env: dict[str, str], cgroup: Path | None = None) -> Program:
        node = self.lab.node
        argv = inside(cgroup, argv) if cgroup else argv
        process = subprocess.Popen(
            node.command(argv),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        program = Program(process)
        node._stack.callback(program.kill)
        return program


@contextlib.contextmanager
def guarded(lab: Lab, folder: Path, **options: object) -> Iterator[Guarded]:
    """A daemon that has started and is ended, wall and all."""
    found = Guarded(lab, folder, **options)  # type: ignore[arg-type]
    found.start()
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.stop()
