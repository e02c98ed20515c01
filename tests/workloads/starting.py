"""Start real training, a real vLLM or its stand-in on a host of the lab.

Every function returns at once; `Job.wait_for` waits for a line of the output. The lab ends
what was started. Imports of ours: `tests.support.lab` only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab import Host

ROOT = Path(__file__).resolve().parents[2]
TORCH = ROOT / ".venv-torch/bin"
VLLM = ROOT / ".venv-vllm/bin"
NCCL = ROOT / ".cache/nccl/nvidia/nccl/lib/libnccl.so.2"
TINY_MODEL = ROOT / ".cache/tiny-model"
RENDEZVOUS_PORT = 29400
API_PORT = 8000
STAND_IN_MODEL = "stand-in"
SERVING = "Application startup complete"  # vLLM's own line

_SCRIPTS = Path(__file__).parent
# One thread a process: the machines that run this have few cores.
_CALM = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
_OFFLINE = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class JobFailedError(Exception):
    """A workload ended, or did not come up in time; the message carries its output's end."""


@dataclass(frozen=True)
class Job:
    """A process on a host of the lab, and the file that takes its output."""

    name: str
    process: subprocess.Popen[str]
    log: Path

    def output(self) -> str:
        """Everything it said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float) -> None:
        """Until its output holds ``text``. Raises JobFailedError."""
        deadline = time.monotonic() + seconds
        while text not in self.output():
            if self.process.poll() is not None:
                raise JobFailedError(f"{self.name} ended before {text!r}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise JobFailedError(f"{self.name}: no {text!r} in {seconds:g} s:\n{self._tail()}")
            time.sleep(0.1)

    def wait(self, seconds: float) -> int:
        """Until it ends; its exit status. Raises JobFailedError when it is still there."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise JobFailedError(f"{self.name} still runs:\n{self._tail()}") from error

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-30:])


def start_training(
    host: Host, rank: int, folder: Path, *, master: str, arguments: Sequence[str] = ()
) -> Job:
    """Node ``rank`` of a two-node torchrun job that meets at ``master``."""
    command = [str(TORCH / "torchrun"), "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{master}:{RENDEZVOUS_PORT}"]
    command += ["--rdzv-id", "lab", "--rdzv-conf", "join_timeout=60,read_timeout=15"]
    command += [str(_SCRIPTS / "train.py"), *arguments]
    return _start(f"training-{rank}", host, command, folder, _CALM)


def start_stand_in(host: Host, folder: Path) -> Job:
    """The stand-in for `vllm serve`, as a console script called vllm."""
    script = folder / "bin/vllm"
    script.parent.mkdir()
    python = TORCH / "python"
    script.write_text(f"#!{python}\n" + (_SCRIPTS / "stand_in.py").read_text())
    script.chmod(0o755)
    command = [str(script), "serve", STAND_IN_MODEL, "--host", "0.0.0.0", "--port", str(API_PORT)]
    command += ["--tensor-parallel-size", "2", "--master-addr", host.ipv4]
    return _start("vllm-stand-in", host, command, folder, _CALM)


def start_vllm(host: Host, rank: int, folder: Path, *, master: str) -> Job:
    """Node ``rank`` of a real vLLM that splits the tiny model over two nodes."""
    command = [str(VLLM / "vllm"), "serve", str(TINY_MODEL), "--max-model-len", "256"]
    command += ["--enforce-eager", "--tensor-parallel-size", "2", "--nnodes", "2"]
    command += ["--node-rank", str(rank), "--master-addr", master]
    if rank == 0:
        command += ["--host", "0.0.0.0", "--port", str(API_PORT)]
    else:
        command += ["--headless"]
    core = str(rank % (os.cpu_count() or 1))
    return _start(
        f"vllm-{rank}", host, command, folder, {**_OFFLINE, "VLLM_CPU_OMP_THREADS_BIND": core}
    )


def start_bystander(host: Host, port: int, folder: Path) -> Job:
    """A web server that has nothing to do with any workload."""
    python = shutil.which("python3") or "python3"
    command = [python, "-u", "-m", "http.server", str(port), "--directory", str(folder)]
    return _start("web-server", host, command, folder, _CALM)


def start(
    name: str, host: Host, argv: Sequence[str], folder: Path, environment: dict[str, str]
) -> Job:
    """A server with these variables beside those of ours."""
    return _start(name, host, argv, folder, {**_CALM, **environment})


def _start(
    name: str, host: Host, command: Sequence[str], folder: Path, environment: dict[str, str]
) -> Job:
    log = folder / f"{name}.log"
    log.touch()
    # There vLLM leaves its sockets and torchrun its folders.
    environment = {**environment, "TMPDIR": str(folder)}
    return Job(name, host.popen(command, env=environment, cwd=folder, output=log), log)
