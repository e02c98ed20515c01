"""`vllmwall plan`: what the configuration on disk would change in each namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from vllmwall.api.errors import ControlError
from vllmwall.api.later import Later
from vllmwall.api.plan_answer import (
    EntryChange,
    NamespacePlan,
    NetworkChange,
    Plan,
    PlanRequest,
    WallAction,
)
from vllmwall.config import DROP_INS, ConfigError
from vllmwall.config.reading import Reading
from vllmwall.config.settings import Settings
from vllmwall.decide.adopted import shown
from vllmwall.enforce.nftables.names import BANNED
from vllmwall.engine.state import State
from vllmwall.engine.status_facts import NamespaceFacts
from vllmwall.model import Address, Network, Proto, Wall, WallEntry
from vllmwall.networks.peerlist import PeerList

TOO_MANY_REQUESTS = ControlError(
    "failed", "too many requests wait for the configuration", "Try again in a few seconds."
)
_Key = tuple[int, Proto, int, Address | None]


def plan(state: State, request: PlanRequest) -> Later[Plan]:
    """What `reload` would change; with ``ssh`` also whether it would end that connection."""
    later: Later[Plan] = Later()

    def done(reading: Reading) -> None:
        if later.is_wanted():
            later.settle(lambda: _planned(state, reading, request))

    if not state.loop.read_config(done, later.is_wanted):
        raise TOO_MANY_REQUESTS
    return later


def _planned(state: State, reading: Reading, request: PlanRequest) -> Plan:
    try:
        spaces = planned_walls(state, reading.usable())
    except ConfigError as error:
        raise unusable(error) from error
    problems = ["the walls are down on request: this is what `vllmwall up` would do"]
    problems = problems if state.reconciler.down else []
    if request.ssh:
        from vllmwall.api.ssh_check import would_lock_out

        if why := would_lock_out(request.ssh, spaces, state.reconciler):
            problems.append(why)
    return plan_of(spaces, problems)


def planned_walls(state: State, config: Settings) -> tuple[NamespaceFacts, ...]:
    """The active walls, and the walls of a configuration."""
    options = state.options
    peers = PeerList(config.peers, options.runtime_dir, options.config.parent / DROP_INS)
    return state.reconciler.plan(config, peers.networks(), state.loop.follow_events)


def unusable(error: ConfigError) -> ControlError:
    """The failure of a request whose configuration cannot be used."""
    return ControlError("failed", str(error), "The active configuration is unchanged.")


def plan_of(spaces: Iterable[NamespaceFacts], problems: Iterable[str] = ()) -> Plan:
    """The difference between the active and the wanted wall of every namespace."""
    found = tuple(_namespace(space) for space in spaces if space.error is None)
    errors = (f"{space.name}: {space.error}" for space in spaces if space.error is not None)
    return Plan(
        changes=any(one.action != "none" for one in found),
        namespaces=found,
        problems=(*problems, *errors),
    )


def _namespace(space: NamespaceFacts) -> NamespacePlan:
    wanted, actual = space.wanted, space.active
    return NamespacePlan(
        inode=space.inode,
        name=space.name,
        action=_action(wanted, actual),
        mode=wanted.mode.value if wanted else "down",
        was_mode=actual.mode.value if actual else "down",
        entries=tuple(_entry_changes(_by_key(actual), _by_key(wanted))),
        networks=tuple(_network_changes(_networks(actual), _networks(wanted))),
        orders=tuple(_rule_changes(_rules(actual), _rules(wanted))),
    )


def _action(wanted: Wall | None, actual: Wall | None) -> WallAction:
    if wanted is None:
        return "none" if actual is None else "remove"
    if actual is None:
        return "create"
    return "none" if wanted == actual else "change"


def _by_key(wall: Wall | None) -> Mapping[_Key, WallEntry]:
    entries = wall.entries if wall else frozenset()
    return {(one.family, one.proto, one.port, one.address): one for one in entries}


def _networks(wall: Wall | None) -> Mapping[str, tuple[Network, ...]]:
    return {**wall.networks, BANNED: wall.banned} if wall else {}


def _rules(wall: Wall | None) -> Mapping[str, str]:
    """The operator's rules beside entries and networks, in words."""
    if wall is None:
        return {}
    limits, log = wall.limits, wall.log
    rate = f"{limits.new_per_second} a second" if limits and limits.new_per_second else ""
    count = f"{limits.connections} at a time" if limits and limits.connections else ""
    return {
        "lockdown": "on" if wall.lockdown else "",
        "open": " ".join(sorted(f"{proto.value}/{port}" for proto, port in wall.opened)),
        "limits": ", ".join(filter(None, (rate, count))),
        "log": f"group {log.group}, {log.per_second} a second" if log else "",
    }


def _rule_changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in after or before:
        old, new = before.get(name) or "off", after.get(name) or "off"
        if old != new:
            yield f"{name} {old} → {new}"


def _entry_changes(
    before: Mapping[_Key, WallEntry], after: Mapping[_Key, WallEntry]
) -> Iterator[EntryChange]:
    for key in sorted(before.keys() | after.keys(), key=repr):
        old, new = before.get(key), after.get(key)
        if not _is_same(old, new) and (one := new or old) is not None:
            yield _entry_change(one, old, new)


def _is_same(old: WallEntry | None, new: WallEntry | None) -> bool:
    """Whether they differ in nothing but limits, which are reported once and not by entry."""
    return old == new or (
        old is not None and new is not None and replace(old, limited=new.limited) == new
    )


def _entry_change(one: WallEntry, old: WallEntry | None, new: WallEntry | None) -> EntryChange:
    anywhere = "0.0.0.0" if one.family == 4 else "::"
    return EntryChange(
        change="add" if old is None else "remove" if new is None else "change",
        proto=one.proto.value,
        addr=anywhere if one.address is None else str(one.address),
        port=one.port,
        audience=shown(new.audience) if new else (),
        was=shown(old.audience) if old else (),
        note=one.note,
    )


def _network_changes(
    before: Mapping[str, tuple[Network, ...]], after: Mapping[str, tuple[Network, ...]]
) -> Iterator[NetworkChange]:
    for name in sorted(before.keys() | after.keys()):
        old, new = set(before.get(name, ())), set(after.get(name, ()))
        if old != new:
            added, removed = sorted(new - old, key=str), sorted(old - new, key=str)
            yield NetworkChange(shown((name,))[0], tuple(added), tuple(removed))
