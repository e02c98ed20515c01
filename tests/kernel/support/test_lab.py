"""The lab itself: what the other kernel tests stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.support.lab import NAMESPACES, PREFIX, Lab


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_everyone_reaches_an_open_node(lab: Lab, address: str) -> None:
    """Without a wall every host reaches TCP and UDP of the node, over both families."""
    lab.node.listen("::", 29500)
    lab.node.listen_udp("::", 29500)
    for host in (lab.node, lab.peer, lab.stranger):
        assert host.connect(address, 29500) == "open"
        assert host.udp(address, 29500) == "open"


def test_a_closed_port_refuses(lab: Lab) -> None:
    """A port that nobody listens on answers at once, so a timeout means a dropped packet."""
    assert lab.stranger.connect(lab.node.ipv4, 9) == "refused"
    assert lab.stranger.udp(lab.node.ipv6, 9) == "refused"


def test_a_host_may_have_many_addresses(lab: Lab) -> None:
    """Added addresses work at once, as source and as destination."""
    lab.stranger.add_address("198.51.100.15", "2001:db8:1::ffff")
    lab.stranger.listen_udp("::", 5000)
    assert lab.node.udp("198.51.100.15", 5000) == "open"
    lab.node.listen("::", 29500)
    assert lab.stranger.connect(lab.node.ipv6, 29500, source="2001:db8:1::ffff") == "open"


def test_hosts_resolve_their_own_hostname(lab: Lab) -> None:
    """Gloo binds to what the hostname resolves to: that is the host's own address."""
    for host in (lab.node, lab.peer):
        assert host.run(["hostname"]).stdout.strip() == host.name
        assert host.run(["getent", "ahostsv4", host.name]).stdout.startswith(f"{host.ipv4} ")


def test_processes_see_cgroups_and_tracefs_of_the_machine(lab: Lab) -> None:
    """A daemon that runs in the lab finds the same /sys as outside."""
    inside = lab.node.run(["ls", "/sys/fs/cgroup"]).stdout.split()
    assert inside == sorted(path.name for path in Path("/sys/fs/cgroup").iterdir())


def _leftovers(pid: int) -> list[Path]:
    folders = (NAMESPACES, Path(tempfile.gettempdir()))
    return [path for folder in folders for path in folder.glob(f"{PREFIX}{pid}-*")]


_LAB_WITH_A_STUBBORN_PROCESS = """
from tests.support.lab import Lab
with Lab() as lab:
    child = lab.node.popen(["sh", "-c", "trap '' TERM; setsid sleep 300 & echo ready; wait"])
    assert child.stdout.readline() == "ready\\n"
    print(child.pid, flush=True)
    {then}
"""


def test_a_lab_leaves_no_descriptor_and_no_thread() -> None:
    """Thousands of tests share one process, which select() holds to 1,024 descriptors."""
    with Lab() as lab:
        before = _held()
        server = lab.node.listen("0.0.0.0", 29500)
        lab.peer.listen("0.0.0.0", 29500)
        assert _held() > before
        server.close()
    assert _held() <= before


def _held() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("then", "send"),
    [("raise ValueError", None), ("import time; time.sleep(60)", signal.SIGINT)],
    ids=["a failing test", "ctrl-c"],
)
def test_nothing_is_left_behind(then: str, send: signal.Signals | None) -> None:
    """A lab that ends badly leaves no namespace, process or file."""
    script = _LAB_WITH_A_STUBBORN_PROCESS.format(then=then)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as lab:
        assert lab.stdout
        child = int(lab.stdout.readline())
        if send:
            lab.send_signal(send)
        assert lab.wait(30) != 0
    assert _leftovers(lab.pid) == []
    assert not Path("/proc", str(child)).exists()


def test_a_killed_lab_is_swept_up_by_the_next() -> None:
    """kill -9 leaves namespaces behind only until the next lab opens."""
    script = _LAB_WITH_A_STUBBORN_PROCESS.format(then="import time; time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout
        child = int(lab.stdout.readline())
        os.kill(lab.pid, signal.SIGKILL)
        lab.wait()
        assert _leftovers(lab.pid)
    with Lab():
        assert _leftovers(lab.pid) == []
    deadline = time.monotonic() + 5
    while Path("/proc", str(child)).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path("/proc", str(child)).exists()
