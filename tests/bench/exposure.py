"""Exposure: connections of an untrusted host that a workload accepts while it opens ports.

The untrusted host connects to a port as fast as it can (hammer.c) before, while and after the
workload listens on it. Each listen uses a new port, so no earlier rule can help. The result is the
number of connections that the workload's accept() returned. A port stays open until no connection
arrived for a while, so the hammer finds any gap, and a poller has the time it needs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.programs import Conversation, built
from tests.bench.rivals import RIVALS, NotRunError, Rival
from tests.bench.rows import Goal, Row, percentile
from tests.bench.stage import Stage, next_port, own_cgroup
from tests.support.guarded import PATIENCE
from tests.support.lab import Host

PART = "exposure"
_ASK_EVERY = 0.01
_WARM_UP = 3  # listens that are not counted
_GIVE_UP = 8  # listens in a row that nothing closed: more would add no information
_NOTHING = "nothing at all"


@dataclass(frozen=True)
class Patience:
    """How long a port stays open: until no connection came for ``quiet`` seconds, but no longer
    than ``longest``."""

    quiet: float
    longest: float


_BEHIND_A_WALL = Patience(0.04, 2.5)
_BESIDE_A_POLLER = Patience(0.15, 10)
_OPEN = Patience(0.15, 1.5)


@dataclass(frozen=True)
class Target:
    """A workload under the hammer, and its name in the table."""

    name: str
    host: Host
    rank: Conversation
    patience: Patience


@dataclass(frozen=True)
class Listen:
    """The result of one listen.

    ``at_the_door``: attempts that met the open port. ``milliseconds``: from listen() to the last
    connection. ``ended``: connections had ended before the port was closed.
    """

    attempts: int
    at_the_door: int
    accepted: int
    milliseconds: float
    ended: bool


def measure(stage: Stage) -> Iterator[Row]:
    """Guard, reaction only, each rival, and nothing at all; compared with the first rival."""
    others = {rival.name: _against(stage, rival) for rival in RIVALS}
    others[_NOTHING] = list(_bare(stage))
    first = RIVALS[0].name
    found, note = _guarded(stage)
    yield from rows("guard", found, others[first], first, goal=Goal("≤", 0), note=note)
    yield from rows("no guard, reaction only", _reacting(stage), others[first], first)
    for name, listens in others.items():
        if isinstance(listens, str):
            yield Row(PART, name, None, "", note=f"not run: {listens}")
        else:
            yield from rows(name, listens)


def rows(
    name: str,
    listens: list[Listen],
    baseline: list[Listen] | str = "",
    beside: str = "",
    *,
    goal: Goal | None = None,
    note: str = "",
) -> Iterator[Row]:
    """Connections per listen, and the time until the last one."""
    attempts, met = sum(one.attempts for one in listens), sum(one.at_the_door for one in listens)
    notes = [f"{sum(one.accepted for one in listens):,} of {attempts:,} attempts"]
    notes += [f"{met:,} at the open port", f"{len(listens)} listens"]
    endless = sum(not one.ended for one in listens)
    notes += [f"{endless} NEVER CLOSED"] if endless else []
    notes += [note] if note else []
    compared = baseline if isinstance(baseline, list) else []
    yield Row(
        PART,
        f"{name}: accepted",
        _accepted(listens),
        "connections/listen",
        beside if compared else "",
        _accepted(compared) if compared else None,
        goal=goal,
        note=", ".join(notes),
    )
    yield Row(
        PART,
        f"{name}: open for, p50",
        _open_for(listens),
        "ms",
        beside if compared else "",
        _open_for(compared) if compared else None,
        note=f"longest {max(one.milliseconds for one in listens):,.1f} ms",
    )


def _accepted(listens: list[Listen]) -> float:
    return sum(one.accepted for one in listens) / len(listens)


def _open_for(listens: list[Listen]) -> float:
    return percentile([one.milliseconds for one in listens], 50)


def _guarded(stage: Stage) -> tuple[list[Listen], str]:
    with stage.daemon(), own_cgroup() as cgroup, stage.rank(cgroup=cgroup) as rank:
        note = "" if _guard_is_active(stage.lab.node, cgroup) else "NO ACTIVE GUARD"
        return _hammered(stage, "guard", rank), note


def _guard_is_active(host: Host, cgroup: Path) -> bool:
    """Whether the kernel lists a guard of the cgroup's depth in time."""
    listing = ["nft", "list", "set", "inet", "vllmwall", "guarded_1"]
    deadline = time.monotonic() + PATIENCE / 3
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            if "elements" in host.run(listing).stdout:
                return True
        time.sleep(0.05)
    return False


def _reacting(stage: Stage) -> list[Listen]:
    with stage.daemon(), stage.rank() as rank:
        return _hammered(stage, "reaction only", rank)


def _bare(stage: Stage) -> list[Listen]:
    count = stage.scale.poller_listens
    with stage.rank() as rank:
        target = Target(_NOTHING, stage.lab.node, rank, _OPEN)
        return list(_listens(stage, target, count))


def _against(stage: Stage, rival: Rival) -> list[Listen] | str:
    """The results of a rival's listens, or the reason why it does not run here."""
    stage.progress(f"{PART}: {rival.name} starts")
    count = stage.scale.poller_listens
    try:
        with rival.on_duty(stage) as host, stage.rank(host) as rank:
            target = Target(rival.name, host, rank, _BESIDE_A_POLLER)
            return list(_listens(stage, target, count))
    except NotRunError as error:
        return str(error)


def _hammered(stage: Stage, name: str, rank: Conversation) -> list[Listen]:
    target = Target(name, stage.lab.node, rank, _BEHIND_A_WALL)
    return list(_listens(stage, target, stage.scale.listens + _WARM_UP))[_WARM_UP:]


def _listens(stage: Stage, target: Target, count: int) -> Iterator[Listen]:
    endless = 0
    with Conversation(stage.lab.stranger, [str(built("hammer"))]) as hammer:
        for number in range(count):
            stage.progress(f"{PART}: {target.name}, listen {number + 1} of {count}")
            one = _listen_once(hammer, target)
            yield one
            endless = 0 if one.ended else endless + 1
            if endless == _GIVE_UP:
                return


def _listen_once(hammer: Conversation, target: Target) -> Listen:
    port, rank = next_port(), target.rank
    assert "on" == hammer.ask(f"{target.host.ipv4} {port}")
    begun = last = int(rank.ask(f"open {port}"))
    quiet, end = int(target.patience.quiet * 1e9), begun + int(target.patience.longest * 1e9)
    while time.monotonic_ns() < min(end, last + quiet):
        time.sleep(_ASK_EVERY)
        last = max(begun, int(rank.ask("tell").split()[1]))
    attempts, refused, *_ = (int(word) for word in hammer.ask("").split())
    accepted, latest = (int(word) for word in rank.ask("close").split())
    milliseconds = max(0, latest - begun) / 1e6
    return Listen(attempts, attempts - refused, accepted, milliseconds, last + quiet < end)
