"""Chains at the ingress hooks of devices, whose rules are evaluated: probes do not pass them.

A probe comes in by a device of our own.
"""

from __future__ import annotations

from dataclasses import replace

from vllmwall.enforce.evaluator.foreign import Ruleset
from vllmwall.enforce.evaluator.foreign_rules import Arrival
from vllmwall.inspect.prove.verdicts import ProbeOutcome, ProbeResult
from vllmwall.observe.other_firewalls import other_chains
from vllmwall.observe.other_rules import OtherRules, other_rules

_SOURCE_PORT = 40000  # any that clients use
_NONE = OtherRules(Ruleset(()))


def ingress_rules() -> OtherRules:
    """Those in this thread's network namespace."""
    if not any(one.hook == "ingress" for one in other_chains().found):
        return _NONE
    found = other_rules(())
    bases = tuple(one for one in found.ruleset.bases if one.hook == "ingress")
    return replace(found, ruleset=Ruleset(bases))


def at_the_device(result: ProbeResult, rules: OtherRules) -> ProbeResult:
    """The result of a probe that was answered, for the same packet from outside."""
    probe = result.probe
    if result.seen != "open" or result.outcome is not ProbeOutcome.AS_EXPECTED:
        return result
    to = probe.target
    packet = Arrival(
        probe.source.address, to.address, to.proto.value, to.port, _SOURCE_PORT, interface=""
    )
    fate = rules.ruleset.fate(packet)
    if fate.verdict == "accept" and not rules.problem:
        return result
    if fate.verdict in ("drop", "reject"):
        by = f"by another firewall: {fate.words}"
        return replace(result, seen="closed", by=by, outcome=ProbeOutcome.DIFFERENT)
    why = fate.words if fate.rule else rules.problem
    by = f"a chain at a device was not evaluated: {why}"
    return replace(result, by=by, outcome=ProbeOutcome.UNPROVEN)
