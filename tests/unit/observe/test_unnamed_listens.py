"""Listen events that do not say whose they are: of this box, or of the one beside it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from vllmwall import observe
from vllmwall.linux.netns import OWN, inode_of
from vllmwall.observe import Observer

LONGEST = int(Path("/proc/sys/net/core/somaxconn").read_text())


@pytest.mark.parametrize(
    ("queue", "told", "believed"),
    [
        (2048, 2048, 2048),
        (2048, 128, None),
        (2048, -1, None),
        (LONGEST, -1, None),  # what was cut to the longest queue fits any other that was
        (LONGEST, LONGEST + 1, None),
    ],
)
def test_another_boxs_backlog_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, queue: int, told: int, believed: int | None
) -> None:
    """A process at our API's port on the same machine must not make it look like no API."""
    monkeypatch.setattr(observe, "in_first_pid_namespace", lambda: False)
    observer = Observer(frozenset({inode_of(OWN)}))
    with socket.create_server(("127.0.0.1", 0), backlog=queue) as listening:
        port = listening.getsockname()[1]
        observer.observe()
        observer.observe_listen(os.getpid(), port, told)
        found = [one.backlog for one in observer.node().listeners if one.port == port]
    observer.namespaces.close()
    assert [believed] == found
