"""A listener and its event are two things: either may be seen first."""

from __future__ import annotations

from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from tests.support.guarded import PEERS, Guarded, eventually
from tests.support.lab import Lab
from tests.support.reconciling import kept
from vllmwall.engine.event_handlers import follow
from vllmwall.engine.event_keys import EventKey
from vllmwall.linux.netns import inode_of
from vllmwall.model import Role
from vllmwall.observe.events import ListenEvent

NO_ANSWER = 'echo nameserver 192.0.2.254 > "{0}" && mount --bind "{0}" /etc/resolv.conf'


def test_an_api_whose_event_was_not_read_yet_keeps_its_clients(lab: Lab, tmp_path: Path) -> None:
    """On ``[::]`` it is told from a TCPStore by the backlog that it asked for, which only the
    event knows. A pass without it closed the port, and cut every client off."""
    node = Guarded(lab, tmp_path, before=NO_ANSWER.format(tmp_path / "resolv.conf"))
    node.configure(PEERS + "dns = ['rank-1.example']\n")
    node.process = node.launch()  # it waits two seconds for that name, while events come in
    eventually(lambda: node.log.exists() and node.logged(EventKey.DAEMON_STARTED), "events are on")
    node.server(8000).open("tcp", "::", 8000)
    with closing(lab.stranger.dial(lab.node.ipv4, 8000)) as client:
        assert [] == node.logged(EventKey.WALL_CREATED)
        eventually(node._answers, "the first pass is over", node.log)
        assert [] == node.logged(EventKey.CONNECTIONS_RESET)
        client.sendall(b"hello")
        assert "open" == lab.stranger.connect(lab.node.ipv4, 8000)


def test_an_event_may_come_before_its_listener(lab: Lab, tmp_path: Path) -> None:
    """Linux reports it first; its process can lose the processor in between. The port stays
    closed meanwhile, and the backlog is remembered: by that an API on ``[::]`` is one."""
    node = Guarded(lab, tmp_path)
    node.configure(PEERS)
    with kept(node) as keeper:
        server = node.server(8000)
        server.open("tcp", "0.0.0.0", 9999)
        keeper.full_pass()
        (pid,) = keeper.members
        followed = follow(keeper, [ListenEvent(pid, 8000, 2048, ip_address("::"))])
        active = keeper.walls.actual(inode_of(lab.node.path))
        assert active and {8000, 9999} == {one.port for one in active.entries}
        assert (followed.quick, bool(followed.full)) == (False, True)
        server.open("tcp", "::", 8000)
        keeper.full_pass()
        assert "open" == lab.stranger.connect(lab.node.ipv4, 8000)
        (workload,) = keeper.recognition.workloads
        assert Role.API in {one.label.role for one in workload.listeners}
