"""Invariants for any input: arbitrary nodes, nasty names, shared ports, mapped addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from vllmwall.cidr import merged
from vllmwall.decide.walls import Decision, decide
from vllmwall.model import (
    PUBLIC,
    Label,
    LabelledListener,
    Listener,
    Network,
    Policy,
    Proto,
    Recognition,
    Role,
    Stack,
    WallEntry,
    Workload,
    WorkloadId,
)

Item = TypeVar("Item")

COMMON = st.sampled_from(["0.0.0.0", "10.0.0.1"]).map(ip_address)
RARE = st.sampled_from(
    [
        *("::", "10.0.0.2", "127.0.0.1", "::1", "fd00::1", "fe80::1%e", "255.255.255.255"),
        *("::ffff:0.0.0.0", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "ff02::1"),
    ]
).map(ip_address)
NASTY = st.text(max_size=80) | st.sampled_from(['"; flush ruleset #', "\n}", "\ud800", "'$(id)'"])
ROLES = st.just(Role.API) | st.just(Role.GLOO) | st.sampled_from(Role)
Place = tuple[int, Proto, int]
PLACES: st.SearchStrategy[Place] = st.tuples(
    st.sampled_from([1, 2]),
    st.just(Proto.TCP) | st.sampled_from(Proto),
    st.just(8000) | st.sampled_from([-1, 0, 22, 53, 65535, 65536]),
)


@st.composite
def recognitions(draw: st.DrawFn, place: st.SearchStrategy[Place] = PLACES) -> Recognition:
    """A node on which everything crowds into one or two ports, so that listeners collide."""
    places = st.sampled_from(draw(st.lists(place, min_size=1, max_size=2)))
    listeners = st.builds(
        lambda place, address, **more: Listener(*place, address, **more),
        places,
        COMMON | RARE | st.none(),
        path=NASTY,
        uid=st.integers(0, 3),
        v6only=st.booleans(),
        inode=st.integers(0, 3),
    )
    labelled = st.builds(LabelledListener, listeners, st.builds(Label, ROLES, st.floats(0, 1)))
    workloads = st.builds(
        Workload,
        id=st.builds(WorkloadId, st.integers(1, 9), st.integers(0, 2)),
        stack=st.sampled_from(Stack),
        name=NASTY,
        pids=st.just(frozenset({1})),
        listeners=st.lists(labelled, min_size=1, max_size=4).map(tuple),
    )
    return Recognition(
        tuple(draw(st.lists(workloads, max_size=2))), tuple(draw(st.lists(listeners, max_size=2)))
    )


RECOGNITIONS = recognitions()
ONE_PORT = recognitions(st.just((1, Proto.UDP, 8000)))
WIDE = ("10.0.0.0/8", "::ffff:10.0.0.0/104", "fd00::/8", "0.0.0.0/0")
NETWORKS = st.lists(
    st.one_of(
        st.ip_addresses(v=4, network="10.0.0.0/29").map(ip_network),
        st.ip_addresses(v=6).map(ip_network),
        st.sampled_from(list(map(ip_network, WIDE))),
    ),
    max_size=4,
).map(tuple)
NAMES = st.sampled_from(["public", "peers", "node", "ops", "dev", "gone"])
AUDIENCES = st.lists(NAMES, max_size=3).map(tuple)
APIS = st.just((PUBLIC,)) | AUDIENCES
INSIDE = st.lists(NAMES.filter(lambda name: name != PUBLIC), max_size=3).map(tuple)
GROUPS = st.dictionaries(st.sampled_from(["ops", "dev", "public", "node"]), NETWORKS)
FAILSAFE = st.frozensets(
    st.tuples(st.sampled_from([Proto.TCP, Proto.UDP]), st.sampled_from([22, 53]))
)
# Every role may be named, but only the API may be named public; the default may say anything.
POLICIES = st.builds(
    Policy,
    audiences=st.dictionaries(
        st.sampled_from([role for role in Role if role is not Role.API]), INSIDE
    ).flatmap(lambda named: APIS.map(lambda api: {**named, Role.API: api})),
    default=AUDIENCES,
    groups=GROUPS,
    failsafe=FAILSAFE,
)


def listeners_of(recognition: Recognition) -> Iterator[LabelledListener]:
    """Every listener of every workload."""
    return (each for workload in recognition.workloads for each in workload.listeners)


def families(one: Listener) -> list[int]:
    """The families whose packets reach a listener, told apart from how decide does it."""
    if one.address is None:
        return []
    if one.address.version == 4 or str(one.address).startswith("::ffff:"):
        return [4]
    return [4, 6] if str(one.address) == "::" and not one.v6only else [6]


def rules_met(decision: Decision, one: Listener) -> list[WallEntry | None]:
    """The rule that packets to ``one`` meet, by family, looked up as the ruleset does it.

    First the exact address, then any; a socket on loopback is met by its own alone.
    """
    wall = decision.walls.get(one.namespace)
    if wall is None:
        return []
    rules = {(rule.family, rule.proto, rule.port, str(rule.address)): rule for rule in wall.entries}
    address = str(one.plain_address).partition("%")[0]
    exact = [rules.get((family, one.proto, one.port, address)) for family in families(one)]
    if one.is_loopback:
        return exact
    anywhere = [rules.get((family, one.proto, one.port, "None")) for family in families(one)]
    return [first or second for first, second in zip(exact, anywhere, strict=True)]


@given(RECOGNITIONS, POLICIES, NETWORKS)
def test_only_an_api_is_ever_public(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...]
) -> None:
    """A listener that is not `api` is never public, whatever the input."""
    decision = decide(recognition, policy, peers)
    skipped = {each.listener for each in decision.skipped}
    for labelled in listeners_of(recognition):
        if labelled.label.role is not Role.API and labelled.listener not in skipped:
            for rule in rules_met(decision, labelled.listener):
                assert rule is not None
                assert PUBLIC not in rule.audience


@given(RECOGNITIONS, POLICIES, NETWORKS)
def test_a_public_rule_belongs_to_an_api(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...]
) -> None:
    """No rule opens a port on which nothing but internal listeners are."""
    apis = {
        (one.listener.namespace, one.listener.proto, one.listener.port)
        for one in listeners_of(recognition)
        if one.label.role is Role.API
    }
    for namespace, wall in decide(recognition, policy, peers).walls.items():
        for rule in wall.entries:
            if PUBLIC in rule.audience:
                assert rule.audience == (PUBLIC,)
                assert (namespace, rule.proto, rule.port) in apis


@given(RECOGNITIONS, POLICIES, NETWORKS)
def test_failsafe_ports_are_in_no_wall(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...]
) -> None:
    """No operator is locked out, whatever listens there."""
    for wall in decide(recognition, policy, peers).walls.values():
        assert policy.failsafe.isdisjoint((rule.proto, rule.port) for rule in wall.entries)


@given(RECOGNITIONS, POLICIES, NETWORKS)
def test_every_listener_has_a_rule_or_a_reason(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...]
) -> None:
    """Nothing of a workload is left open without status saying why."""
    decision = decide(recognition, policy, peers)
    reasons = {each.listener: each.reason for each in decision.skipped}
    for labelled in listeners_of(recognition):
        if labelled.listener not in reasons:
            met = rules_met(decision, labelled.listener)
            assert met
            assert None not in met
    assert reasons.keys() <= {labelled.listener for labelled in listeners_of(recognition)}
    assert all(reasons.values())


@given(ONE_PORT, POLICIES, NETWORKS)
def test_no_rule_reaches_another_users_ordinary_socket(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...]
) -> None:
    """Whose socket is behind a rule without being a workload's has a workload on that port."""
    decision = decide(recognition, policy, peers)
    owners = {
        (one.listener.namespace, one.listener.proto, one.listener.port, one.listener.uid)
        for one in listeners_of(recognition)
    }
    for other in recognition.unclaimed:
        if any(rule is not None for rule in rules_met(decision, other)):
            assert (other.namespace, other.proto, other.port, other.uid) in owners


