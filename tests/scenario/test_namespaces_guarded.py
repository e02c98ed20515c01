"""Workloads in network namespaces other than the daemon's own: containers and pods."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.support.guarded import RANK, Guarded, eventually, guarded
from tests.support.guarding import (
    PORT,
    asleep,
    numbers,
    refuses,
    stranger,
    unit,
    wait_for_guard,
    workloads,
)
from tests.support.lab import Host, Lab
from vllmwall.linux.netns import inode_of, run_in

POD = ("198.51.100.7", "2001:db8:7::7")
POWERLESS = 'set -- setpriv --bounding-set=-sys_admin "$@"'


@pytest.fixture
def pod(lab: Lab, tmp_path: Path) -> Guarded:
    """Another namespace of the node's, as its programs see it; the daemon is not in there."""
    elsewhere = copy.copy(lab)
    elsewhere.node = lab.host("pod", *POD)
    return Guarded(elsewhere, tmp_path / "pod")


@pytest.fixture
def node(lab: Lab, pod: Guarded, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path / "node", arguments=also(pod)) as found:
        yield found


def also(pod: Guarded) -> tuple[str, str]:
    """What makes the daemon look there too."""
    return "--only-namespace", pod.lab.node.path


def space(node: Guarded, inode: int) -> dict[str, object] | None:
    """What `status` says of one namespace."""
    spaces: list[dict[str, object]] = node.ask("status")["namespaces"]  # type: ignore[assignment]
    return next((one for one in spaces if one["inode"] == inode), None)


def test_a_workload_is_guarded_inside_its_own_namespace(node: Guarded, pod: Guarded) -> None:
    """The wall is active where its sockets are, and what the daemon sleeps through is closed."""
    with unit() as cgroup:
        rank = pod.rank(cgroup)
        wait_for_guard(pod, cgroup)
        with asleep(node):
            rank.open("tcp", "::", PORT)
            assert refuses(pod)
            assert "timeout" == pod.lab.stranger.connect(pod.lab.node.ipv6, PORT)
        assert not numbers(node)


def test_a_listener_without_a_guard_is_walled_there(node: Guarded, pod: Guarded) -> None:
    """A cgroup that is shared: the listener's rule does the work, in its namespace only."""
    pod.rank().open("tcp", "0.0.0.0", PORT)
    other = node.bystander()
    other.open("tcp", "0.0.0.0", PORT)
    eventually(lambda: refuses(pod), "the listener's rule", node.log)
    assert "open" == stranger(node)


def test_the_namespace_ends_with_its_processes(node: Guarded, pod: Guarded) -> None:
    """Handles keep a namespace alive: none of ours does, and status no longer names it."""
    rank = pod.rank()
    rank.open("tcp", "0.0.0.0", PORT)
    eventually(lambda: refuses(pod), "the listener's rule", node.log)
    inode = inode_of(pod.lab.node.path)
    assert space(node, inode) is not None
    forget(pod.lab.node)
    assert is_plugged_in(pod.lab)
    rank.kill()
    eventually(lambda: not is_plugged_in(pod.lab), "the namespace ends", node.log)
    assert space(node, inode) is None


def test_a_silent_namespace_ends_after_the_next_full_pass(node: Guarded, pod: Guarded) -> None:
    """Nothing listened there, so no event reports its end; only its guard was there."""
    with unit() as cgroup:
        rank = pod.rank(cgroup)
        wait_for_guard(pod, cgroup)
        forget(pod.lab.node)
        rank.kill()
        node.ask("reload")
        eventually(lambda: not is_plugged_in(pod.lab), "the namespace ends", node.log)
        assert node.ask("status")["safe"] is True


def forget(host: Host) -> None:
    """Take the name of a namespace away: from now on only what is in it keeps it alive."""
    subprocess.run(["ip", "netns", "delete", Path(host.path).name], check=True)


