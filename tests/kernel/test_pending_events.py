"""A pass that shows a listener before its event was read: it waits in the kernel, and is asked."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.kernel.guarded import PEERS, Guarded, eventually
from tests.lab import Lab

NO_ANSWER = 'echo nameserver 192.0.2.254 > "{0}" && mount --bind "{0}" /etc/resolv.conf'


def test_an_api_whose_event_was_not_read_yet_keeps_its_clients(lab: Lab, tmp_path: Path) -> None:
    """On ``[::]`` it is told from a TCPStore by the backlog that it asked for, which only the
    event knows. A pass without it closed the port, and cut every client off."""
    node = Guarded(lab, tmp_path, before=NO_ANSWER.format(tmp_path / "resolv.conf"))
    node.configure(PEERS + "dns = ['rank-1.example']\n")
    node.process = node.launch()  # it waits two seconds for that name, while events come in
    eventually(lambda: node.log.exists() and node.logged("started"), "events are on")
    node.server(8000).open("tcp", "::", 8000)
    with closing(lab.stranger.dial(lab.node.ipv4, 8000)) as client:
        assert [] == node.logged("wall put up")
        eventually(node._answers, "the first pass is over", node.log)
        assert [] == node.logged("connections reset that the wall refuses")
        client.sendall(b"hello")
        assert "open" == lab.stranger.connect(lab.node.ipv4, 8000)
