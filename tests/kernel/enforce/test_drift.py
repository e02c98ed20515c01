"""Where no owner protects the table: who changed it is heard at once, and it is put right."""

from __future__ import annotations

import select
import socket
import statistics
import subprocess
import sys
import time

import pytest

from tests.kernel.enforce.test_ownership import ATTACKS, PORT, WATCHED, attack, closed_at, is_active
from tests.support.lab import Host, Lab
from tests.support.walls import everywhere, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.nftables.libnftables import Libnftables
from vllmwall.enforce.nftables.notifications import LOST, Touch, Watch
from vllmwall.linux.netns import inode_of

_FLUSHES = 200
_SLOWEST = 0.25  # seconds, on a busy machine; what it takes is measured in tests/bench


@pytest.fixture
def backend() -> Nftables:
    """One that cannot own its tables."""
    return Nftables(WATCHED)


@pytest.fixture
def node(lab: Lab) -> Host:
    """A node that answers everybody as long as no wall is active."""
    lab.node.listen("::", PORT)
    assert lab.stranger.connect(lab.node.ipv4, PORT) == "open"
    return lab.node


@pytest.fixture
def watch(backend: Nftables, node: Host) -> Watch:
    """The notifications about others' changes to the wall that is active on the node."""
    backend.apply(node.path, closed_at(node.path), None)
    return backend.watches()[inode_of(node.path)]


def heard(watch: Watch) -> tuple[Touch, ...]:
    """What a change that is over was told as."""
    assert select.select([watch], [], [], 5)[0]
    return watch.read()


def repair(backend: Nftables, host: Host) -> None:
    """What the daemon does when it hears of a touch."""
    backend.apply(host.path, closed_at(host.path), backend.read_back(host.path))


DEEDS = (
    "deleted the table",
    "deleted the table",
    "deleted a rule of input, deleted a rule of loopback, deleted a rule of shifted",
    "deleted a rule of input",
    "deleted elements of walled_any4",
    "added a rule to input",
    "made or changed the table",
    "deleted the table",
)


@pytest.mark.parametrize("number", range(len(ATTACKS)))
def test_who_did_what_is_told_and_put_right(
    lab: Lab, node: Host, backend: Nftables, watch: Watch, number: int
) -> None:
    """Each way to break the wall: pid and command of the process, and the wall is active again."""
    command, deed = ATTACKS[number], DEEDS[number]
    with subprocess.Popen(
        ["nsenter", f"--net={node.path}", "nft", command], stderr=subprocess.DEVNULL
    ) as process:
        assert 0 == process.wait()
        (touch,) = heard(watch)
    assert (process.pid, "nft") == (touch.pid, touch.command)
    assert touch.what.startswith(deed)
    repair(backend, node)
    assert backend.read_back(node.path) == closed_at(node.path)
    assert is_active(lab)


OTHERS = """
table inet theirs { set vllmwall { type ipv4_addr; }
 chain vllmwall { type filter hook input priority 0; tcp dport 1 drop comment "vllmwall"; }
}
table ip vllmwall { chain c { accept; }
}
delete table ip vllmwall
delete table inet theirs
"""


def test_the_business_of_others_is_none_of_ours(node: Host, watch: Watch) -> None:
    """Their tables, whatever they are called, wake nobody twice."""
    node.run(["nft", "-f", "-"], stdin=OTHERS)
    assert () == heard(watch)


def test_our_own_changes_are_not_told(node: Host, backend: Nftables, watch: Watch) -> None:
    """A repair would else be followed by a repair, for ever."""
    closed = closed_at(node.path)
    backend.apply(node.path, wall(node, everywhere(9, "peers")), closed)
    backend.apply(node.path, closed, None)
    assert () == heard(watch)
    other = Nftables(WATCHED)  # but those of another process of ours are
    other.remove(node.path)
    assert ["deleted the table"] == [touch.what for touch in heard(watch)]


def test_an_owned_table_is_watched_too(lab: Lab, node: Host) -> None:
    """While it is nobody's, others can change it; that is heard."""
    backend = Nftables()
    backend.apply(node.path, closed_at(node.path), None)
    watch = backend.watches()[inode_of(node.path)]
    watch.read()
    for command in ATTACKS:
        attack(node, command)
    assert () == watch.read()


def _storm(rules: int) -> str:
    lines = [f"add rule inet theirs c ip saddr 198.51.100.{n % 256} drop" for n in range(rules)]
    return "add table inet theirs\nadd chain inet theirs c\n" + "\n".join(lines)


@pytest.mark.serial
def test_a_storm_of_others_changes_is_read_in_no_time(node: Host, watch: Watch) -> None:
    """kube-proxy writes 10,000 rules: that may not keep the daemon from its work."""
    node.run(["nft", "-f", "-"], stdin=_storm(10_000))
    start = time.perf_counter()
    assert () == watch.read()
    took = time.perf_counter() - start
    print(f"10,000 rules of another program read in {took * 1e3:.1f} ms")
    assert took < _SLOWEST


def test_notifications_that_are_lost_are_told(node: Host, watch: Watch) -> None:
    """More than the kernel keeps for us: what happened is unknown, so the wall is read back."""
    watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    node.run(["nft", "-f", "-"], stdin=_storm(2000))
    assert LOST in heard(watch)
    watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    attack(node, "delete table inet vllmwall")
    assert ["deleted the table"] == [touch.what for touch in heard(watch)]


@pytest.mark.serial
def test_a_wall_flushed_again_and_again_is_active(
    lab: Lab, node: Host, backend: Nftables, watch: Watch
) -> None:
    """From the commit that took it down to the commit that put it up: milliseconds."""
    enemy = Libnftables()
    enemy.run(node.path, "list ruleset")
    times = []
    for _ in range(_FLUSHES):
        enemy.run(node.path, "flush ruleset")
        start = time.perf_counter()
        assert [touch.what for touch in heard(watch)] == ["deleted the table"]
        repair(backend, node)
        times.append(time.perf_counter() - start)
    assert is_active(lab)
    cuts = statistics.quantiles(times, n=100)
    print(f"flush to whole: p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms")
    assert cuts[98] < _SLOWEST


def test_what_protects_a_table_is_said(lab: Lab, node: Host, backend: Nftables) -> None:
    """For `status`: that nobody owns it, why, and that somebody looks."""
    assert "no table" == backend.ownership(node.path)
    backend.apply(node.path, closed_at(node.path), None)
    assert f"watched: {WATCHED}" == backend.ownership(node.path)
    assert backend.holds(node.path)


def test_the_owner_flag_can_be_switched_off(node: Host) -> None:
    """For kernels on which it does harm, and for tests of the other way."""
    script = "from vllmwall.enforce.nftables.backend import Nftables as N; print(N().why_not_owned)"
    command = ["env", "VLLMWALL_OWNER=off", sys.executable, "-c", script]
    assert "switched off by VLLMWALL_OWNER\n" == node.run(command).stdout
