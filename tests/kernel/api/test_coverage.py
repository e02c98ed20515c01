"""The verdict covers what is outside every workload, and namespaces in which nothing listens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.guarded import RANK, Guarded, Program, eventually, guarded
from tests.support.lab import Lab
from vllmwall import observe
from vllmwall.linux.netns import inode_of
from vllmwall.observe import Observer

KIND = "gpu-processes-not-known"
OWN_DEVICES = (
    "mount -t tmpfs none /dev && echo data > /dev/{0} && exec 9</dev/{0} && shift 1 && "
    'LIBTORCH={1} exec "$@"'
)
LATE = """
import mmap, socket, sys
server = socket.create_server(("0.0.0.0", 9000), backlog=2048)
print("ready", flush=True)
sys.stdin.readline()
with open(sys.argv[1], "rb") as library:
    held = mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)
print("mapped", flush=True)
sys.stdin.readline()
"""


def web_server(node: Guarded, device: str, library: str = "") -> Program:
    """A program that listens as web servers do, holds a device and maps a file."""
    script = OWN_DEVICES.format(device, library)
    argv = ["sh", "-c", script, "sh", "-", sys.executable, "-c", RANK, "2048"]
    return node._program(argv, {**os.environ})


def reserved(node: Guarded) -> list[dict[str, str]]:
    """The lines about processes that are not known."""
    found = node.ask("status")["reservations"]
    return [one for one in found if one["kind"] == KIND]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("device", "library", "uses"),
    [
        ("nvidia0", "", "gpu"),
        ("kfd", "", "gpu"),
        ("renderD128", "", ""),
        ("zero", "libnccl.so.2", "nccl"),
        ("zero", "libtorch_cpu.so", "torch"),
        ("nvidiactl", "libtorch_cpu.so", "gpu, torch"),
    ],
)
def test_a_process_that_is_not_known_is_named(
    lab: Lab, tmp_path: Path, device: str, library: str, uses: str
) -> None:
    """By its device or its transport; /dev/renderD128 is none (it is in /dev/dri)."""
    if library:
        (tmp_path / library).write_bytes(b"not really")
    with guarded(lab, tmp_path / "node", full_pass_seconds=1) as node:
        program = web_server(node, device, str(tmp_path / library) if library else "")
        program.open("tcp", "127.0.0.1", 9001)
        time.sleep(1.2)
        assert [] == reserved(node)
        program.open("tcp", "0.0.0.0", 9000)
        if not uses:
            time.sleep(1.5)
            assert [] == reserved(node)
            assert node.ask("status")["safe"] is True
            return
        eventually(lambda: bool(reserved(node)), "it is named")
        [one] = reserved(node)
        assert f"(tcp 0.0.0.0:9000; {uses})" in one["what"]
        assert "1 open listener is not known" in one["what"]
        answer = node.ask("status")
        assert answer["safe"] is None
        assert "no workload runs" not in str(answer["verdict"])
        assert 5 == node.command("status").returncode
        assert f"{KIND}" in node.command("status", "--json").stdout


def test_a_gpu_that_is_used_after_listening_is_seen(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that listens at once and loads its model later, on the first request."""
    monkeypatch.setattr(observe, "_LOOK_AGAIN", 0.0)
    library = tmp_path / "libnccl.so.2"
    library.write_bytes(b"not really")
    observer = Observer(frozenset({inode_of(lab.node.path)}))
    with subprocess.Popen(
        lab.node.command([sys.executable, "-c", LATE, str(library)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin
        assert server.stdout
        try:
            assert "ready\n" == server.stdout.readline()
            before = observer.observe().processes[server.pid].libraries
            print(file=server.stdin, flush=True)
            assert "mapped\n" == server.stdout.readline()
            after = observer.observe().processes[server.pid].libraries
        finally:
            server.kill()
            observer.namespaces.close()
    assert (frozenset(), frozenset({"nccl"})) == (before, after)


def test_a_namespace_in_which_nothing_listens_is_said_to_be_so(lab: Lab, tmp_path: Path) -> None:
    """No process is in it, only its name; a socket of a process elsewhere is guarded all the
    same, by a ban for one."""
    with guarded(lab, tmp_path / "node", on=lab.peer, full_pass_seconds=1) as node:
        answer = node.ask("status")
        assert answer["safe"] is True
        assert answer["verdict"] == (
            "Safe: no workload runs here, and nothing listens; the wall is ready"
        )
        assert 0 == node.command("status").returncode
        lab.node.listen("0.0.0.0", 7000)
        words = "Safe: no workload runs here; the wall is ready"
        eventually(lambda: node.ask("status")["verdict"] == words, "something listens")
        assert lab.stranger.connect(lab.node.ipv4, 7000) == "open"
        node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4])
        assert lab.stranger.connect(lab.node.ipv4, 7000) == "timeout"
        assert lab.peer.connect(lab.node.ipv4, 7000) == "open"
