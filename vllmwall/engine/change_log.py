"""What the log says of changes to walls, ours and others'."""

from __future__ import annotations

from collections.abc import Iterable

from vllmwall.enforce.apply import Change
from vllmwall.enforce.nftables.notifications import Touch
from vllmwall.engine.log import Logger
from vllmwall.model import Guard, WallEntry

_SHOWN = 8


def tell_change(log: Logger, namespace: str, change: Change) -> None:
    """One change that we made, and the connections that it ended."""
    before, after = change.before, change.after
    entries, guards = (before.entries, before.guards) if before else (frozenset(), frozenset())
    added, removed = _ports(after.entries - entries), _ports(entries - after.entries)
    was_banned = before.banned if before else ()
    log.info(
        "wall put up" if before is None else "wall changed",
        namespace=namespace,
        added=", ".join(sorted(added - removed)),
        changed=", ".join(sorted(added & removed)),
        removed=", ".join(sorted(removed - added)),
        guarded=_paths(after.guards - guards),
        banned=", ".join(str(one) for one in after.banned if one not in was_banned),
    )
    severed = change.severed.connections
    if severed:
        log.info(
            "connections reset that the wall refuses",
            namespace=namespace,
            connections=[str(one) for one in severed[:_SHOWN]],
            count=len(severed),
        )


def tell_touch(log: Logger, namespace: str, touch: Touch) -> None:
    """A commit of another program that touched our table."""
    log.warning(
        "another program touched our table",
        namespace=namespace,
        pid=touch.pid,
        command=touch.command,
        what=touch.what,
    )


def tell_failure(log: Logger, namespace: str, why: str) -> None:
    """A change that the kernel did not take."""
    log.error("the wall could not be changed; what stood stays", namespace=namespace, error=why)


def _ports(entries: Iterable[WallEntry]) -> set[str]:
    return {f"{one.proto.value}/{one.port}" for one in entries}


def _paths(guards: Iterable[Guard]) -> str:
    return ", ".join(sorted(one.path for one in guards))
