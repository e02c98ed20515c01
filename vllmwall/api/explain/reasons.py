"""The answer to `vllmwall explain`: facts in, JSON out, and the line that says why. Pure.

Our wall is one of several things a packet meets. So "open" is said only where the wall accepts
and somebody listens, and other tables are named beside it, never judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vllmwall.api.explain.shape import (
    EXPLAIN_VERSION,
    AnswerJson,
    ExplainJson,
    ExplainVerdict,
    PurposeJson,
    SocketJson,
    SourceJson,
    StepJson,
    WallVerdict,
)
from vllmwall.model import PUBLIC, Address, LabelledListener, Listener, Mode, Proto, Workload

_WORST: tuple[ExplainVerdict, ...] = ("closed", "unknown", "depends", "open")


@dataclass(frozen=True)
class WallFacts:
    """What our table does to the packet: ``none`` where there is no table, ``unknown`` where there
    is no such packet, or with what was not understood or could not be read in ``why``."""

    verdict: WallVerdict
    way: tuple[StepJson, ...] = ()
    outcomes: tuple[str, ...] = ()
    why: str = ""

    @property
    def decided(self) -> StepJson | None:
        """The rule or policy that ended the way."""
        return self.way[-1] if self.way else None


@dataclass(frozen=True)
class OwnerFacts:
    """Whose a socket is: of a process, and of a workload where it belongs to one."""

    command: str = ""
    user: str = ""
    cgroup: str = ""
    workload: Workload | None = None
    labelled: LabelledListener | None = None
    audience: tuple[str, ...] = ()
    audience_from: str = ""
    no_rule: str = ""


@dataclass(frozen=True)
class AnswerFacts:
    """One packet's fate. ``here``: the source is this host itself."""

    namespace: str
    mode: Mode
    proto: Proto
    source: Address
    source_is: tuple[SourceJson, ...]
    destination: Address
    port: int
    wall: WallFacts
    listener: Listener | None
    owner: OwnerFacts
    here: bool = False


def explain_json(
    host: str,
    now: float,
    answers: Iterable[AnswerFacts],
    total: int,
    problems: Collection[str],
) -> ExplainJson:
    """The whole, without the hooks of other tables, which whoever asks adds. ``total``: how many
    answers there are, of which these are some."""
    listed = [answer_json(one) for one in answers]
    return {
        "version": EXPLAIN_VERSION,
        "host": host,
        "time": now,
        "daemon": True,
        "verdict": worst(one["verdict"] for one in listed),
        "total": total,
        "answers": listed,
        "hooks": [],
        "problems": list(problems),
    }


def worst(verdicts: Iterable[ExplainVerdict]) -> ExplainVerdict:
    """The verdict on several answers."""
    found = set(verdicts)
    return next((one for one in _WORST if one in found), "unknown")


def answer_json(facts: AnswerFacts) -> AnswerJson:
    """One packet's fate in the published shape."""
    verdict, reason = judged(facts)
    return {
        "verdict": verdict,
        "wall": facts.wall.verdict,
        "reason": reason,
        "namespace": facts.namespace,
        "mode": facts.mode.value,
        "proto": facts.proto.value,
        "source": str(facts.source),
        "source_is": list(facts.source_is),
        "address": str(facts.destination),
        "port": facts.port,
        "decided": facts.wall.decided,
        "way": list(facts.wall.way),
        "outcomes": list(facts.wall.outcomes),
        "socket": _socket_json(facts.listener, facts.owner) if facts.listener else None,
        "purpose": _purpose_json(facts.owner),
    }


def judged(facts: AnswerFacts) -> tuple[ExplainVerdict, str]:
    """Open or closed for whoever connects, and why, in one line."""
    if facts.listener is not None and facts.listener.is_loopback and not facts.here:
        return "closed", "it is bound to loopback: no packet from another host reaches it"
    if facts.listener is not None and facts.source.version != facts.destination.version:
        return "closed", f"it listens at {facts.listener.where}: not for IPv{facts.source.version}"
    if facts.wall.verdict in ("drop", "reject"):
        return "closed", _why_refused(facts)
    if facts.listener is None:
        return "closed", _nobody_listens(facts)
    if facts.wall.verdict == "unknown":
        return "unknown", f"the wall cannot be judged: {facts.wall.why}"
    if facts.wall.verdict == "depends":
        return "depends", "a limit decides: on how often this source came just before"
    if facts.wall.verdict == "none":
        return "open", f"no wall stands in {facts.namespace}"
    return "open", _why_let_in(facts)


def _why_let_in(facts: AnswerFacts) -> str:
    if facts.here:
        return "it comes from this host itself, over lo"
    if facts.mode is Mode.AUDIT and _met(facts, "strangers"):
        return "audit mode: the wall would refuse it, and only counts"
    if network := _found_in(facts):
        return f"the wall lets it in: {network}"
    if any(step["set"] in ("any4", "any6", "addr4", "addr6") for step in facts.wall.way):
        return "the wall lets everyone in there"
    if facts.owner.audience == (PUBLIC,):
        return "its audience is everyone, so the wall has no rule for this port"
    if _met(facts, "guarded") and facts.wall.decided and facts.wall.decided["chain"] == "guarded":
        return "a failsafe port: no guard closes it"
    return "the wall has no rule for this port"


def _why_refused(facts: AnswerFacts) -> str:
    if facts.wall.verdict == "reject":
        return "nobody listens there, and the wall says so itself (a reset)"
    if _met(facts, "banned"):
        return "the source is banned"
    if any(step["set"].startswith("guarded_") for step in facts.wall.way):
        return "its cgroup is guarded, and the source is not in the guard's audience"
    if _met(facts, "lockdown"):
        return "host.lockdown closes every port that nothing opens"
    audience = " or ".join(facts.owner.audience)
    return f"the source is not in its audience{f': {audience}' if audience else ''}"


def _nobody_listens(facts: AnswerFacts) -> str:
    where = f"{facts.proto.value} port {facts.port}"
    return f"nobody listens at {where} in {facts.namespace}; the wall would let the packet through"


def _met(facts: AnswerFacts, chain: str) -> bool:
    return any(step["chain"] == chain for step in facts.wall.way)


def _found_in(facts: AnswerFacts) -> str:
    """The set of networks in which the source was found."""
    step = facts.wall.decided
    if step is None or not step["chain"].startswith(("only_", "limited")) or not step["element"]:
        return ""
    return f"{step['element']} in {step['set']}"


def _socket_json(listener: Listener, owner: OwnerFacts) -> SocketJson:
    return {
        "proto": listener.proto.value,
        "addr": listener.address_text,
        "port": listener.port,
        "inode": listener.inode,
        "pids": list(listener.pids),
        "command": owner.command,
        "user": owner.user,
        "cgroup": owner.cgroup,
    }


def _purpose_json(owner: OwnerFacts) -> PurposeJson | None:
    if owner.workload is None or owner.labelled is None:
        return None
    label = owner.labelled.label
    return {
        "workload": owner.workload.name,
        "stack": owner.workload.stack.value,
        "root_pid": owner.workload.id.root_pid,
        "role": label.role.value,
        "confidence": label.confidence,
        "evidence": [{"kind": one.kind, "detail": one.detail} for one in label.evidence],
        "audience": list(owner.audience),
        "audience_from": owner.audience_from,
        "no_rule": owner.no_rule,
    }