@given(RECOGNITIONS, POLICIES, NETWORKS, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...], random: Random
) -> None:
    """The same node gives the same walls, in whatever order /proc told of it."""

    def shuffled(items: tuple[Item, ...]) -> tuple[Item, ...]:
        return tuple(random.sample(items, len(items)))

    other = Recognition(
        shuffled(
            tuple(replace(one, listeners=shuffled(one.listeners)) for one in recognition.workloads)
        ),
        shuffled(recognition.unclaimed),
    )
    assert decide(other, policy, shuffled(peers)) == decide(recognition, policy, peers)


@given(RECOGNITIONS, POLICIES, NETWORKS)
def test_an_entry_is_one_that_nftables_can_hold(
    recognition: Recognition, policy: Policy, peers: tuple[Network, ...]
) -> None:
    """One rule a key, plain notes, real ports, and networks for every name but the built-in."""
    for wall in decide(recognition, policy, peers).walls.values():
        keys = [(rule.family, rule.proto, rule.port, rule.address) for rule in wall.entries]
        assert len(keys) == len(set(keys))
        for rule in wall.entries:
            assert re.fullmatch(r"[A-Za-z0-9 ._:/-]{0,64}", rule.note)
            assert 1 <= rule.port <= 65535
            if rule.address is not None:
                assert rule.address.version == rule.family
            assert rule.audience == tuple(sorted(set(rule.audience))) != ()
            assert set(rule.audience) - {PUBLIC, "node"} <= wall.networks.keys()
        assert "peers" in wall.networks
        for networks in wall.networks.values():
            assert networks == merged(networks)
