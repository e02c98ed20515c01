"""Addresses to networks: nobody is left out, hardly anybody is invented."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from vllmwall.api.blocked import is_private
from vllmwall.cidr import NetworkSet, merged
from vllmwall.inspect.learn.grouping import FEWEST, exactly, sensibly
from vllmwall.model import Address

FOUR, SIX = int(IPv4Address("10.255.255.200")), int(IPv6Address("fd00::fff0"))
near: st.SearchStrategy[Address] = st.one_of(
    st.integers(FOUR, FOUR + 100).map(IPv4Address),  # 10.255.255.255 and 11.0.0.0 among them
    st.integers(SIX, SIX + 40).map(IPv6Address),
)
anywhere: st.SearchStrategy[Address] = st.one_of(near, st.ip_addresses(v=4), st.ip_addresses(v=6))
# As packets carry them: ``::ffff:a.b.c.d`` comes as IPv4.
some = st.sets(anywhere, max_size=40).map(
    lambda found: {one for one in found if not getattr(one, "ipv4_mapped", None)}
)
few = settings(max_examples=60, deadline=None)


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


@few
@given(some, some)
def test_the_rules_hold_for_any_addresses(seen: set[Address], out: set[Address]) -> None:
    """Each rule of the module's docstring, and never everyone."""
    out -= seen
    networks = sensibly(seen, out)
    assert all(one in NetworkSet(networks) for one in seen)
    assert not any(one in NetworkSet(networks) for one in out)
    assert networks == merged(networks)
    for network in networks:
        inside = sum(1 for one in seen if one in NetworkSet([network]))
        assert network.prefixlen > 0
        assert 2 * inside >= network.num_addresses
        if inside < network.num_addresses:
            assert inside >= FEWEST
            assert is_private(network[0])
            assert is_private(network[-1])


@few
@given(some)
def test_exactly_is_exact(seen: set[Address]) -> None:
    """As many addresses as were seen."""
    networks = exactly(seen)
    assert len(seen) == sum(one.num_addresses for one in networks)
    assert all(one in NetworkSet(networks) for one in seen)


@few
@given(some, some)
def test_it_is_never_longer_than_the_exact_list(seen: set[Address], out: set[Address]) -> None:
    """Or nobody would want it."""
    assert len(sensibly(seen, out - seen)) <= len(exactly(seen))


def test_half_of_a_rack_is_the_rack() -> None:
    """Two of two are exact; one of two, or two of four, are too few to tell a network."""
    four = addresses("10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.13")
    assert (ip_network("10.0.0.8/29"),) == sensibly(four, [])
    assert 2 == len(sensibly(addresses("10.0.0.8", "10.0.0.11"), []))
    assert (ip_network("10.0.0.8/32"),) == sensibly(addresses("10.0.0.8"), [])


def test_one_that_shall_stay_out_splits_the_network() -> None:
    """Its half is listed one by one."""
    three = addresses("10.0.0.4", "10.0.0.5", "10.0.0.6")
    assert (ip_network("10.0.0.4/30"),) == sensibly(three, [])
    split = (ip_network("10.0.0.4/31"), ip_network("10.0.0.6/32"))
    assert split == sensibly(three, addresses("10.0.0.7"))


def test_the_neighbour_of_a_public_address_is_a_stranger() -> None:
    """Documentation networks count as public too: they are nobody's own."""
    three = addresses("198.51.100.4", "198.51.100.5", "198.51.100.6")
    assert 2 == len(sensibly(three, []))
