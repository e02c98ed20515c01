"""Ports that the operator names as APIs: those of that workload, and no others."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from vllmwall.decide.lockdown import restrained
from vllmwall.decide.opened import OPENABLE, OpenedApi, is_opened, with_opened
from vllmwall.model import (
    Evidence,
    Label,
    LabelledListener,
    Listener,
    Policy,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)

ROOT = WorkloadId(7, 1)
OPENED = OpenedApi(8000, "own")


def node(role: Role = Role.WEB, **changes: object) -> Recognition:
    """A workload with one listener."""
    listener = Listener(1, Proto.TCP, 8000, ip_address("0.0.0.0"))
    label = Label(role, 0.6, (Evidence("backlog", "2048"),))
    one = LabelledListener(replace(listener, **changes), label)  # type: ignore[arg-type]
    return Recognition((Workload(ROOT, Stack.TORCH, "own", frozenset({7}), (one,)),), ())


def role_of(found: Recognition) -> Role:
    """The role of its only listener."""
    ((one,),) = (each.listeners for each in found.workloads)
    return one.label.role


@pytest.mark.parametrize("role", sorted(OPENABLE))
def test_a_named_port_is_an_api_and_says_why(role: Role) -> None:
    """What was seen of it before stays in the evidence."""
    found = with_opened(node(role), [OPENED])
    ((one,),) = (each.listeners for each in found.workloads)
    assert (one.label.role, is_opened(one)) == (Role.API, True)
    assert ["opened", "backlog"] == [each.kind for each in one.label.evidence]


@pytest.mark.parametrize("role", sorted(set(Role) - OPENABLE))
def test_a_role_with_a_fingerprint_stays_what_it_is_without_force(role: Role) -> None:
    """Each of them: a role that is added later is internal too."""
    assert role_of(with_opened(node(role), [OPENED])) is role
    assert role_of(with_opened(node(role), [replace(OPENED, force=True)])) is Role.API


@pytest.mark.parametrize(
    "found",
    [
        node(port=8001),
        node(proto=Proto.UDP),
        node(proto=Proto.UNIX, address=None, path="/run/x"),
        node(address=ip_address("127.0.0.1")),
        node(address=ip_address("::1")),
    ],
)
def test_nothing_else_is_opened(found: Recognition) -> None:
    """Another port, protocol, or loopback."""
    assert found == with_opened(found, [OPENED])


def test_the_name_or_the_very_process_counts() -> None:
    """A name that cannot be read after a restart of the daemon closes nothing."""
    renamed = OpenedApi(8000, "other")
    assert role_of(with_opened(node(), [renamed])) is Role.WEB
    assert role_of(with_opened(node(), [replace(renamed, root=ROOT)])) is Role.API
    reused = replace(renamed, root=WorkloadId(7, 2))
    assert role_of(with_opened(node(), [reused])) is Role.WEB


@pytest.mark.parametrize(("uid", "role"), [(0, Role.API), (1000, Role.UNKNOWN)])
def test_in_lockdown_the_name_of_a_workload_opens_no_other_users_port(uid: int, role: Role) -> None:
    """Users choose names; `host.api_users` says who may open an API."""
    policy = Policy({Role.API: ("public",)}, lockdown=True)
    found = restrained(with_opened(node(uid=uid), [OPENED]), {}, policy)
    assert role_of(found) is role
