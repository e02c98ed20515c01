"""Rules of other programs that come after the wall lead no stranger to a workload's port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.guarded import Guarded, guarded
from tests.support.lab import NODE, Lab
from tests.support.waiting import eventually
from tests.support.walls import probe
from vllmwall.model import Proto

STORE, DATAGRAMS, LOCAL, BYSTANDER, TRANSPARENT = 29500, 29600, 29501, 7000, 7001
NAT = "type nat hook prerouting priority -100"
MANGLE = "type filter hook prerouting priority -150"
AT_INPUT = "type nat hook input priority 100"


@dataclass(frozen=True)
class Late:
    """Chains of another program, sets and helpers before them, and ports that must be closed by
    then. ``peers``: whether packets of a peer arrive all the same."""

    chains: dict[str, str]
    ports: tuple[int, ...]
    proto: Proto = Proto.TCP
    extra: str = ""
    peers: bool = True
    versions: tuple[int, ...] = (0, 1)

    @property
    def table(self) -> str:
        """As nft reads it."""
        chains = "".join(
            f"chain c{n} {{\n{head}\n{rules}\n}}\n"
            for n, (head, rules) in enumerate(self.chains.items())
        )
        return f"table inet late {{\n{self.extra}\n{chains}}}\n"


V4 = (0,)
CASES = {
    "a map": Late({NAT: "tcp dport 81 redirect to :tcp dport map { 81 : 29500 }"}, (81,)),
    "a map of the first port": Late(
        {NAT: "meta l4proto tcp redirect to :tcp dport map { 29500 : 7000 }"}, (STORE,)
    ),
    "a named map": Late(
        {NAT: "meta l4proto tcp redirect to :tcp dport map @to"},
        (STORE, 82),
        extra="map to { type inet_service : inet_service\n"
        "elements = { 29500 : 7000, 82 : 29500 }\n}",
    ),
    "a concatenation": Late(
        {
            NAT: "dnat ip to ip daddr . tcp dport map { 192.0.2.1 . 29500 : 192.0.2.1 . 7000, "
            "192.0.2.1 . 83 : 192.0.2.1 . 29500 }"
        },
        (STORE, 83),
        versions=V4,
    ),
    "a set": Late(
        {NAT: "tcp dport @ports redirect to :7000"},
        (STORE,),
        extra="set ports { type inet_service\nelements = { 29500 }\n}",
    ),
    "a verdict map": Late(
        {NAT: "tcp dport vmap { 29500 : goto to }"},
        (STORE,),
        extra="chain to { meta l4proto tcp redirect to :7000\n}",
    ),
    "UDP": Late(
        {NAT: "udp dport 29600 redirect to :7000\nudp dport 84 redirect to :29600"},
        (DATAGRAMS, 84),
        Proto.UDP,
        peers=False,  # nothing answers at 29600
    ),
    "DNAT of IPv6": Late(
        {
            NAT: "tcp dport 85 dnat ip6 to [2001:db8::1]:29500\n"
            "tcp dport 29500 dnat ip6 to [2001:db8::1]:7000"
        },
        (STORE, 85),
        versions=(1,),
    ),
    "DNAT to loopback": Late(
        {NAT: "tcp dport 86 dnat ip to 127.0.0.1:29501"}, (86,), peers=False, versions=V4
    ),
    "a source that NAT rewrites": Late(
        {
            NAT: "tcp dport 87 redirect to :29500",
            AT_INPUT: "ip saddr 203.0.113.9 snat ip to 192.0.2.2",
        },
        (STORE, 87),
        versions=V4,
    ),
    "a zone": Late(
        {
            "type filter hook prerouting priority -300": "ct original zone set 5",
            NAT: "tcp dport 29500 redirect to :7000",
        },
        (STORE,),
    ),
    "tproxy": Late({MANGLE: "meta l4proto tcp th dport 29500 tproxy to :7001 accept"}, (STORE,)),
    "accepted before": Late(
        {"type filter hook input priority -11": "tcp dport 29500 accept"}, (STORE,)
    ),
}


@pytest.fixture(scope="module")
def node(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A job, and other programs' sockets to which rules may lead."""
    with guarded(shared_lab, tmp_path_factory.mktemp("late") / "node") as found:
        shared_lab.node.run(["sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"])
        job = found.rank()
        job.open("tcp", "::", STORE)
        job.open("udp", "::", DATAGRAMS)
        job.open("tcp", "127.0.0.1", LOCAL)
        shared_lab.node.listen("::", BYSTANDER)
        shared_lab.node.listen_udp("::", BYSTANDER)
        found.wait_for_rules(3)
        with shared_lab.node.open_socket(socket.AF_INET6, socket.SOCK_STREAM) as transparent:
            transparent.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT
            transparent.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
            transparent.bind(("::", TRANSPARENT))
            transparent.listen()
            yield found


@pytest.mark.parametrize("name", CASES)
def test_no_late_rule_opens_a_port(node: Guarded, name: str) -> None:
    """Within the reaction time: the daemon hears of NAT when it comes."""
    case, lab = CASES[name], node.lab
    tries = [(NODE[version], port) for version in case.versions for port in case.ports]
    lab.node.run(["nft", "-f", "-"], stdin=case.table)
    try:
        for address, port in tries:
            eventually(
                lambda at=address, on=port: (  # type: ignore[misc]
                    probe(lab.stranger, case.proto, at, on) == "timeout"
                ),
                f"{address} {port} is closed",
                node.log,
            )
            if case.peers:
                assert "open" == probe(lab.peer, case.proto, address, port)
    finally:
        lab.node.run(["nft", "delete", "table", "inet", "late"])
