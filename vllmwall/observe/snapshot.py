"""Snapshots: an observed node as a JSON file, for bug reports and for tests.

`dump` removes secrets; recognition of a snapshot gives the same result as that of the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from vllmwall.linux.wire import encode
from vllmwall.model import Listener, Node, Process, RaySession
from vllmwall.observe.redaction import redacted


@dataclass(frozen=True)
class Snapshot:
    """The contents of the file. ``host`` are facts about the machine, for people."""

    format: Literal["vllmwall-snapshot"]
    version: Literal[1]
    host: Mapping[str, str]
    processes: tuple[Process, ...]
    listeners: tuple[Listener, ...]
    ray_sessions: tuple[RaySession, ...]
    relays: tuple[tuple[int, int, int], ...] = ()


class SnapshotError(ValueError):
    """The file is no snapshot; the message names the file and the reason."""


def load(path: Path) -> Node:
    """Read a snapshot. Raises SnapshotError, or OSError when the file cannot be read."""
    try:
        return read(path.read_bytes())
    except ValueError as error:
        raise SnapshotError(f"{path}: not a snapshot: {error}") from None


def read(text: str | bytes) -> Node:
    """The node in the text of a snapshot. Raises ValueError when it is none."""
    from pydantic import TypeAdapter, ValidationError  # 90 ms, and the daemon reads no snapshot

    try:
        found = TypeAdapter(Snapshot).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    processes = {one.pid: one for one in found.processes}
    return Node(processes, found.listeners, found.ray_sessions, found.relays)


def dump(node: Node, *, host_facts: Mapping[str, str]) -> Mapping[str, object]:
    """The node as a snapshot that may be published; ``host_facts`` are copied unchanged.

    Of a process only values that are allowed by name and shape are kept; all others read
    ``<redacted>``.
    """
    clean = redacted(node)
    found = Snapshot(
        format="vllmwall-snapshot",
        version=1,
        host=host_facts,
        processes=tuple(clean.processes.values()),
        listeners=clean.listeners,
        ray_sessions=clean.ray_sessions,
        relays=clean.relays,
    )
    return cast("Mapping[str, object]", encode(found))
