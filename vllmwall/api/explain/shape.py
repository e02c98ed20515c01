"""The shape of `explain --json`."""

from __future__ import annotations

from typing import Literal

from vllmwall.api.shapes import EvidenceJson
from vllmwall.api.typed import TypedDict

EXPLAIN_VERSION = 1

ExplainVerdict = Literal["open", "closed", "depends", "unknown"]
WallVerdict = Literal["accept", "drop", "reject", "depends", "none", "unknown"]


class StepJson(TypedDict):
    """A rule on the packet's way. ``element`` is what matched in ``set``; empty: it looks up
    nothing. ``matched`` None: that depends on packets before this one."""

    chain: str
    rule: str
    set: str
    element: str
    matched: bool | None


class SourceJson(TypedDict):
    """One reason why the source is in an audience, or ``banned``. ``kind``: static, file, dns,
    runtime, group or ban. ``where`` is ``file:line``, as far as it is known; ``expires`` is in
    seconds since the epoch; None: it stays."""

    audience: str
    kind: str
    name: str
    network: str
    where: str
    expires: float | None


class SocketJson(TypedDict):
    """The listening socket that such a packet finds, and whose it is."""

    proto: str
    addr: str
    port: int
    inode: int
    pids: list[int]
    command: str
    user: str
    cgroup: str


class PurposeJson(TypedDict):
    """What a workload's listener is for, who may connect, and what says so."""

    workload: str
    stack: str
    root_pid: int
    role: str
    confidence: float
    evidence: list[EvidenceJson]
    audience: list[str]
    audience_from: str
    no_rule: str


class AnswerJson(TypedDict):
    """One packet's fate: a TCP SYN, or a first UDP datagram.

    ``wall`` is what our table does to it; ``verdict`` is what that means for whoever connects: a
    port at which nobody listens is closed, whatever the wall says. ``decided`` is the rule (or
    policy) that ended its way, ``way`` the rules that led there. With ``depends``, ``outcomes``
    are the verdicts that can follow.
    """

    verdict: ExplainVerdict
    wall: WallVerdict
    reason: str
    namespace: str
    mode: str
    proto: str
    source: str
    source_is: list[SourceJson]
    address: str
    port: int
    decided: StepJson | None
    way: list[StepJson]
    outcomes: list[str]
    socket: SocketJson | None
    purpose: PurposeJson | None


class HookJson(TypedDict):
    """A base chain of another program's table, which was not evaluated. ``priority`` None:
    iptables (legacy)."""

    namespace: str
    table: str
    chain: str
    hook: str
    priority: int | None
    policy: str


class ExplainJson(TypedDict):
    """The answer to `vllmwall explain`. ``verdict``: of all answers, ``closed`` where one is.
    ``total`` is how many answers there are; more than 256 are not shown.

    ``daemon`` False: no daemon answered, so roles were recognized just now, and what only the
    daemon remembers is missing.
    """

    version: int
    host: str
    time: float
    daemon: bool
    verdict: ExplainVerdict
    total: int
    answers: list[AnswerJson]
    hooks: list[HookJson]
    problems: list[str]
