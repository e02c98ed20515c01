"""The doctor reads the rules of other firewalls, not only the policies of their chains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.api.test_explain_other_firewalls import CLEAN, IPTABLES_REJECT, chain
from tests.kernel.inspect.test_doctor import doctor
from tests.support.guarded import PEERS, Guarded, guarded
from tests.support.lab import Lab

API = "another firewall at API port 8000"
INNER = "another firewall at internal port 29500"
LOCKDOWN = "[host]\nlockdown = true\n"
NETAVARK = """
table inet netavark {
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump NETAVARK-HOSTPORT-DNAT
    }
    chain NETAVARK-HOSTPORT-DNAT {
        tcp dport 29500 jump nv_2f259bab_10_88_0_0_nm16_dnat
    }
    chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x00002000; }
    chain nv_2f259bab_10_88_0_0_nm16_dnat {
        ip saddr 10.88.0.0/16 tcp dport 29500 jump NETAVARK-HOSTPORT-SETMARK
        ip saddr 127.0.0.1 tcp dport 29500 jump NETAVARK-HOSTPORT-SETMARK
        tcp dport 29500 dnat ip to 10.88.0.2:29501
    }
}
"""
KUBE_PROXY = """
table ip kube-proxy {
    map service-nodeports {
        type inet_proto . inet_service : verdict
        elements = { tcp . 30500 : goto external-A, udp . 30053 : goto external-B }
    }
    chain nat-prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        jump services
    }
    chain services { fib daddr type local meta l4proto . th dport vmap @service-nodeports; }
    chain external-A { meta mark set meta mark or 0x4000; goto service-A; }
    chain external-B { meta mark set meta mark or 0x4000; goto service-B; }
    chain service-A {
        numgen random mod 2 vmap { 0 : goto endpoint-A1, 1 : goto endpoint-A2 }
    }
    chain endpoint-A1 { meta l4proto tcp dnat to 10.244.0.7:29500; }
    chain endpoint-A2 { meta l4proto tcp dnat to 10.244.0.8:29500; }
    chain service-B { meta l4proto udp dnat to 10.244.0.9:53; }
}
"""
IPTABLES_KUBE = """
iptables -t nat -N KUBE-NODEPORTS; iptables -t nat -N KUBE-SVC-A; iptables -t nat -N KUBE-SEP-A
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
iptables -t nat -A KUBE-NODEPORTS -p tcp -m tcp --dport 30500 -j KUBE-SVC-A
iptables -t nat -A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
iptables -t nat -A KUBE-SVC-A -j KUBE-SEP-A
iptables -t nat -A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.7:29500
"""


@pytest.fixture(scope="module")
def served(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server's API at 8000 and a rank's store at 29500."""
    with guarded(shared_lab, tmp_path_factory.mktemp("doctor") / "node") as found:
        found.server(8000).open("tcp", "0.0.0.0", 8000)
        found.rank().open("tcp", "0.0.0.0", 29500)
        found.settled()
        yield found


@pytest.fixture
def node(served: Guarded) -> Iterator[Guarded]:
    """The node, from which other programs' rules are removed afterwards."""
    yield served
    served.lab.node.run(["sh", "-c", CLEAN])


CLOSING = {
    "iptables, a last REJECT": (
        IPTABLES_REJECT.format("iptables", "--reject-with tcp-reset"),
        {API: "ip filter INPUT: ", INNER: "ip filter INPUT: "},
    ),
    "nft, a last drop": (
        chain("tcp dport 22 accept; iif lo accept; drop"),
        {API: "inet site c: drop", INNER: "inet site c: drop"},
    ),
    "netdev ingress": (
        chain("tcp dport 8000 drop", "ingress device eth0 priority 0", family="netdev"),
        {API: "netdev site c (what comes in by eth0): tcp dport 8000 drop"},
    ),
    "for strangers only": (
        chain("ip saddr @hosts accept; tcp dport 8000-30000 drop"),
        {API: "inet site c: tcp dport 8000-30000 drop"},
    ),
    "for peers only": (
        chain("ip saddr @hosts tcp dport 29500 drop"),
        {INNER: "inet site c: ip saddr @hosts tcp dport 29500 drop"},
    ),
    "nothing": (chain("tcp dport 22 drop"), {}),
}


@pytest.mark.parametrize("name", CLOSING)
def test_ports_that_a_rule_closes_are_named(node: Guarded, name: str) -> None:
    """A chain with policy accept and a last rule that refuses is a firewall like any other."""
    rules, expected = CLOSING[name]
    assert not {API, INNER} & doctor(node).keys()
    node.lab.node.run(["sh", "-ec", rules])
    found = {key: one for key, one in doctor(node).items() if key in (API, INNER)}
    assert expected.keys() == found.keys()
    for subject, words in expected.items():
        state, seen, remedy = found[subject]
        assert words in seen
        assert ("warn", True) == (state, remedy.startswith("Accept the port in that chain"))


@pytest.mark.parametrize(
    ("rules", "port", "words"),
    [
        (f"nft -f - <<'E'\n{NETAVARK}\nE", "29500", "Podman forwards it to 10.88.0.2:29501"),
        (f"nft -f - <<'E'\n{KUBE_PROXY}\nE", "30500", "kube-proxy forwards it to 10.244.0.7:29500"),
        (
            f"nft -f - <<'E'\n{KUBE_PROXY}\nE",
            "30053/udp",
            "kube-proxy forwards it to 10.244.0.9:53",
        ),
        (IPTABLES_KUBE, "30500", "kube-proxy forwards it to 10.244.0.7:29500"),
    ],
    ids=["netavark", "kube-proxy", "kube-proxy, UDP", "kube-proxy with iptables"],
)
def test_published_ports_are_found_by_evaluation(
    node: Guarded, rules: str, port: str, words: str
) -> None:
    """Whatever the engine calls its chains and maps."""
    node.lab.node.run(["sh", "-ec", rules])
    assert words in doctor(node)[f"published port {port}"][1]


def test_lockdown_says_that_it_drops_untracked_answers(lab: Lab, tmp_path: Path) -> None:
    """The node's own questions over UDP are not answered then."""
    lab.stranger.listen_udp("0.0.0.0", 53)
    rules = "iptables -t raw -A PREROUTING -p udp --sport 53 -j NOTRACK"
    with guarded(lab, tmp_path) as node:
        node.configure(PEERS + LOCKDOWN)
        node.ask("reload")
        assert "open" == lab.node.udp(lab.stranger.ipv4, 53)
        assert "lockdown" not in doctor(node)
        lab.node.run(["sh", "-ec", rules])
        assert "timeout" == lab.node.udp(lab.stranger.ipv4, 53)
        state, seen, _ = doctor(node, status=5)["lockdown"]
        assert ("fail", True) == (state, "ip raw PREROUTING: udp sport 53" in seen)
