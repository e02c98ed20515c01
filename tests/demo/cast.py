"""The workloads that the demo shows: real training beside a stand-in for vLLM, or real vLLM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab import Host, Lab
from tests.workloads.listening import completion
from tests.workloads.starting import (
    API_PORT,
    SERVING,
    STAND_IN_MODEL,
    TINY_MODEL,
    Job,
    start_bystander,
    start_stand_in,
    start_training,
    start_vllm,
)

WEB_PORT = 8080
_PATIENCE = 120.0  # seconds
_VLLM_PATIENCE = 300.0
_STEPS = 1_000_000  # more than any demo waits for


@dataclass(frozen=True)
class Cast:
    """What runs: the jobs, how to ask the API, and whether nodes still work together."""

    jobs: tuple[Job, ...]
    ask: Callable[[Host], str]
    progress: Callable[[], str]
    bystander_port: int = WEB_PORT


def stand_in_cast(lab: Lab, folder: Path, say: Callable[[str], None]) -> Cast:
    """torchrun over node and peer, and the stand-in for vLLM."""
    say("torchrun: real training over node and peer (TCPStore, gloo)")
    steps = ("--steps", str(_STEPS), "--pause", "0.2")
    master = start_training(lab.node, 0, folder, master=lab.node.ipv4, arguments=steps)
    worker = start_training(lab.peer, 1, folder, master=lab.node.ipv4, arguments=steps)
    say("vllm serve: a stand-in with no model (real uvicorn, real torch ranks)")
    server = start_stand_in(lab.node, folder)
    web = _web_server(lab, folder, say)
    server.wait_for("serving", _PATIENCE)
    for job in (master, worker):
        job.wait_for("step 1 ", _PATIENCE)
    return Cast((master, worker, server, web), _asker(lab, STAND_IN_MODEL), lambda: _steps(worker))


def vllm_cast(lab: Lab, folder: Path, say: Callable[[str], None]) -> Cast:
    """A real vLLM that splits one tiny model over node and peer."""
    say("vllm serve: real vLLM, a tiny model split over node and peer (a minute)")
    head = start_vllm(lab.node, 0, folder, master=lab.node.ipv4)
    headless = start_vllm(lab.peer, 1, folder, master=lab.node.ipv4)
    web = _web_server(lab, folder, say)
    head.wait_for(SERVING, _VLLM_PATIENCE)
    ask = _asker(lab, str(TINY_MODEL))
    say("first completion, while vLLM warms up")
    ask(lab.node)
    return Cast((head, headless, web), ask, lambda: "")


def _web_server(lab: Lab, folder: Path, say: Callable[[str], None]) -> Job:
    say("python -m http.server: an ordinary program, not to be touched")
    web = folder / "web"
    web.mkdir()
    (web / "index.html").write_text("hello\n")
    job = start_bystander(lab.node, WEB_PORT, web)
    job.wait_for("Serving HTTP", _PATIENCE)
    return job


def _asker(lab: Lab, model: str) -> Callable[[Host], str]:
    return lambda who: completion(who, lab.node.ipv4, API_PORT, model)


def _steps(job: Job) -> str:
    return job.output().rstrip().splitlines()[-1].partition(" loss")[0]
