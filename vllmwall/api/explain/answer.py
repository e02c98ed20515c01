"""The answer to `vllmwall explain`: the fate of one packet for each source and listener."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vllmwall.enforce.evaluator import Step
from vllmwall.model import Address, Evidence, Mode, Proto

EXPLAIN_VERSION = 1

ExplainVerdict = Literal["open", "closed", "depends", "unknown"]
WallVerdict = Literal["accept", "drop", "reject", "depends", "none", "unknown"]
_WORST: tuple[ExplainVerdict, ...] = ("closed", "unknown", "depends", "open")


@dataclass(frozen=True)
class Membership:
    """One reason why the source is in an audience, or ``banned``.

    ``kind``: static, file, dns, runtime, group, adopted or ban. ``where`` is ``file:line``, as far
    as it is known. ``expires`` is in seconds since the epoch; None: never.
    """

    audience: str
    kind: str
    name: str
    network: str
    where: str
    expires: float | None


@dataclass(frozen=True)
class ReachedSocket:
    """The listening socket that such a packet reaches, and its owner."""

    proto: Proto
    addr: str
    port: int
    inode: int
    pids: tuple[int, ...]
    command: str
    user: str
    cgroup: str


@dataclass(frozen=True)
class Purpose:
    """The role of a workload's listener, its audience, and what defines both."""

    workload: str
    stack: str
    root_pid: int
    role: str
    confidence: float
    evidence: tuple[Evidence, ...]
    audience: tuple[str, ...]
    audience_from: str
    no_rule: str


@dataclass(frozen=True)
class Answer:
    """The fate of one packet: a TCP SYN, or a first UDP datagram.

    ``wall`` is the verdict of our table; ``verdict`` is the result for the source: a port without
    a listener is closed, whatever the wall does. ``decided`` is the rule (or policy) that ended
    the evaluation, ``way`` are the rules that led there. With ``depends``, ``outcomes`` are the
    possible verdicts. ``closed_when_redirected``: by this port the wall refuses the packet also
    where NAT hands it to another port of this host.
    """

    verdict: ExplainVerdict
    wall: WallVerdict
    reason: str
    namespace: str
    mode: Mode
    proto: Proto
    source: Address
    source_is: tuple[Membership, ...]
    address: Address
    port: int
    decided: Step | None
    way: tuple[Step, ...]
    outcomes: tuple[str, ...]
    socket: ReachedSocket | None
    purpose: Purpose | None
    closed_when_redirected: bool = False


@dataclass(frozen=True)
class Hook:
    """A base chain of another program, for what comes in. ``priority`` None: iptables (legacy)."""

    namespace: str
    table: str
    chain: str
    hook: str
    priority: int | None
    policy: str


@dataclass(frozen=True)
class Explanation:
    """All answers. ``verdict`` is the worst of them: ``closed`` where one is closed.

    ``total`` is the number of answers; more than 256 are not shown. ``namespaces`` are those of
    all answers. ``daemon`` False: no daemon answered, so roles were recognized just now, and what
    only the daemon remembers is missing.
    """

    version: int
    host: str
    time: float
    daemon: bool
    verdict: ExplainVerdict
    total: int
    namespaces: tuple[str, ...]
    answers: tuple[Answer, ...]
    hooks: tuple[Hook, ...]
    problems: tuple[str, ...]


def worst(answers: Iterable[Answer]) -> ExplainVerdict:
    """The verdict on several answers."""
    found = {one.verdict for one in answers}
    return next((one for one in _WORST if one in found), "unknown")


def joined(parts: Sequence[Explanation]) -> Explanation:
    """The parts of one explanation as a whole."""
    answers = tuple(one for part in parts for one in part.answers)
    return replace(parts[0], verdict=worst(answers), answers=answers)
