"""The rules of other firewalls at the ports of workloads: what they close, and what NAT takes.

They are evaluated for packets that the wall lets in: of a stranger to an API, and of a peer to an
internal port. Only in this network namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from vllmwall.api.status_answer import ListenerStatus, Status
from vllmwall.cidr import Network
from vllmwall.enforce.evaluator.foreign import Fate
from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok, warn
from vllmwall.linux.netns import OWN, inode_of
from vllmwall.model import PEERS, PUBLIC, Address
from vllmwall.observe.addresses import own_addresses
from vllmwall.observe.other_firewalls import other_chains
from vllmwall.observe.other_rules import OtherRules, other_rules

_PROVE = "`vllmwall prove` sends real packets to test it."
_STRANGERS = {4: ip_address("203.0.113.9"), 6: ip_address("2001:db8:bad::9")}
_MOST_PORTS = 64  # of each kind
_NOTRACK = "notrack"


def rules_of_others(status: Status | None) -> Iterator[Diagnosis]:
    """A line for each port that they close, or may close. ``status`` None: no ports are known."""
    if not other_chains().found:
        return
    rules = other_rules(own_addresses(OWN))
    if rules.problem:
        yield warn("rules of other firewalls", f"they cannot be read: {rules.problem}", _PROVE)
        return
    yield from _untracked(rules, is_locked=status is not None and status.orders.lockdown)
    if status is not None:
        yield from _closed(rules, status)


def _closed(rules: OtherRules, status: Status) -> Iterator[Diagnosis]:
    here = inode_of(OWN)
    there = [
        one
        for workload in status.workloads
        for one in workload.listeners
        if one.namespace == here and one.proto in ("tcp", "udp") and one.rule == "active"
    ]
    public = [one for one in there if PUBLIC in one.audience]
    inner = [one for one in there if PEERS in one.audience and PUBLIC not in one.audience]
    yield from _at("another firewall at API port", "a stranger", public, rules, _STRANGERS)
    yield from _at(
        "another firewall at internal port", "a peer", inner, rules, _peers(status.peers.networks)
    )


def _at(
    subject: str,
    who: str,
    listeners: list[ListenerStatus],
    rules: OtherRules,
    sources: dict[int, Address],
) -> Iterator[Diagnosis]:
    found: dict[tuple[int, str, str], None] = {}
    for one in listeners[:_MOST_PORTS]:
        for to in _reached(one, rules.own):
            if to.version in sources:
                fate = rules.fate(sources[to.version], to, one.proto, one.port)
                if words := _words(fate, who):
                    found.setdefault((one.port, words, _remedy(fate)))
    for port, words, remedy in found:
        yield warn(f"{subject} {port}", words, remedy)


def _words(fate: Fate, who: str) -> str:
    if fate.verdict in ("drop", "reject"):
        return f"another firewall closes it to {who}: {fate.words}"
    if fate.verdict == "forwarded":
        return f"NAT sends the packets of {who} to {fate.to or 'this host'}: {fate.words}"
    if fate.verdict == "unknown":
        return f"a rule of another firewall is not understood: {fate.words}"
    return ""


def _remedy(fate: Fate) -> str:
    if fate.verdict in ("drop", "reject"):
        return f"Accept the port in that chain, before this rule. {_PROVE}"
    return _PROVE


def _reached(one: ListenerStatus, own: tuple[Address, ...]) -> Iterator[Address]:
    """One address of each family that such a packet goes to."""
    bound = ip_address(one.addr)
    if not bound.is_unspecified:
        yield bound
        return
    outside = [each for each in own if not each.is_loopback and not each.is_link_local]
    for version in (4, 6) if bound.version == 6 else (4,):
        yield from [each for each in outside if each.version == version][:1]


def _peers(networks: tuple[Network, ...]) -> dict[int, Address]:
    """One address of each family, of the first network."""
    found: dict[int, Address] = {}
    for network in networks:
        found.setdefault(
            network.version, network.network_address + min(1, network.num_addresses - 1)
        )
    return found


def _untracked(rules: OtherRules, *, is_locked: bool) -> Iterator[Diagnosis]:
    """Rules that take packets out of connection tracking: lockdown knows answers by it."""
    for place, rule in rules.ruleset.mentioning(_NOTRACK):
        seen = f"{place}: {rule}"
        if is_locked:
            remedy = f"Remove the rule: answers of peers are dropped, too. {_PROVE}"
            yield fail("lockdown", f"it drops UDP answers that are not tracked: {seen}", remedy)
        else:
            yield ok("untracked packets", f"{seen}; lockdown would drop such UDP answers")
