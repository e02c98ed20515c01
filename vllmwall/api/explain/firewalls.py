"""Other programs' firewalls in the namespaces of an explanation.

The process that asks reads them: reading starts children (nft, iptables-save), for which the
daemon's loop must not wait. It sends chains and published ports with its question. The daemon lists
the chains in its answer, and applies the ports that NAT forwards: such packets never meet the wall
of the namespace that they came to, nor a socket there (Docker's proxy holds one all the same). The
rules stay in the process that asks, which evaluates them for each answer (`judged_by_others`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from vllmwall.api.explain.answer import Answer, Hook
from vllmwall.api.explain.reasons import MAYBE_REDIRECTED
from vllmwall.api.explain.targets import Firewalls, Probe
from vllmwall.enforce.evaluator.foreign import Ruleset
from vllmwall.linux.netns import run_in
from vllmwall.observe.addresses import own_addresses
from vllmwall.observe.namespaces import Namespaces, every_namespace
from vllmwall.observe.other_firewalls import PublishedPort, other_chains, published_ports
from vllmwall.observe.other_rules import OtherRules, other_rules

_NOT_REDIRECTED = "no socket listens there, and no rule of NAT takes the packet elsewhere"
_UNREAD = "the rules of other firewalls cannot be read"


def read(
    names: Collection[str], target: str
) -> tuple[tuple[Firewalls, ...], Mapping[str, OtherRules]]:
    """Those of the namespaces of these names, and their rules. Needs root. ``target``: of the
    question; where it is a port, other published ports are left out."""
    namespaces = Namespaces()
    paths = {namespaces.name(inode): path for inode, path in every_namespace().items()}
    found = {name: _read(name, paths[name], target) for name in names if name in paths}
    rules = {name: one for name, (_, one) in found.items()}
    return tuple(firewalls for firewalls, _ in found.values()), rules


def judged_by_others(answer: Answer, rules: OtherRules | None) -> Answer:
    """The answer with the verdict of the other firewalls of its namespace. They can only take
    from what the wall lets in; where NAT is not understood, the wall's verdict may be that of
    another port."""
    if (
        rules is None
        or answer.source in rules.own
        or answer.source.version != answer.address.version
    ):
        return answer
    fate = rules.fate(answer.source, answer.address, answer.proto.value, answer.port)
    if fate.verdict == "forwarded" and answer.verdict == answer.wall == "unknown":
        return answer  # it is a published port, and says so
    if fate.verdict == "forwarded" and fate.to.startswith(":") and answer.closed_when_redirected:
        reason = f"the wall refuses it by this port, wherever NAT sends it ({fate.words})"
        return replace(answer, verdict="closed", reason=reason)
    if fate.verdict == "forwarded":
        to = (
            f"port {fate.to[1:]} of this host"
            if fate.to.startswith(":")
            else fate.to or "this host"
        )
        reason = f"NAT sends it to {to} first: explain that port instead ({fate.words})"
        return replace(answer, verdict="unknown", reason=reason)
    if fate.verdict == "unknown" and (fate.kind == "nat" or answer.verdict != "closed"):
        reason = f"vllmwall does not understand a rule of another firewall: {fate.words}"
        return replace(answer, verdict="unknown", reason=reason)
    if fate.verdict in ("drop", "reject") and answer.verdict != "closed":
        reason = f"another firewall closes it: {fate.words}"
        return replace(answer, verdict="closed", reason=reason)
    if answer.reason == MAYBE_REDIRECTED:  # the daemon knows that there is NAT, but not its rules
        return replace(answer, verdict="closed", reason=_NOT_REDIRECTED)
    return answer


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


def _read(name: str, path: str, target: str) -> tuple[Firewalls, OtherRules]:
    try:
        own = own_addresses(path)
        chains, published, rules = run_in(
            path, lambda: (other_chains(), published_ports(), other_rules(own))
        )
    except OSError as error:
        why = f"{name}: other firewalls are unknown: {error}"
        return Firewalls(name, problems=(why,)), OtherRules(Ruleset(()), str(error))
    if not chains.found and not chains.problems:
        rules = replace(rules, problem="")  # nft is missing, and so are rules
    ports = (int(target),) if target.isdigit() else None
    taken = {*(one for one in published if ports is None or one.port in ports)}
    known = {(one.proto, one.port, one.to) for one in taken}
    more = (one for one in rules.published(ports) if (one.proto, one.port, one.to) not in known)
    problems = (*chains.problems, *((f"{_UNREAD}: {rules.problem}",) if rules.problem else ()))
    return Firewalls(
        name,
        tuple(
            Hook(name, one.table, one.name, one.hook, one.priority, one.policy)
            for one in chains.found
        ),
        tuple(sorted({*taken, *more})),
        tuple(f"{name}: {problem}" for problem in problems),
    ), rules
