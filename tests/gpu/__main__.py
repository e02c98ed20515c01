"""Record what torch, NCCL and vLLM open on a machine with a GPU, and compare it with recognition.

    tests/gpu/check [--transport nccl|gloo] [--python PYTHON] [--vllm VLLM --model MODEL] [-o FILE]

It needs `make setup`, and reads only processes that it starts itself. PYTHON has torch. One rank
on one GPU joins a group of itself, reduces a tensor and waits; where both are named, `VLLM serve
MODEL` follows. Nothing is sent to any port, and no rule is made. FILE becomes a recording for
tests/recordings: check its roles by hand.

Exits with 0: every listener beyond loopback has the role that it should have; 1: one has not;
2: something did not start; 3: there is no GPU here (gloo needs none). Takes at most 8 minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from vllmwall.model import LabelledListener, Node, Role, Workload
from vllmwall.observe import Observer
from vllmwall.observe.parts import of_workloads
from vllmwall.observe.snapshot import dump
from vllmwall.recognize import recognize

ROOT = Path(__file__).resolve().parents[2]
DEVICES = ("/dev/nvidia0", "/dev/kfd")
SECONDS = {"torch": 120.0, "vllm": 330.0}
_GRACE = 20.0  # seconds between the polite signal and the kill
RANK = Path(__file__).with_name("rank.py")
# What the rank opens by each library; a store on all addresses comes with both.
EXPECTED = {"nccl": {Role.NCCL, Role.TCPSTORE}, "gloo": {Role.GLOO, Role.TCPSTORE}}


class NotStartedError(Exception):
    """A program ended or said nothing in time; the message has its output's end."""


def main() -> int:
    """Run everything; the exit status."""
    asked = _arguments()
    if asked.transport == "nccl" and not any(Path(one).exists() for one in DEVICES):
        print(f"no GPU here: none of {', '.join(DEVICES)} exists. Try --transport gloo.")
        return 3
    try:
        mistakes = _torch(asked)
        if asked.vllm and asked.model:
            mistakes += _vllm(asked)
        else:
            print("vLLM was not started: name it with --vllm, and a model with --model")
    except NotStartedError as error:
        print(error)
        return 2
    for one in mistakes:
        print(f"wrong: {one}")
    return 1 if mistakes else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/gpu/check", description=__doc__)
    parser.add_argument("--transport", choices=sorted(EXPECTED), default="nccl")
    parser.add_argument("--python", default=str(ROOT / ".venv-torch/bin/python"))
    parser.add_argument("--vllm", help="the console script of an installed vLLM")
    parser.add_argument("--model", help="a model on this disk")
    parser.add_argument("-o", "--output", type=Path, help="write a recording")
    return parser.parse_args()


def _torch(asked: argparse.Namespace) -> list[str]:
    """One rank: its listeners after the group is made, and again after a reduction."""
    command = [asked.python, str(RANK), asked.transport]
    with _started(command) as rank:
        _wait_for(rank, "group", SECONDS["torch"])
        first = _seen(rank.pid)
        _tell(rank)
        _wait_for(rank, "reduced", SECONDS["torch"])
        node, workload = _seen(rank.pid)
        _show("after init", first[1])
        _show("after all_reduce", workload)
        if asked.output and workload:
            _record(asked.output, node, workload)
    roles = {one.label.role for one in (workload.listeners if workload else ())}
    missing = EXPECTED[asked.transport] - roles
    return [*_without_role(workload), *(f"no listener is {one.value}" for one in missing)]


def _vllm(asked: argparse.Namespace) -> list[str]:
    command = [asked.vllm, "serve", asked.model, "--host", "127.0.0.1", "--port", "8123"]
    with _started([*command, "--enforce-eager"]) as server:
        _wait_for(server, "Application startup complete", SECONDS["vllm"])
        node, workload = _seen(server.pid)
        _show("vLLM", workload)
        if asked.output and workload:
            _record(asked.output.with_name(f"vllm-{asked.output.name}"), node, workload)
    return _without_role(workload)


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A program with pipes, ended at the end. Raises NotStartedError."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        raise NotStartedError(f"{command[0]}: {error.strerror}") from error
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[str], text: str, seconds: float) -> None:
    """Until a line holds the text. Raises NotStartedError."""
    assert process.stdout is not None
    lines: list[str] = []
    timer = threading.Timer(seconds, process.kill)  # a silent program ends the loop too
    timer.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return
    finally:
        timer.cancel()
    raise NotStartedError(
        f"it ended, or said no {text!r} in {seconds:g} s:\n{''.join(lines[-15:])}"
    )


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print("go on", file=process.stdin, flush=True)


def _seen(pid: int) -> tuple[Node, Workload | None]:
    """The node, and the workload of a process; looked at twice, as workloads are read in detail."""
    observer = Observer()
    observer.keep(recognize(observer.observe()))
    node = observer.observe()
    workloads = recognize(node).workloads
    return node, next((one for one in workloads if pid in one.pids), None)


def _counting(workload: Workload | None) -> list[LabelledListener]:
    """The listeners beyond loopback and of TCP."""
    found = workload.listeners if workload else ()
    return [
        one for one in found if one.listener.address is not None and not one.listener.is_loopback
    ]


def _without_role(workload: Workload | None) -> list[str]:
    if workload is None:
        return ["it is no workload"]
    unknown = [one for one in _counting(workload) if one.label.role is Role.UNKNOWN]
    return [f"{one.listener.where} has no role" for one in unknown]


def _show(title: str, workload: Workload | None) -> None:
    print(f"{title}: {workload.stack.value if workload else 'no workload'}")
    for one in workload.listeners if workload else ():
        print(f"  {one.listener.where}  {one.label.role.value}", flush=True)


def _record(path: Path, node: Node, workload: Workload) -> None:
    content = dict(dump(of_workloads(node, [workload]), host_facts={"scenario": path.stem}))
    inodes = {one.listener.inode: one.label.role.value for one in workload.listeners}
    content["roles"] = {str(inode): role for inode, role in inodes.items()}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
