"""Things that come and go faster than they can be read: the wall is right, and nothing piles up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.programs import NOTHING, PYTHON_NOTHING, built
from tests.kernel.daemon.test_daemon import peer_gets, stranger_gets, walled
from tests.support.ending import end_group
from tests.support.guarded import Guarded, Program, eventually, guarded
from tests.support.lab import Host, Lab
from vllmwall.engine.event_keys import EventKey

pytestmark = pytest.mark.serial

TRACEFS = Path("/sys/kernel/tracing/instances")
BATCHES, BATCH, EVERY = 10, 30, 3  # namespaces, and every how manieth has a listener
_MORE_MEMORY = 8 << 10  # KiB; 2,000 happenings that are kept take most of it
_SLOWEST_ANSWER = 2.0  # seconds, with both cores taken

# Forks a process for each of N new network namespaces; a rank, so its children are of the
# workload. Each namespace is tied to ours by a veth, which ends when the kernel releases it.
MAKER = """
import ctypes, itertools, mmap, os, signal, socket, subprocess, sys
library = open(os.environ["LIBTORCH"], "rb")
mapped = mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)
libc, children, numbers = ctypes.CDLL(None), [], itertools.count()
every = int(sys.argv[1])
def live(index, ready):
    assert libc.unshare(0x40000000) == 0
    if index % every == 0:
        listening = socket.create_server(("0.0.0.0", 29500))
    os.write(ready, b"x")
    signal.pause()
print("ready", flush=True)
for line in sys.stdin:
    verb, _, _, count = line.split()
    if verb == "open":
        for index in range(int(count)):
            done, ready = os.pipe()
            children.append(os.fork())
            if children[-1] == 0:
                live(index, ready)
            os.read(done, 1)
            os.close(done)
            os.close(ready)
        links = "".join(f"link add vwc{next(numbers)} type veth peer name eth0 netns {pid}\\n"
                        for pid in children)
        subprocess.run(["ip", "-batch", "-"], input=links, text=True, check=True)
    else:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
        children = []
    print("done", flush=True)
"""
# Opens and closes descriptors without end.
FLICKER = """
import os, socket
from vllmwall.engine.event_keys import EventKey
while True:
    held = [socket.socket() for _ in range(50)] + [open(os.devnull) for _ in range(50)]
    for one in held:
        one.close()
"""


@contextlib.contextmanager
def running(host: Host, *commands: list[str]) -> Iterator[None]:
    """These commands on a host, ended afterwards."""
    started = [host.popen(command) for command in commands]
    try:
        yield
    finally:
        for process in started:
            end_group(process)


def execs(name: str, seconds: float) -> list[str]:
    """Starts of a program that ends at once, as many as there can be."""
    return [str(built("execs")), str(built(name)), "0", str(seconds)]


def memory(pid: int) -> int:
    """Resident, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def closes(node: Guarded, port: int) -> None:
    """What the daemon is there for works."""
    eventually(lambda: walled(node, port), f"port {port} is closed", node.log)
    assert {"open"} == peer_gets(node, port)


def test_processes_that_end_while_they_are_read_change_nothing(lab: Lab, tmp_path: Path) -> None:
    """A first pass, events and full passes in a storm of processes and descriptors.

    The daemon is elsewhere: it enters the node's namespace through one of those processes.
    """
    outside = lab.host("outside", "192.0.2.77", "2001:db8::77")
    node = Guarded(lab, tmp_path, on=outside)
    rank = node.rank()
    rank.open("tcp", "::", 29500)
    flicker = [sys.executable, "-c", FLICKER]
    with running(lab.node, *[execs(NOTHING, 600)] * 2, flicker):
        node.start()
        eventually(lambda: node.ask("status")["safe"], "the first wall is active", node.log)
        closes(node, 29500)
        for port in range(29501, 29506):
            rank.open("tcp", "::", port)
            closes(node, port)
            assert node.ask("reload")["safe"]
    assert not node.logged(EventKey.PASS_FAILED)
    assert not node.logged(EventKey.EVENT_FAILED)
    assert 0 == node.stop()


def test_a_storm_of_execs_starves_nobody(lab: Lab, tmp_path: Path) -> None:
    """Thousands of processes a second, launchers by their name too: questions are answered, a
    new port is closed, memory stays."""
    with guarded(lab, tmp_path) as node:
        assert node.process is not None
        rank, pid = node.rank(), node.process.pid
        rank.open("tcp", "::", 29500)
        closes(node, 29500)
        before = memory(pid)
        with running(lab.node, execs(PYTHON_NOTHING, 600), execs(NOTHING, 600)):
            slowest = 0.0
            for port in range(29501, 29509):
                rank.open("tcp", "::", port)
                closes(node, port)
                asked = time.monotonic()
                assert node.ask("status")["daemon"]
                slowest = max(slowest, time.monotonic() - asked)
        after = memory(pid)
        print(f"slowest answer {slowest * 1e3:.0f} ms; resident {before} KiB, then {after} KiB")
        assert slowest < _SLOWEST_ANSWER
        assert after - before < _MORE_MEMORY
        eventually(lambda: node.ask("status")["safe"], "it is well after it", node.log)


