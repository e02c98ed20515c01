"""Lockdown drops the answers that a rule takes out of connection tracking, and status says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guarded import PEERS, Guarded, guarded
from tests.support.lab import PEER, STRANGER, Lab

LOCKDOWN = PEERS + "[host]\nlockdown = true\n"
NFT = """
nft add table inet raw
nft 'add chain inet raw c { type filter hook prerouting priority -300; }'
nft add rule inet raw c th sport { 53, 443 } notrack
"""
RAW = "-t raw -A PREROUTING -p"
RULES = {
    "nft": (NFT, "nft delete table inet raw"),
    **{
        tool: (
            f"{tool} {RAW} udp --sport 53 -j NOTRACK; {tool} {RAW} tcp --sport 443 -j CT --notrack",
            f"{tool} -t raw -F",
        )
        for tool in ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy")
    },
}


@pytest.fixture(scope="module")
def node(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A node in lockdown, and hosts that answer its questions."""
    for host in (shared_lab.peer, shared_lab.stranger):
        host.listen_udp("::", 53)
        host.listen("::", 443)
    with guarded(shared_lab, tmp_path_factory.mktemp("untracked") / "node") as found:
        found.configure(LOCKDOWN)
        found.ask("reload")
        yield found


def said(node: Guarded) -> tuple[list[str], bool]:
    """The kinds of reservations, and whether the node is called safe."""
    status = node.ask("status")
    kinds = [one["kind"] for one in status["reservations"]]  # type: ignore[attr-defined]
    return kinds, status["safe"] is True


@pytest.mark.parametrize("name", RULES)
def test_status_says_that_answers_are_dropped(node: Guarded, name: str) -> None:
    """Over UDP, of all but peers. Answers over TCP come in: only a SYN is judged there."""
    rules, without = RULES[name]
    family = int(name.startswith("ip6"))
    lab = node.lab
    assert "open" == lab.node.udp(STRANGER[family], 53)
    assert ([], True) == said(node)
    lab.node.run(["sh", "-ec", rules])
    try:
        assert "timeout" == lab.node.udp(STRANGER[family], 53)
        assert ["open", "timeout"] == [
            lab.node.connect(STRANGER[family], 443),
            lab.node.udp(PEER[family], 53),
        ]
        assert (["answers-dropped"], False) == said(node)
    finally:
        lab.node.run(["sh", "-ec", without])
    assert ([], True) == said(node)


def test_zones_and_other_targets_are_no_such_rules(node: Guarded) -> None:
    """CT has other uses; a comment is no rule."""
    other = "iptables -t raw -A PREROUTING -p udp -m comment --comment notrack -j CT --zone 7"
    node.lab.node.run(["sh", "-ec", other])
    try:
        assert ([], True) == said(node)
    finally:
        node.lab.node.run(["iptables", "-t", "raw", "-F"])
