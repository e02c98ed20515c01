"""What `vllmwall learn` makes of what it saw."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Literal

import pytest

from vllmwall.api.blocked import Blocked, BlockedNamespace, BlockedSource
from vllmwall.api.connections import Client, Connections
from vllmwall.api.learn import LearnFacts
from vllmwall.config.toml import loads
from vllmwall.inspect.learn.proposal import LearnedSource, Proposal, Watching
from vllmwall.model import Mode, Proto

Kind = Literal["enforce", "audit"]


def client(address: str, role: str = "nccl", audience: str = "peers", **more: object) -> Client:
    """A client with one connection."""
    made = Client(
        client=address,
        client_ports=(40000,),
        namespace="host",
        addr="::",
        port=29500,
        role=role,
        workload="tiny",
        stack="torch",
        audience=(audience,),
        state="established",
        connections=1,
        bytes_received=0,
        bytes_sent=0,
        here=False,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def refused(address: str, mode: Kind, role: str = "nccl", audience: str = "peers") -> BlockedSource:
    """Five packets."""
    return BlockedSource(
        source=address,
        name="",
        namespace="host",
        mode=Mode(mode),
        proto=Proto.TCP,
        port=29500,
        role=role,
        workload="tiny",
        audience=(audience,),
        packets=5,
        bytes=300,
        since=0.0,
        last=0.0,
        hint="",
        command="",
    )


def facts(
    *clients: Client,
    knocks: tuple[BlockedSource, ...] = (),
    mode: Kind = "audit",
    peers: tuple[str, ...] = (),
    conf_d: str = "/etc/vllmwall/conf.d",
) -> LearnFacts:
    """One look."""
    space = BlockedNamespace(1, "host", Mode(mode), 0, 0, 0, full=False, error=None)
    return LearnFacts(
        connections=Connections(
            time=0.0, complete=True, workloads=("tiny",), clients=clients, problems=()
        ),
        blocked=Blocked(
            time=0.0, since=0.0, down=False, namespaces=(space,), sources=knocks, more=0
        ),
        peers=tuple(map(ip_network, peers)),
        conf_d=conf_d,
    )


def learned(*looks: LearnFacts, old: str = "", text: str = "") -> Proposal:
    """The proposal after these looks."""
    watching = Watching()
    for look in looks:
        watching.take(look)
    networks = [ip_network(old)] if old else []
    return watching.answer(networks, text, "/etc/learned.toml", 60.0, exact=False)


def of(answer: Proposal, address: str) -> LearnedSource:
    (found,) = (one for one in answer.sources if one.address == address)
    return found


def proposed(answer: Proposal) -> list[str]:
    return [one.network for one in answer.networks]


def test_an_address_of_this_node_is_never_proposed() -> None:
    """Nor a network around it: all clients behind the node's NAT have it."""
    seen = facts(*(client(f"10.0.0.{number}") for number in (1, 2, 3, 4, 5, 6)))
    look = replace(seen, own=(ip_address("10.0.0.1"), ip_address("10.0.0.7")))
    answer = learned(look)
    assert "left out" == of(answer, "10.0.0.1").decision
    networks = [ip_network(one) for one in proposed(answer)]
    assert not [one for one in look.own if any(one in network for network in networks)]
    assert ip_address("10.0.0.6") in networks[-1]


def test_who_was_connected_to_an_internal_port_is_proposed() -> None:
    """With what it was for."""
    answer = learned(facts(client("10.0.0.2"), client("fd00::2", role="gloo")))
    assert ["10.0.0.2/32", "fd00::2/128"] == proposed(answer)
    assert (("gloo",), ("tiny",), 1) == (
        of(answer, "fd00::2").roles,
        of(answer, "fd00::2").workloads,
        of(answer, "fd00::2").connections,
    )


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (client("10.0.0.2", "api", "public"), "no internal port"),
        (client("10.0.0.2", "api", "peers"), "no internal port"),
        (client("10.0.0.2", "metrics", "public"), "no internal port"),
        (client("10.0.0.2", "metrics", "monitoring"), "only monitoring may connect"),
    ],
)
def test_who_needs_no_entry_gets_none(use: Client, why: str) -> None:
    """The api's clients above all, however few may use it; and an entry that would not help."""
    answer = learned(facts(use))
    assert [] == proposed(answer)
    assert ("", "") == (answer.text, answer.diff)
    assert why in of(answer, "10.0.0.2").why


def test_the_api_and_a_port_beside_it_make_a_peer() -> None:
    """Only the api counts for nothing; both count."""
    assert ["10.0.0.2/32"] == proposed(
        learned(facts(client("10.0.0.2", "api", "public")), facts(client("10.0.0.2")))
    )


def test_this_host_and_known_peers_are_not_proposed() -> None:
    """They are let in."""
    answer = learned(
        facts(client("10.0.0.1", here=True), client("10.0.0.2"), peers=("10.0.0.2/31",))
    )
    assert [] == proposed(answer)
    assert "peer" == of(answer, "10.0.0.2").decision
    assert ["10.0.0.2"] == [one.address for one in answer.sources]


def test_who_was_refused_in_earnest_is_not_let_in_by_asking_often() -> None:
    """In audit mode the same packets are the traffic of a peer that nobody named."""
    for mode, networks in (("enforce", []), ("audit", ["10.0.0.2/32"])):
        knocks = (refused("10.0.0.2", mode),)  # type: ignore[arg-type]
        assert networks == proposed(learned(facts(knocks=knocks, mode=mode)))  # type: ignore[arg-type]


def test_a_public_address_that_only_tried_is_left_out() -> None:
    """The internet knocks all day. One that was connected is proposed, and said to be public."""
    assert [] == proposed(learned(facts(knocks=(refused("203.0.113.5", "audit"),))))
    answer = learned(facts(client("203.0.113.5")))
    assert ["203.0.113.5/32"] == proposed(answer)
    assert "# PUBLIC: nccl" in answer.text
    assert any("203.0.113.5/32" in note for note in answer.notes)


def test_packets_at_the_api_prove_nothing() -> None:
    """An api for peers alone, in audit mode."""
    assert [] == proposed(learned(facts(knocks=(refused("10.0.0.2", "audit", "api"),))))


def test_it_says_when_it_cannot_learn() -> None:
    """Behind an enforced wall nobody new is ever connected."""
    assert any("audit" in note for note in learned(facts(mode="enforce")).notes)
    assert () == learned(facts(mode="audit")).notes


def test_the_most_connections_at_one_time_are_told() -> None:
    """Over several looks, and over several ports in one."""
    one, two = client("10.0.0.2"), client("10.0.0.2", role="gloo", port=2)
    answer = learned(facts(one, two), facts(one))
    assert 2 == of(answer, "10.0.0.2").connections
    assert ("gloo", "nccl") == of(answer, "10.0.0.2").roles


def test_the_text_is_toml_and_the_diff_leads_to_it() -> None:
    """What the file holds already stays in it."""
    answer = learned(facts(client("10.0.0.2")), old="10.9.0.0/24", text="old\n")
    assert {"peers": {"cidrs": ["10.0.0.2/32", "10.9.0.0/24"]}} == loads(answer.text)
    assert answer.diff.startswith("--- /etc/learned.toml\n+++ /etc/learned.toml\n")
    assert "\n-old\n" in answer.diff
    fresh = learned(facts(client("10.0.0.2")))
    assert fresh.diff.startswith("--- /dev/null\n+++ /etc/learned.toml\n")
    added = [line[1:] for line in fresh.diff.splitlines()[3:]]
    assert fresh.text == "\n".join(added) + "\n"
