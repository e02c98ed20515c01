"""The reason that explain gives, for every way that a packet can take through the wall.

The tables are those of real walls, evaluated as in the kernel; so each reason is that of a rule.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import cast

import pytest

from vllmwall.api.explain.reasons import WallFacts, judged
from vllmwall.api.explain.targets import Probe, Target
from vllmwall.enforce.evaluator import Packet, Socket, Step, evaluate, read_table
from vllmwall.enforce.nftables import ruleset
from vllmwall.model import Guard, Limits, Listener, Mode, Proto, Wall, WallEntry
from vllmwall.observe.other_firewalls import PublishedPort

NODE, PEER, STRANGER = (f"192.0.2.{n}" for n in (1, 2, 99))
MONITOR, BANNED = "198.51.100.7", "203.0.113.66"
GUARDED, OTHER = Socket({1: 4711}), Socket({1: 1})
API, INTERNAL, FREE, SSH = 8000, 29500, 7000, 22

DEFAULT = Wall(
    7,
    frozenset(
        {
            WallEntry(4, Proto.TCP, API, ("public",)),
            WallEntry(4, Proto.TCP, INTERNAL, ("peers",)),
        }
    ),
    {"peers": (ip_network(f"{PEER}/32"),)},
    guards=frozenset({Guard(1, 4711)}),
    failsafe=frozenset({SSH}),
    answering=True,
    banned=(ip_network(f"{BANNED}/32"),),
)
"""As the default configuration makes it: every audience includes the peers."""

NARROW = replace(
    DEFAULT,
    entries=DEFAULT.entries
    | {WallEntry(4, Proto.TCP, 5000, ("node",)), WallEntry(4, Proto.TCP, 9090, ("monitoring",))},
    networks={**DEFAULT.networks, "monitoring": (ip_network("198.51.100.0/24"),)},
)
"""With audiences that do not include the peers."""

LOCKED = replace(DEFAULT, lockdown=True, opened=frozenset({(Proto.TCP, 9000)}))
LIMITED = replace(
    DEFAULT,
    entries=frozenset({WallEntry(4, Proto.TCP, API, ("public",), limited=True)}),
    limits=Limits(10, 20, None),
)
TRUSTED = f"the source is a trusted peer: {PEER}/32"
PUBLIC = "everyone may connect: its audience is public"


def case(
    wall: Wall, source: str, port: int, socket: Socket | None = OTHER, *, text: str = ""
) -> tuple[Probe, WallFacts]:
    """One packet to a listener at that port; no socket: no listener. ``text``: the table."""
    cgroups = {guard: str(guard.id) for guard in wall.guards}
    table = read_table(text or ruleset.table(wall, cgroups).listing())
    packet = Packet(
        ip_address(source),
        ip_address(NODE),
        "tcp",
        port,
        0,
        interface="lo" if source == NODE else "",
        socket=socket,
    )
    found = evaluate(table, packet)
    audience = next((one.audience for one in wall.entries if one.port == port), None)
    listener = Listener(7, Proto.TCP, port, ip_address("0.0.0.0")) if socket else None
    probe = Probe("host", Target(7, Proto.TCP, port, listener), packet)
    return probe, WallFacts(found.verdict.value, found.way, audience=audience)


_DECIDED = [
    (DEFAULT, PEER, INTERNAL, OTHER, "open", TRUSTED),
    (DEFAULT, PEER, INTERNAL, GUARDED, "open", TRUSTED),
    (DEFAULT, PEER, API, OTHER, "open", TRUSTED),
    (DEFAULT, STRANGER, INTERNAL, OTHER, "closed", "the source is not in its audience: peers"),
    (DEFAULT, STRANGER, API, OTHER, "open", PUBLIC),
    (DEFAULT, STRANGER, API, GUARDED, "open", PUBLIC),
    (DEFAULT, STRANGER, FREE, OTHER, "open", "the wall has no rule for this port"),
    (
        DEFAULT,
        STRANGER,
        SSH,
        OTHER,
        "open",
        "it is a failsafe port, which the wall never closes",
    ),
    (
        DEFAULT,
        STRANGER,
        FREE,
        GUARDED,
        "closed",
        "its cgroup is guarded, and the source is not in the audience of the guard",
    ),
    (
        NARROW,
        PEER,
        FREE,
        GUARDED,
        "open",
        f"the source is in the audience of the guard of its cgroup: {PEER}/32",
    ),
    (
        DEFAULT,
        STRANGER,
        FREE,
        None,
        "closed",
        "no socket listens there, and the wall answers with a reset",
    ),
    (DEFAULT, BANNED, API, OTHER, "closed", "the source is banned"),
    (DEFAULT, BANNED, INTERNAL, OTHER, "closed", "the source is banned"),
    (DEFAULT, BANNED, SSH, OTHER, "open", "it is a failsafe port, which the wall never closes"),
    (DEFAULT, NODE, INTERNAL, OTHER, "open", "the packet comes from this host itself, over lo"),
    (
        NARROW,
        PEER,
        INTERNAL,
        OTHER,
        "open",
        f"the source is in its audience, peers: {PEER}/32",
    ),
    (
        NARROW,
        MONITOR,
        9090,
        OTHER,
        "open",
        "the source is in its audience, monitoring: 198.51.100.0/24",
    ),
    (NARROW, PEER, 9090, OTHER, "closed", "the source is not in its audience: monitoring"),
    (NARROW, PEER, 5000, OTHER, "closed", "the source is not in its audience: this host"),
    (
        LOCKED,
        STRANGER,
        FREE,
        OTHER,
        "closed",
        "host.lockdown closes every port that nothing opens",
    ),
    (LOCKED, STRANGER, 9000, OTHER, "open", "host.open leaves this port open"),
    (
        LOCKED,
        STRANGER,
        SSH,
        OTHER,
        "open",
        "it is a failsafe port, which the wall never closes",
    ),
    (LOCKED, STRANGER, API, OTHER, "open", PUBLIC),
    (LOCKED, PEER, INTERNAL, OTHER, "open", f"the source is in its audience, peers: {PEER}/32"),
    (
        LIMITED,
        STRANGER,
        API,
        OTHER,
        "depends",
        "a limit decides, by the recent connections of this source",
    ),
    (LIMITED, PEER, API, OTHER, "open", TRUSTED),
    (
        replace(DEFAULT, mode=Mode.AUDIT),
        STRANGER,
        INTERNAL,
        OTHER,
        "open",
        "audit mode only counts what enforce mode would refuse: "
        "the source is not in its audience: peers",
    ),
    (
        replace(DEFAULT, mode=Mode.AUDIT),
        BANNED,
        API,
        OTHER,
        "open",
        "audit mode only counts what enforce mode would refuse: the source is banned",
    ),
]


@pytest.mark.parametrize("row", _DECIDED)
def test_the_reason_is_that_of_the_rule_that_decides(
    row: tuple[Wall, str, int, Socket | None, str, str],
) -> None:
    """Peers, strangers, bans, guards, failsafe ports, lockdown, limits, audit mode, this host."""
    wall, source, port, socket, verdict, reason = row
    assert (verdict, reason) == judged(*case(wall, source, port, socket))


def test_a_closed_port_without_a_listener_says_so() -> None:
    """Where the wall answers nothing itself; the packet would pass."""
    wall = replace(DEFAULT, answering=False)
    reason = "no socket listens at tcp port 7000 in host; the wall would accept the packet"
    assert ("closed", reason) == judged(*case(wall, STRANGER, FREE, None))


@pytest.mark.parametrize(
    ("rule", "verdict", "reason"),
    [
        ("tcp dport 7000 drop", "closed", "a rule of another program refuses it: input: {}"),
        ("tcp dport 7000 accept", "open", "a rule of another program accepts it: input: {}"),
    ],
)
def test_a_rule_that_is_not_ours_is_named(rule: str, verdict: str, reason: str) -> None:
    """Another program added it to our table; the rest keeps its meaning."""
    first = '\t\tiif "lo" accept\n'
    text = ruleset.table(DEFAULT).listing().replace(first, f"{first}\t\t{rule}\n")
    assert (verdict, reason.format(rule)) == judged(*case(DEFAULT, STRANGER, FREE, text=text))
    assert ("open", TRUSTED) == judged(*case(DEFAULT, PEER, INTERNAL, text=text))


def test_a_policy_that_is_not_ours_is_named() -> None:
    """Our base chain accepts what no rule matches."""
    base = "filter - 10; policy "
    text = ruleset.table(DEFAULT).listing().replace(f"{base}accept", f"{base}drop")
    reason = "a policy of another program drops it: input: policy drop"
    assert ("closed", reason) == judged(*case(DEFAULT, STRANGER, FREE, text=text))


def test_a_dormant_table_is_named() -> None:
    """It is there, and the kernel applies none of its rules."""
    text = ruleset.table(DEFAULT).listing().replace("{\n", "{\n\tflags dormant\n", 1)
    reason = "the table of the wall is inactive: flags dormant"
    assert ("open", reason) == judged(*case(DEFAULT, STRANGER, INTERNAL, text=text))


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        (
            {"listener": Listener(1, Proto.TCP, INTERNAL, ip_address("127.0.0.1"))},
            "closed",
            "it is bound to loopback, where the kernel takes no packet of another host",
        ),
        (
            {"source": ip_address("2001:db8::9"), "wall": WallFacts("unknown")},
            "closed",
            "it listens at tcp 0.0.0.0:29500: not for IPv6",
        ),
        (
            {"wall": WallFacts("unknown", why="chain input: odd rule")},
            "unknown",
            "the wall cannot be evaluated: chain input: odd rule",
        ),
        ({"wall": WallFacts("none")}, "open", "no wall is active in host"),
        (
            {"published": PublishedPort("tcp", INTERNAL, "172.17.0.2:8000", "Docker")},
            "unknown",
            "Docker forwards it to 172.17.0.2:8000: explain that port instead",
        ),
        (
            {"wall": WallFacts("depends", (Step("limited", "r", None),)), "listener": None},
            "closed",
            "no socket listens at tcp port 29500 in host",
        ),
    ],
)
def test_facts_beside_the_wall_decide_too(
    change: dict[str, object], verdict: str, reason: str
) -> None:
    """The socket's address and family, a wall that is missing or unreadable, NAT."""
    probe, wall = case(DEFAULT, STRANGER, INTERNAL)
    target = replace(probe.target, listener=change.get("listener", probe.target.listener))
    packet = replace(probe.packet, source=change.get("source", probe.packet.source))
    found = change.get("wall", wall)
    assert isinstance(found, WallFacts)
    published = cast("PublishedPort | None", change.get("published"))
    assert (verdict, reason) == judged(Probe("host", target, packet), found, published)
