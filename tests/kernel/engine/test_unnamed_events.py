"""Events that name processes and cgroups as other namespaces do: in LXC, nspawn and the like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.cgroups import inside
from tests.support.guarded import Guarded, eventually
from tests.support.guarding import number_of, path_of, stranger, unit
from tests.support.lab import Lab
from tests.support.reconciling import kept
from tests.system.box import REPOSITORY
from vllmwall.engine.event_handlers import follow
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux import cgroups
from vllmwall.linux.netns import inode_of
from vllmwall.model import Guard, Role
from vllmwall.observe.events import UNNAMED, CgroupEvent, ListenEvent

WILDCARD = ip_address("0.0.0.0")
NESTED = f"""
import os, socket, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from vllmwall.observe.events import ExecEvent, ListenEvent, TraceEvents
trace = TraceEvents(f"vwtest-{{sys.argv[1]}}")
with socket.create_server(("127.0.0.1", 0)) as listening:
    port = listening.getsockname()[1]
    found = [one for one in trace.read() if isinstance(one, ListenEvent) and one.port == port]
trace.close()
print([one.tid for one in found])
"""


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    return Guarded(lab, tmp_path)


@pytest.fixture
def keeper(node: Guarded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reconciler]:
    """A keeper of the lab's node, whose cgroup namespace is said not to be the first."""
    node.configure('[[workload]]\nname = "job"\nmatch = { unit = "vw-*.service" }\n')
    here = inode_of(node.lab.node.path)
    monkeypatch.setattr("vllmwall.observe.in_first_namespace", lambda: False)
    with kept(node) as found:
        found.walls.read_back(here)  # so that it has a wall always, as the host's namespace has
        somebody = Path(f"/proc/{node.lab.node.popen(['sleep', '600']).pid}/ns/net")
        eventually(lambda: somebody.stat().st_ino == here, "somebody lives there")
        found.full_pass()
        yield found


def listen(node: Guarded, folder: Path) -> subprocess.Popen[str]:
    """A process of that cgroup that listens at port 29500."""
    server = [sys.executable, f"{REPOSITORY}/tests/system/server.py", "29500"]
    process = node.lab.node.popen(inside(folder, server))
    asked = ["ss", "-Hltn", "sport = :29500"]
    eventually(lambda: node.lab.node.run(asked).stdout, "it listens")
    return process


def test_the_kernels_number_of_a_process_is_no_number_of_ours() -> None:
    """Believed, it would be some other process's."""
    script = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", NESTED]
    done = subprocess.run(
        [*script, str(number_of(Path("/proc/self")))], capture_output=True, text=True, check=True
    )
    assert f"[{UNNAMED}]\n" == done.stdout


def test_who_listens_is_searched_for(node: Guarded, keeper: Reconciler) -> None:
    """A process that nobody has seen before is closed by the pass that the event asks for."""
    with unit() as folder:
        listen(node, folder)
        assert "open" == stranger(node)
        wanted = follow(keeper, [ListenEvent(UNNAMED, 29500, 4096, WILDCARD)])
        assert wanted.quick
        keeper.quick_pass()
        assert "timeout" == stranger(node)
        (workload,) = keeper.recognition.workloads
        assert [4096] == [one.listener.backlog for one in workload.listeners]


def test_what_a_search_found_has_its_event_read(node: Guarded, keeper: Reconciler) -> None:
    """An API on ``[::]`` is one by the backlog that it asked for; else its clients are cut off."""
    node.server(8000).open("tcp", "::", 8000)
    first = ListenEvent(UNNAMED, 29500, 4096, WILDCARD)
    follow(keeper, [first], lambda: [ListenEvent(UNNAMED, 8000, 2048, WILDCARD)])
    keeper.quick_pass()
    (workload,) = keeper.recognition.workloads
    assert [Role.API] == [one.label.role for one in workload.listeners]
    assert "open" == node.lab.stranger.connect(node.lab.node.ipv4, 8000)


def test_a_cgroup_that_came_during_a_search_is_guarded(node: Guarded, keeper: Reconciler) -> None:
    """What is read after a search is read only once."""
    with unit() as folder:
        made = CgroupEvent(path_of(folder), number_of(folder))
        follow(keeper, [ListenEvent(UNNAMED, 29500, 4096, WILDCARD)], lambda: [made])
        listen(node, folder)
        assert "timeout" == stranger(node)


def test_a_storm_of_them_is_left_to_the_next_pass(keeper: Reconciler) -> None:
    """Searching takes a tenth of the time at most."""
    event = ListenEvent(UNNAMED, 29500, 4096, WILDCARD)
    asked = [follow(keeper, [event]).full for _ in range(3)]
    assert ["", *["processes without a name"] * 2] == asked


def test_an_api_is_one_though_nobody_searched(
    node: Guarded, keeper: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a storm: the next pass finds it, and knows the backlog that it asked for."""
    monkeypatch.setattr(keeper.observer, "search", lambda: False)
    node.server(8000).open("tcp", "::", 8000)
    wanted = follow(keeper, [ListenEvent(UNNAMED, 8000, 2048, WILDCARD)])
    assert "processes without a name" == wanted.full
    for _ in range(2):
        keeper.full_pass()
        (workload,) = keeper.recognition.workloads
        assert [Role.API] == [one.label.role for one in workload.listeners]


def test_a_cgroup_is_known_by_its_number(node: Guarded, keeper: Reconciler) -> None:
    """Guarded before it listens, though the kernel's path is longer than ours."""
    with unit() as folder:
        path = path_of(folder)
        follow(keeper, [CgroupEvent(f"/lxc/box{path}", number_of(folder))])
        listen(node, folder)
        assert "timeout" == stranger(node)


def test_another_boxs_cgroup_is_none_of_ours(node: Guarded, keeper: Reconciler) -> None:
    """Though it has a name that we guard, and one of that path is here."""
    with unit() as folder, unit() as other:
        mount = cgroups.mount_point()
        assert mount
        path = path_of(folder)
        assert None is cgroups.our_name_for(f"/lxc/box{path}", number_of(other), mount)
        follow(keeper, [CgroupEvent(f"/lxc/box{path}", number_of(other))])
        assert not any(number_of(other) == guard.id for guard in guards(keeper))


def guards(keeper: Reconciler) -> set[Guard]:
    active = keeper.walls.actual(min(keeper.home))
    assert active
    return set(active.guards)
