"""Published ports, as iptables-save writes the rules of Docker, netavark and others."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmwall.observe import published_ports as reader
from vllmwall.observe.published_ports import Published, published_ports

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
        Published("tcp", 80, "10.0.0.3:8080", "the chain KUBE-X"),
        Published("tcp", 29500, "172.17.0.2:29501", "Docker"),
        Published("udp", 53, "10.88.0.3:53", "Podman"),
    ) == published_ports()


def test_legacy_tables_are_not_made_by_asking(
    tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`iptables-legacy-save -t nat` loads the module and hooks it in, for ever."""
    asked = tmp_path / "asked"
    tool(tools, "iptables-save", "")
    tool(tools, "ip6tables-save", "")
    (tools / "iptables-legacy-save").write_text(f"#!/bin/sh\ntouch {asked}\n")
    (tools / "iptables-legacy-save").chmod(0o755)
    names = tmp_path / "names"
    names.write_text("filter\n")
    monkeypatch.setattr(reader, "_TOOLS", (("iptables-legacy-save", str(names)),))
    published_ports()
    assert not asked.exists()
    names.write_text("filter\nnat\n")
    published_ports()
    assert asked.exists()
