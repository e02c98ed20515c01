"""Ports that NAT forwards to a container, in an explanation."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vllmwall.api.explain.firewalls import forwarded, settled
from vllmwall.api.explain.targets import Firewalls, Probe, Target
from vllmwall.enforce.evaluator import Packet
from vllmwall.model import Proto
from vllmwall.observe.other_firewalls import PublishedPort

STRANGER = "203.0.113.9"


def probe(namespace: str, address: str, source: str = STRANGER) -> Probe:
    """A packet to port 29500 of that address."""
    target = Target(len(namespace), Proto.TCP, 29500)
    return Probe(namespace, target, Packet(ip_address(source), ip_address(address), "tcp", 29500))


def on_the_host(to: str) -> tuple[PublishedPort, tuple[Firewalls, ...]]:
    """Port 29500 of the host is forwarded."""
    port = PublishedPort("tcp", 29500, to, "Docker")
    return port, (Firewalls("host", published=(port,)),)


def test_the_answer_of_the_container_is_the_one_that_counts() -> None:
    """Docker's proxy has a socket on the host that no such packet reaches."""
    _, firewalls = on_the_host("172.17.0.2:29500")
    outer, inner = probe("host", "198.51.100.1"), probe("net:1", "172.17.0.2")
    assert [(inner, None)] == settled([outer, inner], firewalls)
    assert [
        "host: Docker forwards tcp port 29500 to 172.17.0.2:29500 before the wall there sees the "
        "packet"
    ] == list(forwarded([outer, inner], firewalls))


def test_a_port_that_is_forwarded_to_another_port_is_not_decided_here() -> None:
    """The probe stays, with where its packet goes."""
    port, firewalls = on_the_host("172.17.0.2:29501")
    outer, inner = probe("host", "198.51.100.1"), probe("net:1", "172.17.0.2")
    assert [(outer, port), (inner, None)] == settled([outer, inner], firewalls)


@pytest.mark.parametrize(
    ("source", "to"),
    [
        ("127.0.0.1", "172.17.0.2:29500"),
        ("2001:db8::9", "172.17.0.2:29500"),
        (STRANGER, "[fd00::2]:29500"),
    ],
)
def test_a_packet_that_no_rule_takes_stays(source: str, to: str) -> None:
    """Over lo, and of the family that has no such rule, it reaches the socket of the proxy."""
    _, firewalls = on_the_host(to)
    outer = probe("host", "198.51.100.1", source)
    assert [(outer, None)] == settled([outer], firewalls)
    assert [] == list(forwarded([outer], firewalls))
