"""Processes outside every workload that use a GPU or a transport and are reachable. Pure.

Recognition knows the launchers and libraries of today. What it does not know is open, so it has to
be named: a node is not "safe" because nothing on it was understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vllmwall.model import Listener, Process, Proto, Recognition
from vllmwall.recognize.inputs import GPU
from vllmwall.recognize.transports import TRANSPORTS

_MONITORS = frozenset(
    {"dcgm-exporter", "nv-hostengine", "nvidia_gpu_exporter", "all-smi", "amd-metrics-exporter"}
    | {"gpuagent", "device-metrics-exporter"}
)
"""Programs of the administrator that read a GPU's counters and run nothing on it."""


@dataclass(frozen=True)
class Outsider:
    """One such process. ``listeners`` are those beyond loopback, ``uses`` the libraries."""

    process: Process
    listeners: tuple[Listener, ...]
    uses: tuple[str, ...]


def outsiders(found: Recognition, processes: Mapping[int, Process]) -> tuple[Outsider, ...]:
    """Those of this node, by namespace and pid."""
    opened: dict[int, list[Listener]] = {}
    inherited = {listener for _, listener, _ in found.inherited}
    for listener in found.unclaimed:
        if listener.proto is Proto.UNIX or listener.is_loopback or listener in inherited:
            continue
        for pid in listener.pids:
            opened.setdefault(pid, []).append(listener)
    every = (_outsider(processes[pid], opened[pid]) for pid in sorted(opened) if pid in processes)
    named = filter(None, every)
    return tuple(sorted(named, key=lambda one: (one.listeners[0].namespace, one.process.pid)))


def _outsider(process: Process, listeners: list[Listener]) -> Outsider | None:
    uses = tuple(sorted((process.libraries or frozenset()) & {GPU, *TRANSPORTS}))
    if not uses or _is_monitor(process):
        return None
    return Outsider(process, tuple(listeners), uses)


def _is_monitor(process: Process) -> bool:
    """By its executable, and only where root runs it: other users choose names to hide behind."""
    return process.uid == 0 and process.exe.rpartition("/")[2] in _MONITORS


def by_namespace(every: tuple[Outsider, ...]) -> Iterator[tuple[int, tuple[Outsider, ...]]]:
    """The same, for each network namespace."""
    spaces: dict[int, list[Outsider]] = {}
    for one in every:
        spaces.setdefault(one.listeners[0].namespace, []).append(one)
    for inode, found in spaces.items():
        yield inode, tuple(found)
