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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cgroups import inside
from tests.support.lab import Host, Lab
from tests.support.sharing import TRACEFS
from tests.support.waiting import PATIENCE, eventually
from tests.workloads.listening import Listening
from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.options import Options

PEERS = "[peers]\ncidrs = ['192.0.2.2/32', '2001:db8::2/128']\n"

RANK = (Path(__file__).parents[1] / "workloads/rank.py").read_text()
"""A program that opens and closes ports on command, for `python -c` and for scripts."""


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

    def echo(self, address: str, port: int) -> None:
        """Listen, accept, and send back what comes."""
        self._tell(f"echo tcp {address} {port}")

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
    full_pass_seconds: int = 600

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o755, exist_ok=True)
        self.config = self.folder / "vllmwall.toml"
        self.runtime = self.folder / "run"
        self.log = self.folder / "log"
        self.configure(PEERS)
        self.process: subprocess.Popen[str] | None = None

    def configure(self, text: str) -> None:
        """Write the configuration; nobody reads it until start or reload."""
        self.config.write_text(f"[daemon]\nfull_pass_seconds = {self.full_pass_seconds}\n{text}")
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

    def wait_for_rules(self, listeners: int) -> None:
        """Wait until the workloads have so many listeners, and the rule of each is active.

        A workload is known as soon as its program has started, which tells nothing of its ports.
        """

        def rules() -> list[str]:
            workloads = self.ask("status")["workloads"]
            return [one["rule"] for each in workloads for one in each["listeners"]]  # type: ignore[attr-defined]

        eventually(lambda: rules() == ["active"] * listeners, "the rules stand")

    def listeners(self) -> list[dict[str, object]]:
        """All listeners of all workloads, as `status` shows them."""
        return [one for each in self.ask("status")["workloads"] for one in each["listeners"]]  # type: ignore[attr-defined]

    def wait_until_guarded(self, expected: Iterable[Listening]) -> None:
        """Until the daemon calls the node safe and shows every one of these ports."""
        ports = {one.port for one in expected}

        def guarded() -> bool:
            known = {one["port"] for one in self.listeners()}
            return ports <= known and self.ask("status")["safe"] is True

        eventually(guarded, f"ports {sorted(ports)} are guarded", self._shown)

    def wait_for_rule(self, port: int) -> None:
        """Until the rule of this port is active."""

        def is_active() -> bool:
            return (port, "active") in [(one["port"], one["rule"]) for one in self.listeners()]

        eventually(is_active, f"the rule of port {port} is active", self._shown)

    def _shown(self) -> str:
        return f"{self.log.read_text()}\n{json.dumps(self.ask('status'), indent=1)}"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `vllmwall ARGUMENTS` against this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "vllmwall", *arguments],
            env={**os.environ, "VLLMWALL_SOCKET": str(self.runtime / "control.sock")},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

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
        return self._program([sys.executable, "-c", RANK], self.rank_environment(), cgroup)

    def rank_environment(self) -> dict[str, str]:
        """The environment of a rank; `RANK` maps the library that it names."""
        library = self.folder / "libtorch_cpu.so"
        library.write_bytes(b"not really")
        rank = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        store = {"MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "29500", "LIBTORCH": str(library)}
        return {**os.environ, **rank, **store}

    def server(self, port: int, cgroup: Path | None = None, user: int = 0) -> Program:
        """A process started as `vllm serve` is, which listens as uvicorn does."""
        script = self.folder / "vllm"
        script.write_text(f"#!{sys.executable}\n{RANK}")
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


def running(lab: Lab, folder: Path) -> Guarded:
    """A daemon with the default time between full passes; the lab ends it."""
    found = Guarded(lab, folder, full_pass_seconds=30)
    found.start()
    return found
