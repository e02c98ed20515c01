"""Which cgroups are guarded, and what a workload without a guard is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

import pytest

from vllmwall.decide.guards import DEEPEST, Guarding, candidates, guarding
from vllmwall.linux.cgroups import SLICE
from vllmwall.model import (
    Guard,
    Listener,
    Policy,
    Process,
    Proto,
    Recognition,
    Stack,
    Workload,
    WorkloadId,
)

HERE, THERE = 4026531840, 4026532008
UNIT = "/system.slice/vllm.service"
BOX = "/docker/" + "0a" * 32
SESSION = "/user.slice/user-0.slice/session-4.scope"
POLICY = Policy({})
NUMBERS = {UNIT: 11, BOX: 12, SLICE: 13}
WORKER, OTHER = 100, 200


def process(pid: int, cgroup: str, namespace: int = HERE) -> Process:
    """A process in a cgroup."""
    return Process(pid, 1, "server", namespace=namespace, cgroup=cgroup)


def workload(*pids: int) -> Workload:
    """A workload of these processes."""
    return Workload(WorkloadId(pids[0], 1), Stack.VLLM, "vllm", frozenset(pids))


def outsider(address: str = "0.0.0.0", port: int = 9000, proto: Proto = Proto.TCP) -> Listener:
    """A listener of `OTHER`, who is no workload."""
    return Listener(HERE, proto, port, ip_address(address), pids=(OTHER,))


def decided(
    *processes: Process,
    others: Iterable[Listener] = (),
    numbers: Mapping[str, int] = NUMBERS,
    armed: Mapping[str, frozenset[int]] | None = None,
    members: tuple[int, ...] = (WORKER,),
) -> Guarding:
    """What is decided of a node with these processes; ``members`` are the one workload's."""
    found = Recognition((workload(*members),) if members else (), tuple(others))
    table = {one.pid: one for one in processes}
    return guarding(found, table, numbers, armed or {}, POLICY)


def reason(found: Guarding) -> str:
    """Why the workload has no guard; fails when it has one."""
    assert {} == found.guards
    assert {} == found.cgroups
    (only,) = found.reasons.values()
    return only


def test_a_workloads_own_unit_is_guarded() -> None:
    """By its depth and the kernel's number, in the namespace of its processes."""
    found = decided(process(WORKER, UNIT + "/below"))
    (guard,) = found.guards[HERE]
    assert (Guard(2, 11), UNIT) == (guard, guard.path)
    assert {WorkloadId(WORKER, 1): {guard}} == found.cgroups
    assert {} == found.reasons


def test_a_guard_stands_in_every_namespace_of_its_workload() -> None:
    """And in no other: a guard costs a look at every SYN."""
    processes = process(WORKER, UNIT), process(WORKER + 1, UNIT, THERE)
    assert {HERE, THERE} == decided(*processes, members=(WORKER, WORKER + 1)).guards.keys()


def test_what_is_left_of_the_dead_counts_for_nothing() -> None:
    """A process that is gone, or whose namespace is unknown, guards nothing."""
    nothing = Guarding()
    assert nothing == decided()
    assert nothing == decided(process(WORKER, UNIT, namespace=0))
    assert nothing == decided(process(WORKER, UNIT), members=())


def test_a_session_is_shared() -> None:
    """Whatever else the user starts there would be closed with it."""
    assert f"{SESSION} is shared with other programs of its user" == reason(
        decided(process(WORKER, SESSION))
    )


def test_a_session_is_shared_though_its_number_is_asked_for() -> None:
    """Candidates are jobs only: the number of a session never reaches the decision."""
    found = Recognition((workload(WORKER, OTHER),), ())
    table = {WORKER: process(WORKER, SESSION), OTHER: process(OTHER, UNIT + "/below")}
    assert {UNIT} == candidates(found, table)


def test_a_cgroup_that_ended_has_no_guard() -> None:
    """No number, no guard; and v1 paths that v2 does not have."""
    text = reason(decided(process(WORKER, UNIT), numbers={}))
    assert f"there is no cgroup {UNIT} in the v2 hierarchy" == text


@pytest.mark.parametrize("level", [1, 2, 4, DEEPEST])
def test_every_depth_with_a_set_is_guarded(level: int) -> None:
    """A unit right below the root, in a slice, a pod's container, and the deepest."""
    path = "/a" * (level - 1) + "/vllm.service"
    found = decided(process(WORKER, path), numbers={path: 7})
    assert {HERE: {Guard(level, 7)}} == found.guards


