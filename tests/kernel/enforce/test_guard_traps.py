"""The traps on the way to a guard: what the kernel lacks, hides, renames or takes away.

Everywhere beneath it there are the rules of single listeners: no trap opens a port for good.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cgroups
from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.guarding import (
    PORT,
    asleep,
    number_of,
    numbers,
    path_of,
    reasons,
    refuses,
    stranger,
    unit,
    wait_for_guard,
    wait_for_no_guard,
)
from tests.support.lab import Lab
from vllmwall.linux.netns import inode_of

SSH = 2222
PLAIN = "mount -t cgroup2 none /sys/fs/cgroup"  # what is mounted below it now cannot be seen


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def no_nft_socket(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the kernel knows no `socket` expression."""
    library = tmp_path_factory.mktemp("preload") / "no_nft_socket.so"
    source = Path(__file__).parents[2] / "support" / "no_nft_socket.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


@contextlib.contextmanager
def started(node: Guarded) -> Iterator[None]:
    """A node that was configured first; the daemon is ended in the end."""
    node.start()
    try:
        yield
    finally:
        node.stop()


def test_without_nft_socket_the_rules_of_listeners_do_the_work(
    lab: Lab, tmp_path: Path, no_nft_socket: dict[str, str]
) -> None:
    """A rule that this kernel does not take must not cost the whole wall; status says why."""
    with unit() as cgroup, guarded(lab, tmp_path, environment=no_nft_socket) as node:
        node.rank(cgroup).open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(node), "the listener's rule", node.log)
        assert "the kernel does not take `socket cgroupv2`" in reasons(node)
        status = node.ask("status")
        assert (True, []) == (status["safe"], status["problems"])


def test_without_a_cgroup_hierarchy_the_rules_of_listeners_do_the_work(
    lab: Lab, tmp_path: Path
) -> None:
    """Some containers and old nodes have none; status says so."""
    before = "umount -a -t cgroup2"
    with unit() as cgroup, guarded(lab, tmp_path, before=before) as node:
        node.rank(cgroup).open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(node), "the listener's rule", node.log)
        assert "no cgroup v2 hierarchy is mounted" == reasons(node)
        assert node.ask("status")["safe"] is True


@pytest.mark.parametrize("before", ["", PLAIN], ids=["as here", "plain"])
def test_wherever_the_hierarchy_is_mounted(lab: Lab, tmp_path: Path, before: str) -> None:
    """nft looks below /sys/fs/cgroup; hybrid nodes have it beside the v1 hierarchies."""
    with unit() as cgroup, guarded(lab, tmp_path, before=before) as node:
        rank = node.rank(cgroup)
        wait_for_guard(node, cgroup)
        with asleep(node):
            rank.open("tcp", "0.0.0.0", PORT)
            assert refuses(node)


def test_at_every_depth_that_has_a_set(node: Guarded) -> None:
    """A pod's container lies deeper than a unit; the rule of each depth is one of its own."""
    for depth in (1, 2, 4, 8):
        with unit(depth) as cgroup:
            rank = node.rank(cgroup)
            wait_for_guard(node, cgroup)
            with asleep(node):
                rank.open("tcp", "0.0.0.0", PORT)
                assert refuses(node), f"depth {depth}"


def test_a_cgroup_that_lies_too_deep_is_said(node: Guarded) -> None:
    """There are eight sets; below them the rules of listeners do the work."""
    with unit(9) as cgroup:
        node.rank(cgroup).open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(node), "the listener's rule", node.log)
        assert "lies deeper than 8 levels" in reasons(node)
        assert node.ask("status")["safe"] is True
        assert not numbers(node)


def test_ipv6_strangers_are_refused_too(node: Guarded) -> None:
    """A socket of both families, and one of IPv6 only on one address."""
    with unit() as cgroup:
        rank = node.rank(cgroup)
        wait_for_guard(node, cgroup)
        with asleep(node):
            for address, port in (("::", PORT), (node.lab.node.ipv6, PORT + 1)):
                rank.open("tcp", address, port)
                assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv6, port)
                assert "open" == node.lab.peer.connect(node.lab.node.ipv6, port)


def test_a_cgroup_that_ended_leaves_the_set(node: Guarded) -> None:
    """Its element would match nothing for ever; the next pass takes it out, by no path."""
    with unit() as cgroup, unit() as other:
        first, _ = node.rank(cgroup), node.rank(other)
        wait_for_guard(node, cgroup)
        wait_for_guard(node, other)
        ended = number_of(cgroup)
        first.kill()
        cgroups.remove(cgroup)
        node.ask("reload")
        assert {number_of(other)} == numbers(node)
        assert ended != number_of(other)
        assert node.ask("status")["safe"] is True


