"""Listeners of users whose processes were not all looked at. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.recognize.stack_rules import label


def with_left_out(recognition: Recognition, left_out: Mapping[tuple[int, int], str]) -> Recognition:
    """Make a workload of the listeners whose owner was not seen: a process of the user that has
    more than its share. Their roles are unknown, so they are internal."""
    if not left_out:
        return recognition
    found: dict[tuple[int, int], list[Listener]] = {}
    for one in recognition.unclaimed:
        if not one.pids and one.proto is not Proto.UNIX:
            for key in ((one.uid, 0), (one.uid, one.namespace)):
                if key in left_out:
                    found.setdefault(key, []).append(one)
                    break
    added = {one for listeners in found.values() for one in listeners}
    return replace(
        recognition,
        workloads=(
            *recognition.workloads,
            *(_workload(key, listeners, left_out[key]) for key, listeners in found.items()),
        ),
        unclaimed=tuple(one for one in recognition.unclaimed if one not in added),
    )


def _workload(key: tuple[int, int], listeners: list[Listener], why: str) -> Workload:
    uid, namespace = key
    judged: Label = label(Role.UNKNOWN, 0.3, ("unread", why))
    return Workload(
        id=WorkloadId(0, uid << 32 | namespace),
        stack=Stack.CUSTOM,
        name="not looked at",
        pids=frozenset(),
        listeners=tuple(LabelledListener(one, judged) for one in listeners),
        uid=uid,
    )