def test_deeper_than_that_is_told() -> None:
    """There is no set for it; its listeners have rules."""
    path = "/a" * DEEPEST + "/vllm.service"
    text = reason(decided(process(WORKER, path), numbers={path: 7}))
    assert f"{path} lies deeper than 8 levels" == text


@pytest.mark.parametrize("below", ["", "/deep/below"])
def test_an_outsiders_listener_keeps_the_guard_away(below: str) -> None:
    """A guard closes every port of a cgroup: nobody else's may be there."""
    processes = process(WORKER, UNIT), process(OTHER, UNIT + below)
    text = reason(decided(*processes, others=[outsider()]))
    assert (
        f"{UNIT} is not the workload's alone: server (200) listens there too, tcp 0.0.0.0:9000"
        == text
    )


@pytest.mark.parametrize(
    "one",
    [
        outsider("127.0.0.1"),
        outsider("::1"),
        outsider("::ffff:127.0.0.1"),
        outsider(proto=Proto.UDP),
        outsider(port=22),
        Listener(HERE, Proto.UNIX, 0, path="/run/x", pids=(OTHER,)),
    ],
    ids=["loopback", "loopback of IPv6", "mapped loopback", "udp", "failsafe", "unix"],
)
def test_what_a_guard_cannot_close_does_not_keep_it_away(one: Listener) -> None:
    """Guards see SYNs from outside, and let the failsafe port be."""
    assert decided(process(WORKER, UNIT), process(OTHER, UNIT), others=[one]).guards


def test_an_outsider_next_door_is_none_of_it() -> None:
    """A cgroup whose name begins alike is another one."""
    processes = process(WORKER, UNIT), process(OTHER, UNIT + "x")
    assert decided(*processes, others=[outsider()]).guards


def test_the_slice_is_the_operators_word() -> None:
    """Whatever listens in it is closed, an outsider too; the slice's own guard does it."""
    inside = SLICE + "/job.scope"
    found = decided(process(WORKER, inside), process(OTHER, SLICE), others=[outsider()])
    assert {HERE: {Guard(1, 13)}} == found.guards


def test_a_name_like_the_slices_is_not_the_slice() -> None:
    """`/vllmwall.slice2` is somebody else's."""
    text = reason(decided(process(WORKER, SLICE + "2/below")))
    assert "is shared" in text


def test_without_the_slice_its_jobs_are_guarded_alone() -> None:
    """A cgroup namespace can hide it."""
    inside = SLICE + "/job.scope"
    found = decided(process(WORKER, inside), numbers={inside: 5})
    assert {HERE: {Guard(2, 5)}} == found.guards


def test_what_is_armed_is_guarded_before_anything_runs() -> None:
    """In the namespaces that it is armed for."""
    armed = {UNIT: frozenset({HERE, THERE}), BOX: frozenset({THERE})}
    found = decided(armed=armed, members=())
    assert {HERE: {Guard(2, 11)}, THERE: {Guard(2, 11), Guard(2, 12)}} == found.guards
    assert {} == found.cgroups == found.reasons


def test_an_armed_session_is_guarded_where_the_operator_names_it() -> None:
    """`guards.units` is the operator's word for what nobody can tell from outside."""
    armed = {SESSION: frozenset({HERE})}
    found = decided(process(WORKER, SESSION), numbers={SESSION: 9}, armed=armed)
    assert {HERE: {Guard(3, 9)}} == found.guards


def test_what_is_armed_waits_for_its_outsider_to_go() -> None:
    """Arming names a path; what listens there now still counts."""
    armed = {UNIT: frozenset({HERE})}
    found = decided(process(OTHER, UNIT), others=[outsider()], armed=armed, members=())
    assert {} == found.guards


def test_what_is_armed_and_not_there_is_left_out() -> None:
    """The unit has not started yet; the others are active."""
    armed = {"/system.slice/later.service": frozenset({HERE}), UNIT: frozenset({HERE})}
    assert {HERE: {Guard(2, 11)}} == decided(armed=armed, members=()).guards


def test_a_workload_in_two_cgroups_is_told_of_the_shared_one() -> None:
    """One process guarded and one not: a guard and a reason."""
    processes = process(WORKER, UNIT), process(WORKER + 1, SESSION)
    found = decided(*processes, members=(WORKER, WORKER + 1))
    assert {HERE: {Guard(2, 11)}} == found.guards
    assert f"{SESSION} is shared" in next(iter(found.reasons.values()))
