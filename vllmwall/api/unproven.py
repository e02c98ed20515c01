"""Listeners that look like web servers, are not proven to be APIs, and are closed therefore."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING

from vllmwall.api.status_answer import UNPROVEN
from vllmwall.model import LabelledListener, Role, Workload

if TYPE_CHECKING:
    from vllmwall.engine.status_facts import StatusFacts

_MOST_LINES = 8


def closed_web_servers(facts: StatusFacts) -> Iterator[str]:
    """A line for each: port, program, and the command that opens it."""
    found = {
        (workload.name, one.listener.port): (workload, one)
        for workload in facts.recognition.workloads
        for one in workload.listeners
        if is_closed_web_server(one, facts)
    }
    lines = [_line(workload, one, facts) for workload, one in found.values()]
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        more = len(lines) - _MOST_LINES
        yield f"{more} more such ports: those with the role web in `vllmwall status --all`"


def is_closed_web_server(one: LabelledListener, facts: StatusFacts) -> bool:
    """Whether clients may wait for it. Not where the policy names the role `web`: the operator has
    decided then."""
    return (
        one.label.role is Role.WEB
        and facts.mode != "down"
        and not one.listener.is_loopback
        and Role.WEB not in facts.policy.audiences
        and facts.skip_reason(one.listener) is None
    )


def opening(port: int, workload: str, facts: StatusFacts) -> str:
    """The command that opens a port of a workload and keeps it open."""
    names = {
        each.name
        for each in facts.recognition.workloads
        for one in each.listeners
        if one.listener.port == port
    }
    option = f" --workload {quote(workload)}" if len(names) > 1 else ""
    return f"vllmwall api add {port}{option} --save"


def _line(workload: Workload, one: LabelledListener, facts: StatusFacts) -> str:
    port, pids = one.listener.port, one.listener.pids
    named = [f"{facts.programs[pid]} (pid {pid})" for pid in pids[:1] if pid in facts.programs]
    who = f"{named[0]} of {workload.name}" if named else workload.name
    audience = " and ".join(facts.policy.audience_of(Role.WEB))
    return (
        f"port {port}: {who} {UNPROVEN}. Only {audience} may connect, and clients may be waiting. "
        f"To open it: {opening(port, workload.name, facts)}"
    )
