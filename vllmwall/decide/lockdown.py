"""Lockdown and bans applied to a decided wall, and the users who may open an API. Pure.

In lockdown every port except APIs is closed, so a user who can make a port look like an API could
open one. Only users named by root can: argv, titles and cgroup names that users choose have no
effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from vllmwall.model import (
    Evidence,
    Label,
    LabelledListener,
    Listener,
    Network,
    Policy,
    Process,
    Recognition,
    Role,
    Wall,
)

KIND = "lockdown"
"""The kind of the evidence that made an API internal."""

Processes = Mapping[int, Process]


def restrained(found: Recognition, processes: Processes, policy: Policy) -> Recognition:
    """Relabel APIs of users not in ``api_users`` as unknown."""
    if not policy.lockdown:
        return found
    workloads = tuple(
        replace(
            one, listeners=tuple(_restrained(each, processes, policy) for each in one.listeners)
        )
        for one in found.workloads
    )
    return replace(found, workloads=workloads)


def ordered(wall: Wall, policy: Policy, banned: tuple[Network, ...], home: Iterable[int]) -> Wall:
    """The wall with the operator's bans and lockdown. Lockdown applies to the host's own
    namespaces only, and closed ports there send no reset."""
    lockdown = policy.lockdown and wall.namespace in frozenset(home)
    return replace(
        wall,
        banned=banned,
        lockdown=lockdown,
        opened=frozenset(policy.opened) if lockdown else frozenset(),
        answering=wall.answering and not lockdown,
    )


def _restrained(
    labelled: LabelledListener, processes: Processes, policy: Policy
) -> LabelledListener:
    listener, label = labelled.listener, labelled.label
    if label.role is not Role.API or _may_open(listener, processes, policy):
        return labelled
    why = Evidence(
        KIND, f"looks like an API, but in lockdown uid {listener.uid} may not open one (api_users)"
    )
    return replace(labelled, label=Label(Role.UNKNOWN, label.confidence, (*label.evidence, why)))


def _may_open(listener: Listener, processes: Processes, policy: Policy) -> bool:
    if listener.uid in policy.api_users:
        return True
    owners = [processes[pid] for pid in listener.pids if pid in processes]
    return bool(owners) and all(_is_in_unit(one.cgroup, policy.api_units) for one in owners)


def _is_in_unit(path: str, globs: Iterable[str]) -> bool:
    """Whether this cgroup belongs to a system unit whose name matches.

    The unit is the first part of the path that is no slice: below it users can make cgroups of
    any name (Delegate=, a user's own service manager, a container's root).
    """
    parts = path.split("/")
    depth = next((n for n, part in enumerate(parts) if part and not part.endswith(".slice")), None)
    if depth is None:
        return False
    names = (parts[depth], "/".join(parts[: depth + 1]))
    return any(fnmatchcase(name, glob) for glob in globs for name in names)
