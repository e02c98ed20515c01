"""The files that the release before left on a node, under the daemon of this one: same packets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, eventually
from tests.support.hammer import hammering
from tests.support.lab import Lab
from tests.upgrade.corpus import BANNED, HERE, OPENED, SAVED

FOLDERS = sorted(path for path in HERE.glob("*/state"))
API, STORE, METRICS = 8000, 29500, 9100


@pytest.fixture(params=FOLDERS, ids=lambda path: path.parent.name)
def node(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A node as the release left it: its wall since boot, its files, and no daemon yet."""
    state = tmp_path / "state"
    shutil.copytree(request.param, state)
    for path in state.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o600)
    lab.node.run(["nft", "-f", "-"], stdin=(state / "lib/boot.nft").read_text())
    found = Guarded(lab, tmp_path / "node")
    found.config, found.runtime = state / "etc/vllmwall.toml", state / "run"
    lab.stranger.add_address(BANNED.removesuffix("/32"))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def test_an_upgrade_keeps_what_the_operator_said(lab: Lab, node: Guarded) -> None:
    """Peers of commands and of conf.d, bans, opened ports: and nobody is let in meanwhile."""
    server, rank = node.server(API), node.rank()
    with hammering(lab.stranger, "tcp", (lab.node.ipv4, STORE)) as attempts:
        rank.open("tcp", "0.0.0.0", STORE)
        for port in (API, OPENED.port, SAVED.port):
            server.open("tcp", "0.0.0.0", port)
        node.start()
        eventually(lambda: len(node.listeners()) == 4, "all are known", node.log)
        for port in (API, OPENED.port, SAVED.port):
            assert "open" == lab.stranger.connect(lab.node.ipv4, port)
        assert "open" == lab.peer.connect(lab.node.ipv4, STORE)
    assert attempts.tried > 100
    assert attempts.opened == 0
    with pytest.raises(OSError, match="timed out"):
        lab.stranger.dial(lab.node.ipv4, API, source=BANNED.removesuffix("/32"))
    peers = node.command("peers", "list").stdout
    assert [net for net in ("10.1.0.0/24", "10.2.0.0/24", "192.0.2.2/32") if net not in peers] == []
    assert node.ask("status")["problems"] == []
    assert list(node.runtime.glob("*.bad")) == []
