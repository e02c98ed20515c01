"""`vllmwall plan`: what the configuration on disk would change in each namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from vllmwall.api.errors import ControlError, Json
from vllmwall.api.later import Later
from vllmwall.api.shapes import (
    PLAN_VERSION,
    EntryChangeJson,
    NamespacePlanJson,
    NetworkChangeJson,
    PlanJson,
)
from vllmwall.config import DROP_INS, ConfigError
from vllmwall.config.reading import Reading
from vllmwall.config.settings import Settings
from vllmwall.enforce.nftables.names import BANNED
from vllmwall.engine.state import State
from vllmwall.engine.status_facts import NamespaceFacts
from vllmwall.model import Address, Network, Proto, Wall, WallEntry
from vllmwall.networks.peerlist import PeerList

TOO_MANY_REQUESTS = ControlError(
    "failed", "too many requests wait for the configuration", "Try again in a few seconds."
)
_Key = tuple[int, Proto, int, Address | None]


def plan(state: State, arguments: Json) -> Later[Json]:
    """What `reload` would change; with ``ssh`` also whether it would end that connection."""
    later: Later[Json] = Later()

    def done(reading: Reading) -> None:
        if later.is_wanted():
            later.settle(lambda: _planned(state, reading, arguments))

    if not state.loop.read_config(done, later.is_wanted):
        raise TOO_MANY_REQUESTS
    return later


def _planned(state: State, reading: Reading, arguments: Json) -> PlanJson:
    try:
        spaces = planned_walls(state, reading.usable())
    except ConfigError as error:
        raise unusable(error) from error
    problems = ["the walls are down on request: this is what `vllmwall up` would do"]
    problems = problems if state.reconciler.down else []
    if arguments.get("ssh"):
        from vllmwall.api.ssh_check import would_lock_out

        if why := would_lock_out(arguments, spaces, state.reconciler):
            problems.append(why)
    return plan_json(spaces, problems)


def planned_walls(state: State, config: Settings) -> tuple[NamespaceFacts, ...]:
    """The active walls, and the walls of a configuration."""
    options = state.options
    peers = PeerList(config.peers, options.runtime_dir, options.config.parent / DROP_INS)
    return state.reconciler.plan(config, peers.networks(), state.loop.follow_events)


def unusable(error: ConfigError) -> ControlError:
    """The failure of a request whose configuration cannot be used."""
    return ControlError("failed", str(error), "The configuration in force stays.")


def plan_json(spaces: Iterable[NamespaceFacts], problems: Iterable[str] = ()) -> PlanJson:
    """The difference between the active and the planned wall, in every namespace."""
    found = [_space_json(space) for space in spaces if space.error is None]
    errors = [f"{space.name}: {space.error}" for space in spaces if space.error is not None]
    return {
        "version": PLAN_VERSION,
        "changes": any(one["action"] != "none" for one in found),
        "namespaces": found,
        "problems": [*problems, *errors],
    }


def _space_json(space: NamespaceFacts) -> NamespacePlanJson:
    wanted, active = space.wanted, space.active
    return {
        "inode": space.inode,
        "name": space.name,
        "action": _action(wanted, active),
        "mode": wanted.mode.value if wanted else "down",
        "was_mode": active.mode.value if active else "down",
        "entries": _entries_json(_by_key(active), _by_key(wanted)),
        "networks": _networks_json(_networks(active), _networks(wanted)),
        "orders": _orders_json(_orders(active), _orders(wanted)),
    }


def _action(
    wanted: Wall | None, active: Wall | None
) -> Literal["create", "change", "remove", "none"]:
    if wanted is None:
        return "none" if active is None else "remove"
    if active is None:
        return "create"
    return "none" if wanted == active else "change"


def _by_key(wall: Wall | None) -> Mapping[_Key, WallEntry]:
    entries = wall.entries if wall else frozenset()
    return {(one.family, one.proto, one.port, one.address): one for one in entries}


def _networks(wall: Wall | None) -> Mapping[str, tuple[Network, ...]]:
    return {**wall.networks, BANNED: wall.banned} if wall else {}


def _orders(wall: Wall | None) -> Mapping[str, str]:
    """What was ordered beside entries and networks, in words."""
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


def _orders_json(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{name} {before.get(name) or 'off'} → {after.get(name) or 'off'}"
        for name in (after or before)
        if (before.get(name) or "") != (after.get(name) or "")
    ]


def _entries_json(
    before: Mapping[_Key, WallEntry], after: Mapping[_Key, WallEntry]
) -> list[EntryChangeJson]:
    found = []
    for key in sorted(before.keys() | after.keys(), key=repr):
        old, new = before.get(key), after.get(key)
        if not _is_same(old, new) and (one := new or old) is not None:
            found.append(_entry_json(one, old, new))
    return found


def _is_same(old: WallEntry | None, new: WallEntry | None) -> bool:
    """Limits are said once and not with each entry."""
    return old == new or (
        old is not None and new is not None and replace(old, limited=new.limited) == new
    )


def _entry_json(one: WallEntry, old: WallEntry | None, new: WallEntry | None) -> EntryChangeJson:
    anywhere = "0.0.0.0" if one.family == 4 else "::"
    return {
        "change": "add" if old is None else "remove" if new is None else "change",
        "proto": one.proto.value,
        "addr": anywhere if one.address is None else str(one.address),
        "port": one.port,
        "audience": list(new.audience) if new else [],
        "was": list(old.audience) if old else [],
        "note": one.note,
    }


def _networks_json(
    before: Mapping[str, tuple[Network, ...]], after: Mapping[str, tuple[Network, ...]]
) -> list[NetworkChangeJson]:
    found: list[NetworkChangeJson] = []
    for name in sorted(before.keys() | after.keys()):
        old, new = set(before.get(name, ())), set(after.get(name, ()))
        if old != new:
            found.append(
                {
                    "audience": name,
                    "add": sorted(str(one) for one in new - old),
                    "remove": sorted(str(one) for one in old - new),
                }
            )
    return found
