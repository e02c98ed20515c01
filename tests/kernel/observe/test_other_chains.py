"""Other programs' base chains, read from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.lab import Lab
from vllmwall.observe.other_firewalls import BaseChain, other_chains

_RULES = """
table ip filter {
    chain input { type filter hook input priority -5; policy drop; }
    chain out { type filter hook output priority 0; }
    chain plain { }
}
table inet early { chain c { type filter hook ingress device "lo" priority 1; }; }
table netdev card { chain c { type filter hook ingress device "lo" priority 0; policy drop; }; }
table bridge br { chain c { type filter hook prerouting priority -300; }; }
table inet vllmwall { chain input { type filter hook input priority 0; }; }
table inet vllmwall_standin { chain input { type filter hook input priority 0; }; }
"""


def test_every_chain_that_an_incoming_packet_passes_is_found(lab: Lab) -> None:
    """In the packet's order, of every family; our own tables are left out."""
    lab.node.run(["nft", "-f", "-"], stdin=_RULES)
    found = lab.node.call(other_chains)
    assert found.problems == ()
    assert found.found == (
        BaseChain("netdev card", "c", "ingress", 0, "drop"),
        BaseChain("inet early", "c", "ingress", 1, "accept"),
        BaseChain("bridge br", "c", "prerouting", -300, "accept"),
        BaseChain("ip filter", "input", "input", -5, "drop"),
    )


def test_without_the_right_to_list_them_there_is_a_problem() -> None:
    """Without CAP_NET_ADMIN the answer is a problem, not an empty list alone."""
    code = "from vllmwall.observe.other_firewalls import other_chains; print(other_chains())"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert "the chains of other firewalls are unknown: Operation not permitted" in done.stdout
