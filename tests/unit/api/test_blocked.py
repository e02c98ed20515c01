"""The answer to `vllmwall blocked`, and what it suggests."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.answers import Json, as_json
from vllmwall.api.blocked import BlockedFacts, blocked_of, is_private
from vllmwall.cidr import NetworkSet
from vllmwall.enforce.backend import Counters, Refusal
from vllmwall.engine.refusals import Ledger, Purpose
from vllmwall.model import Address, Mode, Proto

NCCL = Purpose("nccl", "tiny", ("peers",))


def answer(
    source: str = "10.0.0.9",
    *,
    packets: int = 3,
    purpose: Purpose = NCCL,
    peers: str = "10.1.0.0/24",
    mode: Mode = Mode.ENFORCE,
    total: int | None = None,
    remembered: int = 1,
) -> Json:
    """One source in one namespace."""
    ledger = Ledger(50.0)
    refusal = Refusal(ip_address(source), Proto.TCP, 29500, packets, 60 * packets, 7.0)
    ledger.take((1, mode), Counters(total or packets, 999, (refusal,)), 100.0, lambda _: purpose)
    facts = BlockedFacts(
        now=100.0,
        down=False,
        ledger=ledger,
        names={1: "host"},
        modes={1: mode},
        errors={},
        remembered={(1, ip_address(source).version): remembered},
        room=4096,
        peers=NetworkSet([ip_network(peers)]),
    )
    return as_json(blocked_of(facts))


@pytest.mark.parametrize(
    "source", ["10.0.0.9", "172.31.255.1", "192.168.7.7", "169.254.3.3", "fd12::9", "fe80::1"]
)
def test_a_private_source_gets_the_command_that_lets_it_in(source: str) -> None:
    """RFC 1918, ULA and link-local."""
    (one,) = answer(source)["sources"]
    length = 128 if ":" in source else 32
    assert f"vllmwall peers add {source}/{length} --save" == one["command"]
    assert "this looks like a forgotten peer" == one["hint"]


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"source": "203.0.113.5"}, ""),
        ({"source": "172.32.0.1"}, ""),
        ({"source": "2001:db8::5"}, ""),
        ({"packets": 2}, ""),
        ({"purpose": Purpose()}, ""),
        ({"purpose": replace(NCCL, role="api")}, ""),
        ({"purpose": replace(NCCL, audience=("monitoring",))}, ""),
        ({"peers": "10.0.0.0/24"}, "it is a peer now"),
        (
            {"peers": "10.0.0.0/24", "purpose": replace(NCCL, audience=("monitoring",))},
            "it is a peer, but only monitoring may connect",
        ),
    ],
)
def test_nothing_is_suggested_that_would_not_help(changed: dict[str, str], hint: str) -> None:
    """Not for the public, once, an unknown port, the api, a group's port, or a peer."""
    (one,) = answer(**changed)["sources"]  # type: ignore[arg-type]
    assert ("", hint) == (one["command"], one["hint"])


def test_documentation_addresses_are_not_private() -> None:
    """Python says they are."""
    assert not is_private(ip_address("192.0.2.1"))
    assert ip_address("192.0.2.1").is_private


def test_packets_without_a_source_are_told() -> None:
    """The counter of all knows more than the memory."""
    assert 7 == answer(packets=3, total=10)["namespaces"][0]["unnamed_packets"]


def test_a_full_memory_is_told() -> None:
    """Then the sums are lower bounds."""
    assert answer(remembered=4096)["namespaces"][0]["full"]
    assert not answer(remembered=4095)["namespaces"][0]["full"]


def test_times_are_those_of_packets() -> None:
    """Seven seconds ago."""
    (one,) = answer()["sources"]
    assert (93.0, 93.0) == (one["since"], one["last"])


def test_audit_is_told_from_enforce() -> None:
    """In every row and in every namespace."""
    made = answer(mode=Mode.AUDIT)
    assert ("audit", "audit") == (made["sources"][0]["mode"], made["namespaces"][0]["mode"])


@given(st.sets(st.ip_addresses(), max_size=20), st.sets(st.ip_addresses(), max_size=20))
def test_networks_hold_what_their_networks_hold(seen: set[Address], bases: set[Address]) -> None:
    """As asking each of them; both families, every size."""
    networks = [
        ip_network((int(base), number % (base.max_prefixlen + 1)), strict=False)
        if base.version == 4 or int(base) >> 32
        else ip_network(base)
        for number, base in enumerate(bases)
    ]
    for one in seen | bases:
        wanted = any(one.version == each.version and one in each for each in networks)
        assert wanted == (one in NetworkSet(networks))


def test_the_answer_is_bounded_and_says_what_it_leaves_out() -> None:
    """The busiest, or the newest, and never more than asked for."""
    ledger = Ledger(0.0)
    refusals = tuple(
        Refusal(ip_address("10.0.0.9"), Proto.TCP, port, port, 60, float(port))
        for port in range(1, 11)
    )
    ledger.take((1, Mode.ENFORCE), Counters(55, 600, refusals), 100.0, lambda _: NCCL)
    facts = BlockedFacts(
        100.0, False, ledger, {1: "host"}, {1: Mode.ENFORCE}, {}, {}, 4096, NetworkSet([])
    )
    busiest, newest = as_json(blocked_of(facts, 3)), as_json(blocked_of(facts, 3, newest=True))
    assert [10, 9, 8] == [one["port"] for one in busiest["sources"]]
    assert [1, 2, 3] == [one["port"] for one in newest["sources"]]
    assert (7, 7) == (busiest["more"], newest["more"])
    assert 0 == blocked_of(facts).more
    assert 0 == busiest["namespaces"][0]["unnamed_packets"], "they are named, if not shown"
