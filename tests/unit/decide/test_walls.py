"""The audience of each listener: one rule of the product a test."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, ip_address

import pytest

from tests.unit.decide.decide_nodes import (
    DEFAULT,
    HERE,
    PEER_NETWORKS,
    listener,
    networks,
    node,
    of_role,
    workload,
)
from vllmwall.decide.walls import (
    FAILSAFE,
    NOWHERE,
    SHARED,
    UNIX,
    Decision,
    Skipped,
    decide,
)
from vllmwall.model import Guard, Listener, Mode, Policy, Proto, Role, Wall, WallEntry


def entries(decision: Decision, namespace: int = HERE) -> frozenset[WallEntry]:
    """The entries of one wall; none where there is no wall."""
    wall = decision.walls.get(namespace)
    return wall.entries if wall else frozenset()


def audiences(decision: Decision) -> dict[tuple[int, int, str], tuple[str, ...]]:
    """Audience by family, port and address."""
    return {
        (entry.family, entry.port, str(entry.address or "*")): entry.audience
        for entry in entries(decision)
    }


def test_the_api_is_public_and_the_rest_is_for_peers() -> None:
    """The default of the product, in one wall."""
    found = decide(
        node(
            workload(
                of_role(Role.API, listener("0.0.0.0", 8000)),
                of_role(Role.TCPSTORE, listener("10.0.0.1", 29500)),
            )
        ),
        DEFAULT,
        PEER_NETWORKS,
    )
    assert found == Decision(
        {
            HERE: Wall(
                HERE,
                frozenset(
                    {
                        WallEntry(4, Proto.TCP, 8000, ("public",), None, "api vllm"),
                        WallEntry(
                            *(4, Proto.TCP, 29500, ("peers",), ip_address("10.0.0.1")),
                            "tcpstore vllm",
                        ),
                    }
                ),
                {"peers": PEER_NETWORKS},
                Mode.ENFORCE,
                failsafe=frozenset({22}),
            )
        },
        (),
    )


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.API])
def test_no_other_role_is_public_by_default(role: Role) -> None:
    """Recognized or not, what is not the API is for peers."""
    found = decide(node(workload(of_role(role, listener("0.0.0.0")))), DEFAULT, ())
    assert audiences(found) == {(4, 8000, "*"): ("peers",)}


def test_a_role_that_the_policy_names_can_be_public() -> None:
    """The operator may open metrics on purpose."""
    policy = Policy({Role.API: ("public",), Role.METRICS: ("public",)})
    found = decide(node(workload(of_role(Role.METRICS, listener("0.0.0.0")))), policy, ())
    assert audiences(found) == {(4, 8000, "*"): ("public",)}


@pytest.mark.parametrize(
    ("default", "expected"),
    [(("public",), ("peers",)), (("node", "public"), ("node",))],
)
def test_a_default_opens_nothing(default: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """The configuration refuses such a default; so does decide."""
    found = decide(
        node(workload(of_role(Role.GLOO, listener("0.0.0.0")))), Policy({}, default=default), ()
    )
    assert audiences(found) == {(4, 8000, "*"): expected}


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (("peers", "ops", "peers"), ("ops", "peers")),
        (("ops", "public"), ("public",)),
        (("gone",), ("node",)),
        (("gone", "peers"), ("peers",)),
        ((), ("node",)),
    ],
)
def test_an_audience_is_written_in_one_way(
    audience: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """Sorted, public alone, and a name that means nothing lets nobody in."""
    policy = Policy({Role.API: audience}, groups={"ops": networks("10.9.0.0/24")})
    found = decide(node(workload(of_role(Role.API, listener("0.0.0.0")))), policy, ())
    assert audiences(found) == {(4, 8000, "*"): expected}


@pytest.mark.parametrize(
    ("address", "v6only", "expected"),
    [
        ("0.0.0.0", False, {(4, "*")}),
        ("::", False, {(4, "*"), (6, "*")}),
        ("::", True, {(6, "*")}),
        ("::ffff:0.0.0.0", False, {(4, "*")}),
        ("::ffff:10.0.0.1", False, {(4, "10.0.0.1")}),
        ("10.0.0.1", False, {(4, "10.0.0.1")}),
        ("fd00::1", False, {(6, "fd00::1")}),
        ("fe80::1%eth0", False, {(6, "fe80::1")}),
    ],
)
def test_an_address_means_the_packets_that_reach_it(
    address: str, v6only: bool, expected: set[tuple[int, str]]
) -> None:
    """Dual-stack, IPv6 only, IPv4-mapped, one address, and an address with a zone."""
    one = of_role(Role.API, listener(address, v6only=v6only))
    found = decide(node(workload(one)), DEFAULT, ())
    assert {(family, where) for family, _, where in audiences(found)} == expected


def test_a_zone_is_no_part_of_an_entry() -> None:
    """nft knows no fe80::1%eth0."""
    one = of_role(Role.API, listener("fe80::1%eth0"))
    (entry,) = entries(decide(node(workload(one)), DEFAULT, ()))
    assert isinstance(entry.address, IPv6Address)
    assert entry.address.scope_id is None


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (Listener(HERE, Proto.UNIX, 0, path="/run/x.sock"), UNIX),
        (listener("0.0.0.0", 22), FAILSAFE),
        (listener("0.0.0.0", 0), NOWHERE),
        (listener("0.0.0.0", 65536), NOWHERE),
        (Listener(HERE, Proto.TCP, 8000), NOWHERE),
    ],
)
def test_what_needs_no_rule_is_skipped_with_its_reason(one: Listener, reason: str) -> None:
    """Status shows why a listener has none."""
    found = decide(node(workload(of_role(Role.GLOO, one))), DEFAULT, ())
    assert found == Decision({}, (Skipped(one, reason),))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("role", [Role.API, Role.GLOO])
def test_a_listener_on_loopback_is_for_this_host(address: str, role: Role) -> None:
    """Whatever its role: with route_localnet or NAT packets of others arrive there."""
    found = decide(node(workload(of_role(role, listener(address)))), DEFAULT, ())
    (entry,) = entries(found)
    assert (entry.audience, entry.address) == (("node",), listener(address).plain_address)
    assert () == found.skipped


def test_failsafe_is_per_protocol() -> None:
    """tcp/22 says nothing about udp/22."""
    found = decide(
        node(workload(of_role(Role.GLOO, listener("0.0.0.0", 22, Proto.UDP)))), DEFAULT, ()
    )
    assert audiences(found) == {(4, 22, "*"): ("peers",)}


def test_a_single_address_beside_a_wildcard_has_its_own_entry() -> None:
    """The kernel gives the packet to the exact address, and the wall looks there first."""
    found = decide(
        node(
            workload(
                of_role(Role.API, listener("0.0.0.0")),
                of_role(Role.GLOO, listener("10.0.0.1")),
            )
        ),
        DEFAULT,
        (),
    )
    assert audiences(found) == {(4, 8000, "*"): ("public",), (4, 8000, "10.0.0.1"): ("peers",)}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("public",), ("peers",), ("peers",)),
        (("peers",), ("node",), ("node",)),
        (("peers",), ("ops",), ("ops",)),
        (("ops", "peers"), ("peers",), ("peers",)),
        (("ops",), ("dev",), ("dev",)),
        (("six",), ("ops",), ("six",)),
        (("public",), ("public",), ("public",)),
    ],
)
def test_the_strictest_of_a_shared_socket_wins(
    first: tuple[str, ...], second: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """SO_REUSEPORT: a client that gets in reaches both, so the stricter audience decides.

    `six` holds IPv6 networks only: of IPv4, where the port is, it lets nobody in.
    """
    policy = Policy(
        {Role.API: first, Role.METRICS: second},
        groups={
            "ops": networks("10.9.0.0/30"),
            "dev": networks("10.8.0.0/30"),
            "six": networks("fd00::/8"),
        },
    )
    for order in ((Role.API, Role.METRICS), (Role.METRICS, Role.API)):
        shared = [of_role(role, listener("0.0.0.0")) for role in order]
        found = decide(node(workload(*shared)), policy, PEER_NETWORKS)
        assert audiences(found) == {(4, 8000, "*"): expected}


def test_width_is_counted_once_where_networks_overlap() -> None:
    """The same addresses written twice are no wider."""
    policy = Policy(
        {Role.API: ("twice",), Role.METRICS: ("wide",)},
        groups={
            "twice": networks("10.9.0.0/25", "10.9.0.0/25", "10.9.0.0/26"),
            "wide": networks("10.8.0.0/25", "10.8.1.0/32"),
        },
    )
    shared = [of_role(role, listener("0.0.0.0")) for role in (Role.API, Role.METRICS)]
    assert audiences(decide(node(workload(*shared)), policy, ())) == {(4, 8000, "*"): ("twice",)}


def test_workloads_of_two_users_on_one_port_get_the_stricter_rule() -> None:
    """UDP allows it; the laxer rule would open one of them."""
    mine = of_role(Role.API, listener("0.0.0.0", proto=Proto.UDP, uid=1000))
    his = of_role(Role.GLOO, listener("0.0.0.0", proto=Proto.UDP, uid=1001))
    found = decide(node(workload(mine), workload(his, pid=200)), DEFAULT, ())
    assert audiences(found) == {(4, 8000, "*"): ("peers",)}


STRANGER = 2000


@pytest.mark.parametrize(
    ("ours", "theirs", "shared"),
    [
        (listener("0.0.0.0"), listener("0.0.0.0", uid=STRANGER), True),
        (listener("10.0.0.1"), listener("10.0.0.1", uid=STRANGER), True),
        (listener("0.0.0.0"), listener("10.0.0.1", uid=STRANGER), True),
        (listener("0.0.0.0"), listener("::ffff:10.0.0.1", uid=STRANGER), True),
        (listener("0.0.0.0"), listener("::", uid=STRANGER), True),
        (listener("10.0.0.1"), listener("0.0.0.0", uid=STRANGER), False),
        (listener("10.0.0.1"), listener("10.0.0.2", uid=STRANGER), False),
        (listener("0.0.0.0"), listener("::", uid=STRANGER, v6only=True), False),
        (listener("0.0.0.0"), listener("127.0.0.1", uid=STRANGER), False),
        (listener("0.0.0.0"), listener("0.0.0.0", 8001, uid=STRANGER), False),
        (listener("0.0.0.0"), listener("0.0.0.0", proto=Proto.UDP, uid=STRANGER), False),
        (listener("0.0.0.0"), listener("0.0.0.0", uid=STRANGER, namespace=7), False),
        (listener("0.0.0.0"), listener("0.0.0.0", uid=1000), False),
        (listener("0.0.0.0"), Listener(HERE, Proto.TCP, 8000, uid=STRANGER), False),
    ],
)
def test_no_rule_hits_the_socket_of_another_user(
    ours: Listener, theirs: Listener, shared: bool
) -> None:
    """Where a rule would reach an ordinary socket of somebody else, there is none."""
    found = decide(node(workload(of_role(Role.GLOO, ours)), unclaimed=(theirs,)), DEFAULT, ())
    if shared:
        assert found == Decision({}, (Skipped(ours, SHARED),))
    else:
        assert len(entries(found)) == 1
        assert found.skipped == ()


def test_a_dual_stack_listener_keeps_the_family_that_is_its_own() -> None:
    """Sharing IPv4 with another user opens IPv4 only."""
    ours = listener("::", proto=Proto.UDP)
    theirs = listener("0.0.0.0", proto=Proto.UDP, uid=STRANGER)
    found = decide(node(workload(of_role(Role.GLOO, ours)), unclaimed=(theirs,)), DEFAULT, ())
    assert audiences(found) == {(6, 8000, "*"): ("peers",)}
    assert found.skipped == (Skipped(ours, SHARED),)


def test_every_namespace_with_an_entry_has_a_wall_of_its_own() -> None:
    """And one without entries has none."""
    found = decide(
        node(
            workload(
                of_role(Role.API, listener("0.0.0.0", namespace=1)),
                of_role(Role.GLOO, listener("0.0.0.0", namespace=2)),
                of_role(Role.GLOO, listener("127.0.0.1", namespace=3)),
                of_role(Role.GLOO, listener("0.0.0.0", 22, namespace=4)),
            )
        ),
        DEFAULT,
        (),
    )
    assert sorted(found.walls) == [1, 2, 3]
    assert {wall.namespace: len(wall.entries) for wall in found.walls.values()} == {
        1: 1,
        2: 1,
        3: 1,
    }


def test_a_wall_holds_the_networks_that_its_entries_name() -> None:
    """Merged; the peers always; no other group; public and node are no networks."""
    policy = Policy(
        {Role.API: ("ops", "node"), Role.METRICS: ("public",)},
        groups={
            "ops": networks("10.9.0.128/25", "10.9.0.0/25"),
            "unused": networks("10.7.0.0/24"),
            "node": networks("10.6.0.0/24"),
            "public": networks("10.5.0.0/24"),
        },
    )
    found = decide(
        node(
            workload(
                of_role(Role.API, listener("0.0.0.0")),
                of_role(Role.METRICS, listener("0.0.0.0", 9000)),
            )
        ),
        policy,
        networks("10.0.1.0/24", "fd00::/64", "10.0.0.0/24", "::ffff:10.1.0.0/120"),
    )
    assert found.walls[HERE].networks == {
        "ops": networks("10.9.0.0/24"),
        "peers": networks("10.0.0.0/23", "10.1.0.0/24", "fd00::/64"),
    }


def test_the_mode_goes_into_the_wall() -> None:
    """audit is a property of the wall."""
    found = decide(
        node(workload(of_role(Role.API, listener("0.0.0.0")))),
        replace(DEFAULT, mode=Mode.AUDIT),
        (),
    )
    assert found.walls[HERE].mode is Mode.AUDIT


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("meta/llama-3.1:8b_x", "api meta/llama-3.1:8b_x"),
        ('x" } ; flush ruleset', "api x_ _ _ flush ruleset"),
        ("a\nb\0c\x1b[31m", "api a_b_c__31m"),
        ("größe", "api gr__e"),
        ("", "api"),
        ("x" * 99, "api " + "x" * 60),
        ("x" * 59 + "  yz", "api " + "x" * 59),
    ],
)
def test_a_note_is_text_that_nft_cannot_misread(name: str, note: str) -> None:
    """Users choose names; a comment in a ruleset must not become a rule."""
    one = of_role(Role.API, listener("0.0.0.0"))
    (entry,) = entries(decide(node(workload(one, name=name)), DEFAULT, ()))
    assert entry.note == note


def test_a_listener_that_two_workloads_show_is_decided_once() -> None:
    """Nothing is listed twice."""
    one = of_role(Role.GLOO, listener("0.0.0.0", 22))
    found = decide(node(workload(one), workload(one, pid=200)), DEFAULT, ())
    assert found.skipped == (Skipped(one.listener, FAILSAFE),)


def test_no_resets_are_sent_where_packets_go_to_no_local_socket() -> None:
    """IPVS takes them there: what finds no socket is a client of a service. Resets are for guards
    that are enforced."""
    guards = {inode: frozenset({Guard(2, 1, "/a/b")}) for inode in (HERE, HERE + 1)}
    found = decide(node(), DEFAULT, PEER_NETWORKS, guards, silent={HERE}).walls
    assert {HERE: False, HERE + 1: True} == {inode: one.answering for inode, one in found.items()}
    audited = decide(node(), replace(DEFAULT, mode=Mode.AUDIT), PEER_NETWORKS, guards).walls
    assert {False} == {one.answering for one in audited.values()}
    assert not decide(node(), DEFAULT, PEER_NETWORKS, {HERE: frozenset()}).walls[HERE].answering
