"""The listeners that may be an API in lockdown, and lockdown's changes to a wall."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from vllmwall.decide.bannable import InUse, why_never, why_not
from vllmwall.decide.lockdown import ordered, restrained
from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Policy,
    Process,
    Proto,
    Recognition,
    Role,
    Stack,
    Wall,
    Workload,
    WorkloadId,
)

BASE = Policy({Role.API: ("public",)}, lockdown=True, opened=frozenset({(Proto.TCP, 9100)}))
LISTENER = Listener(7, Proto.TCP, 8000, ip_address("0.0.0.0"), uid=1000, pids=(5,))


def role(policy: Policy, cgroup: str, uid: int = 1000, of: Role = Role.API) -> Role:
    """What becomes of a listener."""
    labelled = LabelledListener(replace(LISTENER, uid=uid), Label(of, 1.0))
    workload = Workload(WorkloadId(5, 1), Stack.VLLM, "w", frozenset({5}), (labelled,))
    processes = {5: Process(5, 1, "vllm", cgroup=cgroup)}
    found = restrained(Recognition((workload,), ()), processes, policy)
    return found.workloads[0].listeners[0].label.role


def test_without_lockdown_everybody_may_open_an_api() -> None:
    """The rule is for lockdown alone."""
    assert role(replace(BASE, lockdown=False), "/") is Role.API


def test_in_lockdown_root_may_and_another_user_may_not() -> None:
    """What another user opens is internal; what was internal stays what it was."""
    assert role(BASE, "/", uid=0) is Role.API
    assert role(BASE, "/") is Role.UNKNOWN
    assert role(BASE, "/", of=Role.GLOO) is Role.GLOO
    assert role(replace(BASE, api_users=frozenset({1000})), "/") is Role.API
    assert role(replace(BASE, api_users=frozenset({1000})), "/", uid=0) is Role.UNKNOWN


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/system.slice/vllm@a.service", Role.API),
        ("/system.slice/gpu.slice/vllm@a.service/worker", Role.API),
        ("/system.slice/other.service", Role.UNKNOWN),
        ("/system.slice/other.service/vllm@a.service", Role.UNKNOWN),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vllm@a.service", Role.UNKNOWN),
        ("/system.slice/docker-0123.scope/vllm@a.service", Role.UNKNOWN),
        ("/docker/0123/vllm@a.service", Role.UNKNOWN),
        ("/system.slice", Role.UNKNOWN),
        ("/", Role.UNKNOWN),
    ],
)
def test_a_configured_system_unit_may_open_an_api_and_no_cgroup_that_borrows_its_name(
    cgroup: str, expected: Role
) -> None:
    """Below a unit its user chooses the cgroups' names."""
    assert role(replace(BASE, api_units=("vllm@*.service",)), cgroup) is expected


@pytest.mark.parametrize(
    ("pids", "expected"),
    [
        ((5,), Role.API),
        ((5, 6), Role.UNKNOWN),
        ((6,), Role.UNKNOWN),
        ((5, 7), Role.API),
        ((7,), Role.UNKNOWN),
        ((), Role.UNKNOWN),
    ],
)
def test_every_owner_of_an_api_must_be_in_a_configured_unit(
    pids: tuple[int, ...], expected: Role
) -> None:
    """One outside that holds the socket too could answer in its place. One that has ended (7)
    says nothing."""
    labelled = LabelledListener(replace(LISTENER, pids=pids), Label(Role.API, 1.0))
    workload = Workload(WorkloadId(5, 1), Stack.VLLM, "w", frozenset({5, 6}), (labelled,))
    processes = {
        5: Process(5, 1, "vllm", cgroup="/system.slice/vllm.service"),
        6: Process(6, 1, "vllm", cgroup="/user.slice/session-1.scope"),
    }
    policy = replace(BASE, api_units=("vllm.service",))
    found = restrained(Recognition((workload,), ()), processes, policy)
    assert expected is found.workloads[0].listeners[0].label.role


def test_lockdown_is_for_the_hosts_own_namespace() -> None:
    """A container has its own wall and no ports of the host."""
    home = ordered(Wall(7, frozenset(), {}, answering=True), BASE, (), {7})
    other = ordered(Wall(8, frozenset(), {}, answering=True), BASE, (), {7})
    assert (home.lockdown, home.opened, home.answering) == (True, BASE.opened, False)
    assert (other.lockdown, other.opened, other.answering) == (False, frozenset(), True)


IN_USE = InUse(
    own=[ip_address("192.0.2.1")],
    peers=[ip_network("10.0.0.0/24")],
    clients=[ip_address("198.51.100.7")],
)


@pytest.mark.parametrize(
    ("network", "never", "forced"),
    [
        ("203.0.113.0/24", False, False),
        ("192.0.2.1", True, False),
        ("192.0.0.0/8", True, False),
        ("127.5.0.0/16", True, False),
        ("0.0.0.0/0", True, True),
        ("10.0.0.128/25", False, True),
        ("10.0.0.0/8", False, True),
        ("198.51.100.0/24", False, True),
        ("2001:db8::/32", False, False),
    ],
)
def test_networks_that_may_be_banned(network: str, never: bool, forced: bool) -> None:
    """This host and everyone never; peers and who is connected by force."""
    one = ip_network(network)
    assert (why_never(one, IN_USE) is not None, why_not(one, IN_USE) is not None) == (never, forced)
