"""Published ports as iptables-save prints them, and other firewalls' chains."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmwall.observe import other_firewalls as reader
from vllmwall.observe.other_firewalls import (
    BaseChain,
    PublishedPort,
    other_chains,
    published_ports,
)

RULES = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 29500 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 29500 -j DNAT --to-destination 172.17.0.2:29501
-A NETAVARK-DN-1D87 -d 10.0.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.88.0.3:53
-A KUBE-X -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.3:8080
COMMIT
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has the only programs there are."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def tool(folder: Path, name: str, prints: str, status: int = 0) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}END\nexit {status}\n")
    file.chmod(0o755)


def test_where_packets_go_is_read_from_the_rules_of_any_engine(tools: Path) -> None:
    """Masquerading of the same port is none of them."""
    tool(tools, "iptables-save", RULES)
    tool(tools, "ip6tables-save", RULES, status=1)
    assert (
        PublishedPort("tcp", 80, "10.0.0.3:8080", "the chain KUBE-X"),
        PublishedPort("tcp", 29500, "172.17.0.2:29501", "Docker"),
        PublishedPort("udp", 53, "10.88.0.3:53", "Podman"),
    ) == published_ports()


@pytest.fixture
def legacy(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's list of legacy tables; `iptables-legacy-save` leaves the file ``asked``."""
    tool(tools, "iptables-save", "")
    tool(tools, "ip6tables-save", "")
    monkeypatch.setattr(reader, "_NET", tmp_path)
    monkeypatch.setattr(reader, "_nftables", lambda: iter(()))
    return tmp_path / "ip_tables_names"


def test_legacy_tables_are_not_created_by_asking(tools: Path, legacy: Path) -> None:
    """`iptables-legacy-save -t nat` loads the module and registers its hooks."""
    asked = tools / "asked"
    (tools / "iptables-legacy-save").write_text(f"#!/bin/sh\ntouch {asked}\n")
    (tools / "iptables-legacy-save").chmod(0o755)
    published_ports()
    other_chains()
    legacy.write_text("filter\n")
    published_ports()
    assert not asked.exists()
    legacy.write_text("filter\nnat\n")
    published_ports()
    assert asked.exists()


def test_legacy_chains_are_read_with_their_policy(tools: Path, legacy: Path) -> None:
    """Only those that incoming packets pass."""
    legacy.write_text("filter\n")
    printed = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:MINE - [0:0]\nCOMMIT\n"
    tool(tools, "iptables-legacy-save", printed)
    found = other_chains()
    assert found.problems == ()
    assert found.found == (BaseChain("iptables-legacy filter", "INPUT", "input", None, "drop"),)


def test_a_command_that_crashes_costs_a_line(tools: Path, legacy: Path) -> None:
    """The problem names the command."""
    legacy.write_text("filter\n")
    (tools / "iptables-legacy-save").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tools / "iptables-legacy-save").chmod(0o755)
    assert other_chains() == reader.BaseChains(
        (), ("the chains of other firewalls are unknown: iptables-legacy-save ended with -11",)
    )
