"""Traversal of the chains by a packet: jumps, gotos, returns, policies, and forks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vllmwall.enforce.evaluator.packet import (
    Judgement,
    NotUnderstoodError,
    Packet,
    Step,
    Verdict,
)
from vllmwall.enforce.evaluator.rules import match
from vllmwall.enforce.evaluator.table import Chain, Table
from vllmwall.enforce.nftables.names import REDIRECTED
from vllmwall.enforce.nftables.objects import Meaning

_DEEPEST = 16  # NFT_JUMP_STACK_SIZE, include/net/netfilter/nf_tables.h
_FINAL = {one.value: one for one in (Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT)}


@dataclass(frozen=True)
class _At:
    """The next rule, and the places to return to when a chain ends."""

    base: Chain
    chain: Chain
    rule: int = 0
    back: tuple[tuple[Chain, int], ...] = ()

    def next(self) -> _At:
        return _At(self.base, self.chain, self.rule + 1, self.back)


def evaluate(table: Table, packet: Packet) -> Judgement:
    """The verdict of the table on the packet. Raises NotUnderstoodError, which names the place.

    Base chains take their turn as in the kernel: the next can drop what one accepts.
    """
    if table.dormant:
        return Judgement(Verdict.ACCEPT, (_inactive("flags dormant"),))
    trail: tuple[Step, ...] = ()
    last = table.base_chains[-1] if table.base_chains else None
    for base in table.base_chains:
        found = _walk(table, packet, _At(base, base), trail)
        if found.verdict is not Verdict.ACCEPT:
            return found
        trail = _without_policy(found.trail) if base is not last else found.trail
    return Judgement(Verdict.ACCEPT, trail or (_inactive("no base chain"),))


def refused_by_first_port(table: Table, packet: Packet) -> bool:
    """Whether the table refuses the packet also where NAT hands it to another port of this host,
    whichever that is. Raises NotUnderstoodError."""
    judging = {
        name: chain
        for name, chain in table.chains.items()
        if not chain.policy or name == REDIRECTED
    }
    first = packet.destination, packet.dport or 0
    found = evaluate(replace(table, chains=judging), replace(packet, first=first, socket=None))
    return found.verdict in (Verdict.DROP, Verdict.REJECT)


def _without_policy(trail: tuple[Step, ...]) -> tuple[Step, ...]:
    """Without the end of a chain that let the packet go on to the next one."""
    return trail[:-1] if trail[-1].meaning is Meaning.POLICY else trail


def _inactive(why: str) -> Step:
    return Step("table", why, True, meaning=Meaning.INACTIVE)


def _walk(table: Table, packet: Packet, at: _At, trail: tuple[Step, ...]) -> Judgement:
    while True:
        ended = _after_end(at)
        if isinstance(ended, Step):
            return Judgement(Verdict(ended.rule.removeprefix("policy ")), (*trail, ended))
        at = ended
        rule, meaning = at.chain.rules[at.rule]
        try:
            outcome = match(rule, packet, table)
        except NotUnderstoodError as error:
            raise _placed(error, at.chain, rule) from error
        found = outcome.set, outcome.element
        trail = (*trail, Step(at.chain.name, rule, outcome.matched, *found, meaning))
        if outcome.matched is None and outcome.verdict:
            return _fork(table, packet, at, trail, outcome.verdict)
        if not outcome.matched or not outcome.verdict:
            at = at.next()
        elif outcome.verdict in _FINAL:
            return Judgement(_FINAL[outcome.verdict], trail)
        else:
            at = _follow(table, at, outcome.verdict)


def _after_end(at: _At) -> _At | Step:
    """The next rule after chains that have ended; the policy where the base chain has."""
    while at.rule >= len(at.chain.rules):
        if not at.back:
            return Step(at.base.name, f"policy {at.base.policy}", True, meaning=Meaning.POLICY)
        chain, rule = at.back[-1]
        at = _At(at.base, chain, rule, at.back[:-1])
    return at


def _follow(table: Table, at: _At, verdict: str) -> _At:
    """The place that a jump, goto or return leads to."""
    word, _, target = verdict.partition(" ")
    if word == "return":
        return _At(at.base, at.chain, len(at.chain.rules), at.back)
    if word not in ("jump", "goto") or target not in table.chains:
        raise NotUnderstoodError(f"chain {at.chain.name}", verdict)
    back = (*at.back, (at.chain, at.rule + 1)) if word == "jump" else at.back
    if len(back) > _DEEPEST:
        raise NotUnderstoodError(f"chain {at.chain.name}", f"{verdict}: too deep")
    return _At(at.base, table.chains[target], 0, back)


def _fork(
    table: Table, packet: Packet, at: _At, trail: tuple[Step, ...], verdict: str
) -> Judgement:
    """The judgement on both branches. Where they agree, it does not depend on earlier packets."""
    passing = _walk(table, packet, at.next(), trail)
    if verdict in _FINAL:
        stopped = Judgement(_FINAL[verdict], trail)
    else:
        stopped = _walk(table, packet, _follow(table, at, verdict), trail)
    if passing.verdict is stopped.verdict and passing.verdict is not Verdict.DEPENDS:
        return passing
    return Judgement(Verdict.DEPENDS, trail, (stopped, passing))


def _placed(error: NotUnderstoodError, chain: Chain, rule: str) -> NotUnderstoodError:
    """The error with the chain and the whole rule, unless it names a set of its own."""
    if error.where != "rule":
        return NotUnderstoodError(f"chain {chain.name}: {rule}: {error.where}", error.text)
    return NotUnderstoodError(f"chain {chain.name}: {rule}", error.text)
