"""`vllmwall adopted`: list, keep and drop hosts that were connected before the first wall."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from shlex import quote
from typing import TYPE_CHECKING

from vllmwall.api.adopted_answer import (
    AdoptedAnswer,
    AdoptedHost,
    AdoptedRequest,
    AdoptedWorkload,
    RefusedHost,
)
from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.api.units import count
from vllmwall.decide.adopted import Adopted
from vllmwall.decide.opened import OpenedApi
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.saved_apis import ApiError
from vllmwall.networks.sources import PeerError

if TYPE_CHECKING:
    from vllmwall.engine.state import State

_HOSTS_SHOWN = 4
_REASONS = {
    "public": "a public address",
    "ours": "an address of this node, which hosts behind NAT share",
    "too-many": "there were too many hosts",
}


def show(state: State, _: NoArguments) -> AdoptedAnswer:
    """What was adopted and has not ended."""
    adoption = state.reconciler.adoption
    return AdoptedAnswer(
        enabled=adoption.is_on,
        adopted=as_facts(adoption.adopted()),
        would=as_facts(adoption.would()),
        problems=adoption.problems,
    )


def keep(state: State, request: AdoptedRequest) -> AdoptedAnswer:
    """Save the hosts as peers and the open ports as APIs, in conf.d. Raises ControlError; what was
    saved until then stays saved.

    Clients of one role stay adopted: a saved peer would reach all internal ports.
    """
    chosen = _chosen(state, request)
    reconciler = state.reconciler
    networks = {ip_network(one.address) for each in chosen for one in each.sources if not one.role}
    try:
        if networks:
            reconciler.peers.save(networks)
        for each in chosen:
            for port in each.web_ports:
                reconciler.apis.add(OpenedApi(port, each.name, root=each.workload), save=True)
    except (PeerError, ApiError) as error:
        raise ControlError("failed", str(error)) from error
    left = [
        replace(each, sources=tuple(one for one in each.sources if one.role), web_ports=())
        for each in chosen
    ]
    return replace(_change(state, "kept", chosen, left), kept=as_facts(chosen))


def drop(state: State, request: AdoptedRequest) -> AdoptedAnswer:
    """Block the hosts and close the ports at once, and reset their connections. Raises
    ControlError."""
    chosen = _chosen(state, request)
    left = [replace(each, sources=(), web_ports=()) for each in chosen]
    return replace(_change(state, "dropped", chosen, left), dropped=as_facts(chosen))


def as_facts(adopted: Iterable[Adopted]) -> tuple[AdoptedWorkload, ...]:
    """For answers."""
    return tuple(
        AdoptedWorkload(
            workload=one.name,
            root_pid=one.workload.root_pid,
            since=one.since,
            hosts=tuple(
                AdoptedHost(each.address, each.role.value if each.role else None)
                for each in one.sources
            ),
            open_ports=one.web_ports,
            refused=tuple(RefusedHost(each.address, each.why) for each in one.refused),
            refusals=one.refusals,
        )
        for one in adopted
    )


def adopted_lines(adopted: tuple[AdoptedWorkload, ...], mode: str) -> Iterator[str]:
    """What was adopted, until when, and the commands, a line for each workload and kind."""
    names = [one.workload for one in adopted]
    for one in adopted:
        is_only = names.count(one.workload) == 1
        target = quote(one.workload) if is_only else str(one.root_pid)
        yield from _lines(one, target, is_audited=mode == "audit")


def _lines(one: AdoptedWorkload, target: str, *, is_audited: bool) -> Iterator[str]:
    who = f"{one.workload} (pid {one.root_pid})"
    keep, drop = (f"vllmwall adopted {verb} {target}" for verb in ("keep", "drop"))
    remedy = f"To save this: {keep}. To block them now: {drop}"
    if is_audited:
        remedy = "Enforce mode would adopt them now"
    if one.hosts:
        hosts = count(len(one.hosts), "host")
        yield (
            f"{who} adopted {hosts} that had connections before its first wall: "
            f"{_named(str(each.address) for each in one.hosts)}. They may connect until the "
            f"workload ends. {remedy}"
        )
    if one.open_ports:
        ports = ", ".join(map(str, one.open_ports))
        yield (
            f"{who}: port {ports} looks like a web server and had clients before its first wall, "
            f"so it is open to everyone until the workload ends. {remedy}"
        )
    if one.refused:
        named = _named(f"{each.address} ({_REASONS[each.why]})" for each in one.refused)
        are = "would be" if is_audited else "are"
        hosts = count(one.refusals, "host")
        yield f"{who}: {hosts} had connections to its internal ports and {are} blocked: {named}"


def _named(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_HOSTS_SHOWN]) + (" …" if len(every) > _HOSTS_SHOWN else "")


def _chosen(state: State, request: AdoptedRequest) -> list[Adopted]:
    every = state.reconciler.adoption.adopted()
    wanted = request.workload
    chosen = [
        one
        for one in every
        if wanted in ("", one.name, str(one.workload.root_pid)) and (one.sources or one.web_ports)
    ]
    if not chosen:
        names = ", ".join(sorted({one.name for one in every}))
        about = f"workload {wanted!r} adopted nothing" if wanted else "nothing is adopted"
        hint = f"There is: {names}." if names else "`vllmwall status` shows the workloads."
        raise ControlError("failed", about, hint)
    return chosen


def _change(state: State, what: str, chosen: list[Adopted], left: list[Adopted]) -> AdoptedAnswer:
    adoption = state.reconciler.adoption
    if not adoption.replace(left):
        raise ControlError("failed", "; ".join(adoption.problems))
    for one in chosen:
        state.log(
            EventKey.ADOPTED_CHANGED,
            change=what,
            workload=one.name,
            pid=one.workload.root_pid,
            hosts=[str(each.address) for each in one.sources],
            open_ports=list(one.web_ports),
        )
    state.loop.full_pass("adopted hosts changed")
    return show(state, NoArguments())