def is_plugged_in(lab: Lab) -> bool:
    """Whether the pod's interface exists: it ends with its namespace, and its other end too."""

    def look() -> bool:
        with IPRoute() as routes:
            return bool(routes.link_lookup(ifname="port3"))

    return run_in(lab._bridge, look)


def test_a_namespace_that_cannot_be_entered_is_reported(
    lab: Lab, pod: Guarded, tmp_path: Path
) -> None:
    """A daemon without the power to enter: its own namespace is safe, the other is unknown."""
    with guarded(lab, tmp_path / "node", arguments=also(pod), before=POWERLESS) as node:
        pod.rank().open("tcp", "0.0.0.0", PORT)
        node.rank().open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(node), "the wall at home", node.log)
        node.ask("reload")
        status = node.ask("status")
        found = space(node, inode_of(pod.lab.node.path))
        assert found is not None
        assert ("unknown", True) == (found["wall"], "not permitted" in str(found["error"]))
        assert status["safe"] is not True
        assert any("not permitted" in str(one) for one in status["problems"])  # type: ignore[attr-defined]


def test_a_wall_that_was_left_is_emptied_at_the_second_look(node: Guarded, pod: Guarded) -> None:
    """Its workload ended while no daemon ran: others who live there get their ports back."""
    with unit() as cgroup:
        rank = pod.rank(cgroup)
        rank.open("tcp", "0.0.0.0", PORT)
        wait_for_guard(pod, cgroup)
        eventually(lambda: refuses(pod), "the listener's rule", node.log)
        node.stop()
        rank.kill()
        pod.bystander().open("tcp", "0.0.0.0", PORT)
        assert "timeout" == stranger(pod)
    node.start()
    eventually(lambda: stranger(pod) == "open", "the port is free", node.log)
    assert not numbers(pod)


def test_processes_of_another_pid_namespace_are_workloads_too(node: Guarded, pod: Guarded) -> None:
    """In a container the rank is process 1 or 2; here it has the number that we see."""
    contained = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with unit() as cgroup:
        argv = [*contained, sys.executable, "-c", RANK]
        program = pod._program(argv, pod.rank_environment(), cgroup)
        wait_for_guard(pod, cgroup)
        program.open("tcp", "0.0.0.0", PORT)
        eventually(lambda: refuses(pod), "the listener's rule", node.log)
        node.ask("reload")
        (listener,) = [one for each in workloads(node) for one in each["listeners"]]
        inner = Path(f"/proc/{listener['pids'][0]}/status").read_text()  # type: ignore[index]
        assert f"NSpid:\t{listener['pids'][0]}\t1\n" in inner  # type: ignore[index]


_HOLDER = """
import socket, sys, time
from vllmwall.enforce.nftables import ownership
sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
sender.bind((0, 0))
ownership.make(sender, 2, "mine")
print("ready", flush=True)
time.sleep(600)
"""


def test_a_table_that_others_hold_in_their_namespace_costs_the_rest_nothing(
    node: Guarded, pod: Guarded
) -> None:
    """That namespace is not guarded, and is named; status and `down` are those of the node."""
    node.ask("down")  # our own table is there from the daemon's start
    holder = pod.lab.node.popen(
        [sys.executable, "-c", _HOLDER], env={**os.environ, "PYTHONPATH": "."}
    )
    assert holder.stdout is not None
    assert "ready\n" == holder.stdout.readline()
    node.ask("up")
    node.rank().open("tcp", "0.0.0.0", PORT)
    pod.rank().open("tcp", "0.0.0.0", PORT)
    node.ask("reload")
    eventually(
        lambda: "not guarded: our table" in str(node.ask("status")["problems"]), "it is told"
    )
    assert refuses(node)
    done = node.command("status")
    assert (0, True) == (done.returncode, node.ask("status")["safe"]), done.stdout
    node.ask("down")
    assert "open" == stranger(node)
    assert "inet vllmwall" in pod.lab.node.run(["nft", "list", "tables"]).stdout
