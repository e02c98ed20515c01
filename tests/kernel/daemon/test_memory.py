"""A daemon that runs: what lies in its memory. How much that is `make bench` says."""

from __future__ import annotations

from pathlib import Path

from tests.support.guarded import PEERS, Guarded, guarded
from tests.support.lab import Lab

HEAVY = ("_pydantic_core", "libcrypto", "libssl", "_decimal", "_psutil")


def mapped(node: Guarded) -> list[str]:
    """Heavy libraries that are mapped by the daemon."""
    assert node.process is not None
    maps = Path(f"/proc/{node.process.pid}/maps").read_text()
    return [one for one in HEAVY if one in maps]


def test_no_question_brings_what_checks_the_configuration(lab: Lab, tmp_path: Path) -> None:
    """Start, status, plan, peers, bans and reload: pydantic was in other processes, now ended."""
    with guarded(lab, tmp_path) as node:
        assert node.process is not None
        assert [] == mapped(node)
        node.ask("status")
        node.ask("plan")
        node.ask("peers.add", networks=["192.0.2.77/32"])
        node.ask("bans.add", ssh_client="", networks=["198.51.100.7/32"], reason="a test")
        node.configure(PEERS + "[limits]\nconnections = 9\n")
        node.ask("reload")
        assert [] == mapped(node)
        children = f"/proc/{node.process.pid}/task/{node.process.pid}/children"
        assert "" == Path(children).read_text()


def test_what_it_kept_is_read_without_it(lab: Lab, tmp_path: Path) -> None:
    """A daemon that comes back reads its own files by itself."""
    with guarded(lab, tmp_path) as node:
        node.ask("peers.add", networks=["192.0.2.77/32"])
        node.ask("bans.add", ssh_client="", networks=["198.51.100.7/32"], reason="a test")
        node.stop()
        node.start()
        assert "192.0.2.77/32" in str(node.ask("peers.list"))
        assert "198.51.100.7/32" in str(node.ask("bans.list"))
        assert [] == mapped(node)