def test_events_that_are_lost_are_made_up_for(lab: Lab, tmp_path: Path) -> None:
    """A port opens while the daemon hangs, and a flood takes its event away: a full pass closes
    it, and status counts what was lost."""
    with guarded(lab, tmp_path) as node:
        rank = node.rank()
        rank.open("tcp", "::", 29500)
        closes(node, 29500)
        trace = instance(node)
        if not trace.exists():
            pytest.skip("no tracefs here")
        node.signal(signal.SIGSTOP)
        try:
            (trace / "buffer_size_kb").write_text("4")
            rank.open("tcp", "::", 29501)
            lab.node.run(execs(PYTHON_NOTHING, 1))
            lab.node.run(["taskset", "-c", "0", *execs(PYTHON_NOTHING, 0.5)])
            lab.node.run(["taskset", "-c", "1", *execs(PYTHON_NOTHING, 0.5)])
            assert {"open"} == stranger_gets(node, 29501)
        finally:
            node.signal(signal.SIGCONT)
        closes(node, 29501)
        eventually(lambda: lost(node) > 0, "what was lost is counted", node.log)
        assert node.logged(EventKey.EVENTS_LOST)


def instance(node: Guarded) -> Path:
    """Where the daemon gets its events from, if it does from tracefs."""
    why = str(node.ask("status")["daemon"]["events_reason"])  # type: ignore[index]
    return TRACEFS / why.rsplit(maxsplit=1)[-1]


def lost(node: Guarded) -> int:
    return int(node.ask("status")["daemon"]["events_lost"])  # type: ignore[index]


class Secluded(Guarded):
    """A daemon for every network namespace of a pid namespace of its own, and what makes them."""

    maker: Program

    def launch(self) -> subprocess.Popen[str]:
        """Start both. The daemon sees no process of the machine but these."""
        command = [sys.executable, "-m", "vllmwall", "daemon", "--log", "json"]
        command += ["--config", str(self.config), "--runtime-dir", str(self.runtime)]
        command += ["--state-dir", str(self.folder / "state")]
        library = self.folder / "libtorch_cpu.so"
        library.write_bytes(b"not really")
        script = f'"$@" 2>>{self.log} & RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 LIBTORCH={library} '
        script += f"MASTER_ADDR=192.0.2.1 MASTER_PORT=29500 {sys.executable} -c '{MAKER}' {EVERY}"
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            self.lab.node.command([*inside, "sh", "-c", script, "sh", *command]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.maker = Program(process)
        self.lab.node._stack.callback(self.maker.kill)
        return process

    @property
    def pid(self) -> int:
        """The daemon's, as this machine has it."""
        told = str(self.ask("status")["daemon"]["pid"])  # type: ignore[index]
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = str(self.runtime) in (folder / "cmdline").read_text()
                numbers = (folder / "status").read_text().partition("NSpid:")[2].splitlines()[0]
                if ours and numbers.split()[1:] == [told]:
                    return int(folder.name)
        raise AssertionError("the daemon is not to be found")


def links(host: Host) -> int:
    """How many interfaces there are: one for each namespace that the kernel still has."""
    return len(host.run(["ip", "-o", "link", "show", "type", "veth"]).stdout.splitlines())


def test_namespaces_that_end_are_let_go_of(lab: Lab, tmp_path: Path) -> None:
    """Hundreds come with workloads and end: each has had its wall, none is kept, and the daemon
    is as large as before."""
    node, before_links = Secluded(lab, tmp_path), links(lab.node)
    node.start()
    churn(node)  # what is made once is made
    pid = node.pid
    before, before_memory = descriptors(pid), memory(pid)
    for _ in range(BATCHES):
        churn(node)
    print(f"descriptors {before}, then {descriptors(pid)}; KiB {before_memory}, {memory(pid)}")
    eventually(lambda: links(lab.node) == before_links, "the kernel has released all")
    assert descriptors(pid) <= before
    assert memory(pid) - before_memory < _MORE_MEMORY
    assert not node.logged(EventKey.PASS_FAILED)
    trace = instance(node)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not trace.exists(), "the daemon leaves nothing behind", node.log)


def churn(node: Secluded) -> None:
    """One batch: made, walled, ended."""
    node.maker.open("-", "-", BATCH)
    expected = len(range(0, BATCH, EVERY))

    def is_walled() -> bool:
        spaces = node.ask("reload")["namespaces"]
        active = [one for one in spaces if one["wall"] == "active"]  # type: ignore[attr-defined,index]
        return len(active) >= expected

    eventually(is_walled, "all namespaces with a listener have a wall", node.log)
    node.maker.close("-", "-", 0)
    node.ask("reload")
