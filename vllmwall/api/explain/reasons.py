"""The verdict on one packet for the source that sends it, and the reason in one line. Pure.

Our wall is one of several firewalls that a packet meets. So "open" means that the wall accepts
and a socket listens; what other tables do to it comes later (`vllmwall.api.explain.firewalls`).
"""

from __future__ import annotations

from dataclasses import dataclass

from vllmwall.api.explain.answer import ExplainVerdict, WallVerdict
from vllmwall.api.explain.targets import Probe
from vllmwall.decide.adopted import shown
from vllmwall.enforce.evaluator import Meaning, Step
from vllmwall.model import NODE, PUBLIC
from vllmwall.observe.other_firewalls import PublishedPort

_ACCEPTED = {
    Meaning.LOOPBACK: "the packet comes from this host itself, over lo",
    Meaning.FAILSAFE: "it is a failsafe port, which the wall never closes",
    Meaning.OPENED: "host.open leaves this port open",
    Meaning.ESTABLISHED: "the packet answers a connection of this host",
    Meaning.NETWORK: "the wall accepts what the network itself needs",
}
_REFUSED = {
    Meaning.BANNED: "the source is banned",
    Meaning.ABSENT: "no socket listens there, and the wall answers with a reset",
    Meaning.LIMIT: "the source is over a limit",
    Meaning.UNREADABLE: "the packet has no transport header that nft can read",
    Meaning.GUARD: "its cgroup is guarded, and the source is not in the audience of the guard",
    Meaning.LOCKDOWN: "host.lockdown closes every port that nothing opens",
}
_ON_LOOPBACK = "it is bound to loopback, where the kernel takes no packet of another host"
MAYBE_REDIRECTED = (
    "no socket listens there, but NAT may hand the packet to another port: explain that one instead"
)
_LEADING = (Meaning.NONE, Meaning.REFUSED)


@dataclass(frozen=True)
class WallFacts:
    """The verdict of our table: ``none`` where there is no table; ``unknown`` where such a packet
    cannot exist, or where ``why`` names what could not be read or understood.

    ``audience`` is that of the wall's entry for the port; None: it has none. ``redirected``: NAT
    may change the port of a packet there; ``closed_when_redirected``: such a packet is refused.
    """

    verdict: WallVerdict
    way: tuple[Step, ...] = ()
    outcomes: tuple[str, ...] = ()
    why: str = ""
    audience: tuple[str, ...] | None = None
    redirected: bool = False
    closed_when_redirected: bool = False

    @property
    def decided(self) -> Step | None:
        """The rule or policy that ended the evaluation."""
        return self.way[-1] if self.way else None


def judged(
    probe: Probe, wall: WallFacts, published: PublishedPort | None = None
) -> tuple[ExplainVerdict, str]:
    """Open or closed for this source, and why. ``published``: NAT forwards the port before the
    wall sees the packet."""
    listener = probe.target.listener
    if published is not None:
        to = published.to
        return "unknown", f"{published.by} forwards it to {to}: explain that port instead"
    if listener is not None and listener.is_loopback and not _is_delivered(probe):
        return "closed", _ON_LOOPBACK
    if listener is not None and not probe.exists:
        return "closed", f"it listens at {listener.where}: not for IPv{probe.packet.family}"
    if wall.verdict in ("drop", "reject"):
        return "closed", _refused(wall)
    if listener is None and wall.redirected and probe.packet.interface != "lo":
        return "unknown", MAYBE_REDIRECTED
    if listener is None:
        return "closed", _not_listening(probe, wall)
    if wall.verdict == "unknown":
        return "unknown", f"the wall cannot be evaluated: {wall.why}"
    if wall.verdict == "depends":
        return "depends", "a limit decides, by the recent connections of this source"
    if wall.verdict == "none":
        return "open", f"no wall is active in {probe.namespace}"
    return "open", _accepted(wall)


def _is_delivered(probe: Probe) -> bool:
    """Whether the kernel lets the packet reach an address on loopback. ::1 has no such switch."""
    return probe.packet.interface == "lo" or (probe.localnet and probe.packet.family == 4)


def _accepted(wall: WallFacts) -> str:
    last = wall.decided
    if last is None or last.meaning is Meaning.POLICY:
        return _without_rule(wall)
    if last.meaning is Meaning.REFUSED:
        return f"audit mode only counts what enforce mode would refuse: {_refused(wall)}"
    if last.meaning is Meaning.TRUSTED:
        return f"the source is a trusted peer: {last.element}"
    if last.meaning is Meaning.AUDIENCE:
        return _in_audience(wall, last)
    if last.meaning is Meaning.INACTIVE:
        return f"the table of the wall is inactive: {last.rule}"
    return _ACCEPTED.get(last.meaning, f"a rule of another program accepts it: {_place(last)}")


def _without_rule(wall: WallFacts) -> str:
    if wall.audience is None:
        return "the wall has no rule for this port"
    if wall.audience == (PUBLIC,):
        return "everyone may connect: its audience is public"
    return f"no rule of the wall refuses it, though its audience is {_named(wall.audience)}"


def _in_audience(wall: WallFacts, last: Step) -> str:
    if wall.audience == (PUBLIC,):
        return "everyone may connect: its audience is public"
    if wall.audience is None:
        return f"the source is in the audience of the guard of its cgroup: {last.element}"
    return f"the source is in its audience, {_named(wall.audience)}: {last.element}"


def _refused(wall: WallFacts) -> str:
    last = wall.decided
    if last is not None and last.meaning is Meaning.POLICY:
        return f"a policy of another program drops it: {_place(last)}"
    if last is not None and last.meaning is Meaning.NONE:
        return f"a rule of another program refuses it: {_place(last)}"
    meanings = [step.meaning for step in wall.way if step.meaning not in _LEADING]
    cause = meanings[-1] if meanings else Meaning.NONE
    if cause in _REFUSED:
        return _REFUSED[cause]
    audience = f": {_named(wall.audience)}" if wall.audience else ""
    return f"the source is not in its audience{audience}"


def _not_listening(probe: Probe, wall: WallFacts) -> str:
    port = f"{probe.target.proto.value} port {probe.target.port}"
    where = f"no socket listens at {port} in {probe.namespace}"
    return f"{where}; the wall would accept the packet" if wall.verdict == "accept" else where


def _named(audience: tuple[str, ...]) -> str:
    return " or ".join("this host" if name == NODE else name for name in shown(audience))


def _place(step: Step) -> str:
    return f"{step.chain}: {step.rule}"
