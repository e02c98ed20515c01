"""Other programs' rules: the same, byte for byte, whatever we do."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from tests.support.lab import Host, Lab
from tests.support.walls import entry, everywhere, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Mode

_OURS = re.compile(r"^table inet vllmwall \{.*?^\}\n", re.MULTILINE | re.DOTALL)

TABLES = """
table inet filter {
	comment "somebody else's"
	set peers4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.0/24 }; }
	map any4 { type inet_service : verdict; elements = { 80 : accept, 29500 : drop }; }
	counter hits { packets 5 bytes 300 }
	chain input {
		type filter hook input priority filter - 10; policy accept;
		ct state established,related accept comment "as it was"
		tcp dport vmap @any4
		ip saddr @peers4 counter name "hits"
	}
	chain strangers { log prefix "x"; drop; }
}
table ip nat {
	chain postrouting { type nat hook postrouting priority srcnat; masquerade; }
}
table ip6 vllmwall {
	chain input { type filter hook input priority filter; tcp dport 1 drop; }
}
table ip vllmwall {
	set peers4 { type ipv4_addr; }
	chain only_peers { drop; }
}
table arp filter { chain input { type filter hook input priority filter; accept; }
}
table bridge filter { chain input { type filter hook input priority filter; accept; }
}
table netdev ingress {
	chain eth0 { type filter hook ingress device "eth0" priority 0; udp dport 9 drop; }
}
table inet vllmwall_not {
	chain input { type filter hook input priority filter - 9; udp dport 9 drop; }
}
"""
XTABLES = [
    ["iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP"],
    ["iptables-nft", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "RETURN"],
    ["ip6tables-nft", "-N", "DOCKER-USER"],
    ["ip6tables-nft", "-A", "DOCKER-USER", "-m", "comment", "--comment", "x", "-j", "RETURN"],
]


def _others(host: Host) -> str:
    """Every rule of the namespace with its handle, but for our table."""
    return _OURS.sub("", host.run(["nft", "-s", "-a", "list", "ruleset"]).stdout)


@pytest.fixture
def crowded(lab: Lab) -> Host:
    """A node on which others have rules of every family."""
    lab.node.run(["nft", "-f", "-"], stdin=TABLES)
    for command in XTABLES:
        lab.node.run(command)
    return lab.node


@pytest.mark.parametrize("why_not_owned", ["", "others may edit it"])
def test_the_rules_of_others_never_change(crowded: Host, why_not_owned: str) -> None:
    """Up, change, repair, reading, counters and down: their tables and handles stay."""
    backend = Nftables(why_not_owned)
    before = _others(crowded)
    assert before.count("table ") == 8 + 2  # iptables-nft shares ip nat
    first = wall(crowded, [*everywhere(29500, "peers"), entry(8000, "public")])
    second = wall(crowded, everywhere(29501, "node"), groups={"monitoring": ["10.0.0.1"]})
    backend.apply(crowded.path, first, None)
    assert _others(crowded) == before
    backend.apply(crowded.path, second, first)
    assert _others(crowded) == before
    backend.apply(crowded.path, replace(second, mode=Mode.AUDIT), second)
    assert _others(crowded) == before
    if why_not_owned:
        crowded.run(["nft", "flush table inet vllmwall"])
    backend.apply(crowded.path, first, backend.read_back(crowded.path))
    assert backend.read_back(crowded.path) == first
    backend.counters(crowded.path)
    assert _others(crowded) == before
    backend.remove(crowded.path)
    assert crowded.run(["nft", "-s", "-a", "list", "ruleset"]).stdout == before


def test_iptables_reads_its_own_rules_as_before(crowded: Host, backend: Nftables) -> None:
    """iptables-nft still understands its tables while ours is beside them."""
    commands = (["iptables-nft-save"], ["ip6tables-nft-save"])
    before = [_without_dates(crowded.run(command)) for command in commands]
    backend.apply(crowded.path, wall(crowded, everywhere(29500, "peers")), None)
    assert [_without_dates(crowded.run(command)) for command in commands] == before


def _without_dates(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


def test_the_drops_of_others_still_count(lab: Lab, backend: Nftables) -> None:
    """Our accept ends our own evaluation only: who is dropped elsewhere stays dropped."""
    lab.node.listen("::", 29500)
    rules = (
        "table inet theirs { chain i { type filter hook input priority 0; tcp dport 29500 drop; } }"
    )
    lab.node.run(["nft", rules.replace("; }", ";\n}\n")])
    backend.apply(lab.node.path, wall(lab.node, everywhere(29500, "public")), None)
    assert lab.peer.connect(lab.node.ipv4, 29500) == "timeout"


def test_another_namespace_is_not_touched(lab: Lab, backend: Nftables) -> None:
    """A wall is active in the namespace that it is for, and in no other."""
    backend.apply(lab.node.path, wall(lab.node, everywhere(29500, "peers")), None)
    assert lab.peer.run(["nft", "list", "ruleset"]).stdout == ""
    assert backend.read_back(lab.peer.path) is None