def test_a_cgroup_made_again_while_no_daemon_ran(node: Guarded) -> None:
    """Same path, other number, and the table that was left holds the old one."""
    with unit() as cgroup:
        node.rank(cgroup)
        wait_for_guard(node, cgroup)
        before = number_of(cgroup)
        node.stop()
        cgroups.remove(cgroup)
        cgroup.mkdir()
        rank = node.rank(cgroup)
        node.start()
        assert before not in numbers(node)
        wait_for_guard(node, cgroup)
        with asleep(node):
            rank.open("tcp", "0.0.0.0", PORT)
            assert refuses(node)


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_shares_the_cgroup_is_not_closed(node: Guarded, when: str) -> None:
    """A server that is no workload listens there too: no guard, and status names its process."""
    with unit() as cgroup:
        if when == "before":
            node.bystander(cgroup).open("tcp", "0.0.0.0", SSH)
            rank = node.rank(cgroup)
        else:
            rank = node.rank(cgroup)
            wait_for_guard(node, cgroup)
            node.bystander(cgroup).open("tcp", "0.0.0.0", SSH)
        eventually(lambda: stranger(node, SSH) == "open", "the other is reached", node.log)
        rank.open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(node), "the listener's rule", node.log)
        wait_for_no_guard(node, cgroup)
        assert "open" == stranger(node, SSH)
        assert f"listens there too, tcp 0.0.0.0:{SSH}" in reasons(node)


def test_failsafe_ports_stay_open_in_a_guarded_cgroup(lab: Lab, tmp_path: Path) -> None:
    """Also one that the workload itself opens: the operator's word."""
    node = Guarded(lab, tmp_path)
    node.configure(f"{PEERS}[host]\nfailsafe = ['tcp/{SSH}']\n")
    with unit() as cgroup, started(node):
        rank, ssh = node.rank(cgroup), node.bystander(cgroup)
        wait_for_guard(node, cgroup)
        with asleep(node):
            ssh.open("tcp", "0.0.0.0", SSH)
            rank.open("tcp", "0.0.0.0", PORT)
            assert ("open", True) == (stranger(node, SSH), refuses(node))
        node.ask("reload")
        assert number_of(cgroup) in numbers(node)
        assert ("open", True) == (stranger(node, SSH), refuses(node))


def test_an_audit_refuses_nobody(lab: Lab, tmp_path: Path) -> None:
    """It counts what the guard would have dropped."""
    node = Guarded(lab, tmp_path)
    node.config.write_text('mode = "audit"\n' + node.config.read_text())
    with unit() as cgroup, started(node):
        rank = node.rank(cgroup)
        wait_for_guard(node, cgroup)
        with asleep(node):
            rank.open("tcp", "0.0.0.0", PORT)
            assert "open" == stranger(node)
        (space,) = node.ask("status")["namespaces"]  # type: ignore[misc]
        assert space["refused_packets"] > 0


def test_guards_can_be_switched_off(lab: Lab, tmp_path: Path) -> None:
    """Then ports close as they open, not before; status says why."""
    node = Guarded(lab, tmp_path)
    node.configure(f"{PEERS}[guards]\nenabled = false\nunits = ['vw-*.service']\n")
    with unit() as cgroup, started(node):
        rank = node.rank(cgroup)
        rank.open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(node), "the listener's rule", node.log)
        with asleep(node):
            rank.open("tcp", "0.0.0.0", PORT + 1)
            assert "open" == stranger(node, PORT + 1)
        assert "guards are switched off in the configuration" == reasons(node)
        assert not numbers(node)


def test_switching_guards_off_takes_them_away(node: Guarded) -> None:
    """With a reload, and back again."""
    with unit() as cgroup:
        node.rank(cgroup)
        wait_for_guard(node, cgroup)
        node.configure(f"{PEERS}[guards]\nenabled = false\n")
        node.ask("reload")
        assert not numbers(node)
        node.configure(PEERS)
        node.ask("reload")
        assert {number_of(cgroup)} == numbers(node)


def test_a_configured_unit_is_guarded_at_its_first_start(lab: Lab, tmp_path: Path) -> None:
    """Nobody has seen it before: it is armed when its cgroup is made, before its first process."""
    node = Guarded(lab, tmp_path)
    node.configure(f"{PEERS}[guards]\nunits = ['vw-*.service']\n")
    with started(node), unit() as cgroup:
        wait_for_guard(node, cgroup)
        with asleep(node):
            node.bystander(cgroup).open("tcp", "0.0.0.0", PORT)
            assert refuses(node)


def test_what_was_guarded_is_armed_by_the_next_daemon(node: Guarded) -> None:
    """The unit is not there when the daemon starts; when it comes it is closed before it runs."""
    with unit() as cgroup:
        node.rank(cgroup)
        wait_for_guard(node, cgroup)
        node.stop()
        cgroups.remove(cgroup)
        node.start()
        assert not numbers(node)
        assert node.ask("status")["safe"] is True
        cgroup.mkdir()
        wait_for_guard(node, cgroup)
        with asleep(node):
            node.bystander(cgroup).open("tcp", "0.0.0.0", PORT)
            assert refuses(node)


def test_garbage_in_the_memory_costs_only_the_memory(lab: Lab, tmp_path: Path) -> None:
    """A crash can leave a file cut in the middle; the next daemon starts and guards."""
    node = Guarded(lab, tmp_path)
    node.runtime.mkdir()
    (node.runtime / "armed.json").write_text('{"/no-such.service": [1, "')
    with unit() as cgroup, started(node):
        node.rank(cgroup)
        wait_for_guard(node, cgroup)
        armed = json.loads((node.runtime / "armed.json").read_text())
        assert [inode_of(lab.node.path)] == armed[path_of(cgroup)]
