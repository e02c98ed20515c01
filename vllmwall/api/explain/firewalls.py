"""Other programs' firewalls in the namespaces of an explanation.

The process that asks reads them and sends them with its question: reading starts children
(iptables-save), for which the daemon's loop must not wait. The daemon lists their chains in its
answer, and applies the ports that NAT forwards: such packets never meet the wall of the namespace
that they came to, nor a socket there (Docker's proxy holds one all the same).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from vllmwall.api.explain.answer import Hook
from vllmwall.api.explain.targets import Firewalls, Probe
from vllmwall.linux.netns import run_in
from vllmwall.observe.namespaces import Namespaces, every_namespace
from vllmwall.observe.other_firewalls import PublishedPort, other_chains, published_ports


def read(names: Collection[str], target: str) -> tuple[Firewalls, ...]:
    """Those of the namespaces of these names. Needs root. ``target``: of the question; where it is
    a port, other published ports are left out."""
    namespaces = Namespaces()
    paths = {namespaces.name(inode): path for inode, path in every_namespace().items()}
    return tuple(_read(name, paths[name], target) for name in names if name in paths)


def settled(
    probes: Iterable[Probe], firewalls: Iterable[Firewalls]
) -> list[tuple[Probe, PublishedPort | None]]:
    """The probes, each with the published port that takes its packet elsewhere. One is left out
    where a probe of the listener behind it is there."""
    every = list(probes)
    published = {one.namespace: one.published for one in firewalls}
    found = []
    for probe in every:
        port = next(filter(probe.is_taken_by, published.get(probe.namespace, ())), None)
        behind = (one for one in every if one.namespace != probe.namespace)
        if port is None or not any(one.is_behind(port) for one in behind):
            found.append((probe, port))
    return found


def forwarded(probes: Iterable[Probe], firewalls: Iterable[Firewalls]) -> Iterator[str]:
    """A line for each published port that takes the packet of a probe."""
    every = list(probes)
    for one in firewalls:
        for port in one.published:
            if any(probe.namespace == one.namespace and probe.is_taken_by(port) for probe in every):
                taken = f"{port.by} forwards {port.proto} port {port.port} to {port.to}"
                yield f"{one.namespace}: {taken} before the wall there sees the packet"


def _read(name: str, path: str, target: str) -> Firewalls:
    try:
        chains, published = run_in(path, lambda: (other_chains(), published_ports()))
    except OSError as error:
        return Firewalls(name, problems=(f"{name}: other firewalls are unknown: {error}",))
    return Firewalls(
        name,
        tuple(
            Hook(name, one.table, one.name, one.hook, one.priority, one.policy)
            for one in chains.found
        ),
        tuple(one for one in published if not target.isdigit() or str(one.port) == target),
        tuple(f"{name}: {problem}" for problem in chains.problems),
    )
