"""The product as a user runs it: `vllmwall daemon` on a host of the lab, and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.lab import Host
from tests.workloads.listening import Listening

PROGRAM = Path(sys.executable).with_name("vllmwall")
PATIENCE = 20.0  # seconds; a pass takes milliseconds, a starved machine can take long


class RunningWall:
    """A daemon that guards one host only; nothing else on the machine is touched.

    The process belongs to the lab that the host belongs to.
    """

    def __init__(self, host: Host, folder: Path, peers: Iterable[str]) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755)
        self._config = folder / "vllmwall.toml"
        self._runtime = folder / "run"
        self.log = folder / "daemon.log"
        self.set_peers(peers)
        command = [str(PROGRAM), "daemon", "--config", str(self._config)]
        command += ["--runtime-dir", str(self._runtime), "--only-namespace", host.path]
        self.process = host.popen(command, output=self.log)
        self._until(self._is_up, "the daemon answers")

    def set_peers(self, peers: Iterable[str]) -> None:
        """Write the configuration. The daemon reads it at start and at `reload`."""
        self._config.write_text(f"[peers]\ncidrs = {json.dumps(list(peers))}\n")
        self._config.chmod(0o644)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `vllmwall ARGUMENTS` against this daemon."""
        environment = {**os.environ, "VLLMWALL_SOCKET": str(self._runtime / "control.sock")}
        return subprocess.run(
            [PROGRAM, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def status(self) -> dict[str, object]:
        """`vllmwall status --json`. Raises RuntimeError when the daemon does not answer."""
        done = self.command("status", "--json")
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise RuntimeError(f"vllmwall status said {done.stdout}{done.stderr}") from error
        assert isinstance(answer, dict)
        return answer

    def listeners(self) -> list[dict[str, object]]:
        """All listeners of all workloads that the daemon shows."""
        return [one for workload in self.status()["workloads"] for one in workload["listeners"]]  # type: ignore[attr-defined]

    def wait_until_guarded(self, expected: Iterable[Listening]) -> None:
        """Until the daemon calls the node safe and shows every one of these ports."""
        ports = {one.port for one in expected}

        def guarded() -> bool:
            known = {one["port"] for one in self.listeners()}
            return ports <= known and self.status()["safe"] is True

        self._until(guarded, f"ports {sorted(ports)} are guarded")

    def wait_for_rule(self, port: int) -> None:
        """Until the rule of this port stands."""
        self._until(
            lambda: any(
                one["port"] == port and one["rule"] == "stands" for one in self.listeners()
            ),
            f"the rule of port {port} stands",
        )

    def _is_up(self) -> bool:
        assert self.process.poll() is None, "the daemon ended"
        try:
            return bool(self.status()["daemon"])
        except RuntimeError:
            return False

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                log = self.log.read_text() + self.command("status").stdout
                raise AssertionError(f"not within {PATIENCE:g} s: {what}\n{log}")
            time.sleep(0.05)
