"""Probes every network namespace in turn, with all of its probes at once."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from pyroute2 import IPRoute

from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.inspect.prove import plan
from vllmwall.inspect.prove.devices import at_the_device, ingress_rules
from vllmwall.inspect.prove.harness import ProveError, locked, staged, sweep
from vllmwall.inspect.prove.plan import NamespaceView, Probe, Skipped, Source
from vllmwall.inspect.prove.probes import ProbeRun
from vllmwall.inspect.prove.question import Question
from vllmwall.inspect.prove.verdicts import (
    Memory,
    ProbeResult,
    Reply,
    Witness,
    judge,
    newly_counted,
)
from vllmwall.linux.listeners import SocketDump
from vllmwall.linux.netns import run_in
from vllmwall.model import Mode, Network
from vllmwall.observe.namespaces import every_namespace
from vllmwall.observe.other_firewalls import other_chains
from vllmwall.observe.packet_paths import routes_loopback

_SETTINGS = ("ipv4/conf/all/rp_filter", "ipv4/ip_forward", "ipv6/conf/all/forwarding")


@dataclass(frozen=True)
class ProvedNamespace:
    """One network namespace. ``surroundings`` are other firewalls and kernel settings that may drop
    packets."""

    inode: int
    name: str
    surroundings: tuple[str, ...] = ()


@dataclass(frozen=True)
class NamespaceResult:
    """The results of one network namespace."""

    namespace: ProvedNamespace
    results: tuple[ProbeResult, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[str, ...] = ()


def prove(question: Question) -> list[NamespaceResult]:
    """Probe every listener of every workload, in every namespace with a wall or a workload.

    Everything that it creates is removed. Raises ProveError, EnforceError and OSError.
    """
    backend = Nftables(why_not_owned="prove only reads")
    names = {one.inode: one.name for one in question.status.namespaces}
    for workload in question.status.workloads:
        for one in workload.listeners:
            names.setdefault(one.namespace, f"net:{one.namespace}")
    return [_result(question, inode, name, backend) for inode, name in names.items()]


def _result(question: Question, inode: int, name: str, backend: Nftables) -> NamespaceResult:
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(_entered(inode))
        except FileNotFoundError:
            gone = f"{name}: the namespace is gone"
            return NamespaceResult(ProvedNamespace(inode, name), problems=(gone,))
        stack.enter_context(locked(path))
        sweep(path)
        view = run_in(path, _view)
        targets, skipped = plan.targets_of(question.status, inode, view)
        targets += plan.failsafe_targets(question.failsafe, targets, view)
        sources, problems = _sources(question, targets, view, path)
        probes = plan.probes_of(targets, sources, question.networks)
        results = _probed(probes, view, path, question.patience, backend)
        return NamespaceResult(
            ProvedNamespace(inode, name, tuple(run_in(path, _surroundings))),
            tuple(results),
            tuple(skipped),
            tuple(f"{name}: {problem}" for problem in problems),
        )


def _probed(
    probes: list[Probe], view: NamespaceView, path: str, patience: float, backend: Nftables
) -> list[ProbeResult]:
    if not probes:
        return []
    run = ProbeRun([*probes, *plan.controls_of(probes, view)])
    before = _memory(backend, path)
    sources = list(dict.fromkeys(one.source for one in probes))
    with staged(path, sources, {one.target.address for one in probes}) as inside:
        try:
            run_in(inside, lambda: run.run(patience))
        finally:
            run.stop()
    counted = newly_counted(before, _memory(backend, path))
    later = run_in(path, _view)
    gone = {one for one in probes if run.seen.get(one) is not Reply.OPEN and _left(one, later)}
    seen = {one: run.seen.get(one, Reply.SILENT) for one in run.probes}
    witness = Witness(seen, counted, gone, _mode(backend, path))
    rules = run_in(path, ingress_rules)
    return [at_the_device(judge(one, witness), rules) for one in probes]


def _left(one: Probe, view: NamespaceView) -> bool:
    target = one.target
    return not view.is_listening(target.proto, target.bound, target.port)


def _sources(
    question: Question, targets: Collection[plan.Target], view: NamespaceView, path: str
) -> tuple[list[Source], list[str]]:
    """A stranger for each family with a listener, and the peers that were asked for."""
    found, problems = [], []
    families = {one.address.version for one in targets}
    taken = [*(one for each in question.networks.values() for one in each), *run_in(path, _routed)]
    for version in sorted(families):
        address = plan.free_address(version, taken)
        if address is None:
            raise ProveError(
                f"every IPv{version} documentation range is in use on this node (a peer, an "
                "address or a route), so there is no untrusted address to probe from"
            )
        found.append(Source("stranger", address))
    for peer in question.peers:
        if peer in view.addresses:
            problems.append(f"{peer} is an address of this node: no probes were sent from it")
        elif peer.version in families:
            found.append(Source("peer", peer))
    return found, problems


def _view() -> NamespaceView:
    with contextlib.closing(SocketDump()) as dump, IPRoute() as routes:
        found = [
            ip_address(str(text))
            for one in routes.get_addr()
            if (text := one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"))
        ]
        outside = (one for one in found if not (one.is_loopback or one.is_link_local))
        return NamespaceView(tuple(outside), tuple(dump.listeners()), routes_loopback())


def _routed() -> list[Network]:
    """The destinations of all routes of this namespace."""
    with IPRoute() as routes:
        return [
            ip_network(f"{to}/{route['dst_len']}")
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in routes.get_routes(family=family)
            if (to := route.get_attr("RTA_DST"))
        ]


def _memory(backend: Nftables, path: str) -> Memory:
    refusals = backend.counters(path).refusals
    return {(one.source, one.proto, one.port): one.packets for one in refusals}


def _mode(backend: Nftables, path: str) -> Mode | None:
    wall = backend.read_back(path)
    return wall.mode if wall is not None else None


@contextlib.contextmanager
def _entered(inode: int) -> Iterator[str]:
    """A path to a namespace that stays valid. Raises FileNotFoundError when it is gone."""
    path = every_namespace().get(inode, "")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_ino != inode:
            raise FileNotFoundError(inode)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _surroundings() -> list[str]:
    """For the namespace of the calling thread, a line each. Empty: there is nothing else."""
    chains = other_chains()
    names = sorted({f"{one.table} {one.name} ({one.hook})" for one in chains.found})
    lines = [f"other firewalls: {', '.join(names)}"] if names else []
    settings = ", ".join(_settings())
    return [*lines, *chains.problems, *([f"kernel: {settings}"] if settings else [])]


def _settings() -> Iterator[str]:
    for name in _SETTINGS:
        with contextlib.suppress(OSError):
            value = Path("/proc/sys/net", name).read_text().strip()
            if value != "0":
                yield f"{name.replace('/', '.')}={value}"
