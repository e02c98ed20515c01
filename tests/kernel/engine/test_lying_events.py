"""Events that lie: no user opens or closes what is not his own, by names or by real events."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.cgroups import cgroup, inside
from tests.support.guarded import Guarded, eventually, guarded
from tests.support.guarding import number_of, numbers, path_of, stranger, unit, wait_for_guard
from tests.support.lab import Lab
from tests.support.lying import USER, as_user, execute, fuzz, listen_line, trace_line
from tests.support.reconciling import kept
from tests.system.box import REPOSITORY
from vllmwall.engine.event_handlers import follow
from vllmwall.engine.event_keys import EventKey
from vllmwall.linux.cgroups import SLICE
from vllmwall.model import Role
from vllmwall.observe.events import CgroupEvent, CloseEvent, ExecEvent, ListenEvent

WILDCARD, ANY6 = ip_address("0.0.0.0"), ip_address("::")
SERVE = f"""#!{os.path.realpath("/usr/bin/python3")}
import socket, time
keep = []
for port, backlog in ((8123, 2048), (9555, 100)):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("0.0.0.0", port))
    one.listen(backlog)
    keep.append(one)
print("ready", flush=True)
while True:
    keep[0].accept()[0].close()
"""
# A launcher whose listeners are in a network namespace of its own. With "passed", the process
# that calls listen() stays where it was and only its socket is from there.
ELSEWHERE = f"""#!{os.path.realpath("/usr/bin/python3")}
import ctypes, os, socket, sys, time
near, far = socket.socketpair()
unshare = ctypes.CDLL(None).unshare
if sys.argv[-1] == "passed":
    if os.fork() == 0:
        assert unshare(0x10000000 | 0x40000000) == 0
        made = [socket.socket() for _ in range(200)]
        for one in made:
            socket.send_fds(far, [b"x"], [one.fileno()])
        time.sleep(60)
    made = [socket.socket(fileno=socket.recv_fds(near, 1, 1)[1][0]) for _ in range(200)]
else:
    assert unshare(0x10000000 | 0x40000000) == 0
    made = [socket.socket() for _ in range(200)]
print("ready", flush=True)
for one in made:
    one.bind(("0.0.0.0", 80))
    one.listen(5)
    time.sleep(0.01)
    one.close()
print("done", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user can reach; pytest makes its own root's alone again and again."""
    with tempfile.TemporaryDirectory(prefix="vwlies-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def node(lab: Lab, folder: Path) -> Iterator[Guarded]:
    with guarded(lab, folder) as found:
        yield found


def web(node: Guarded, port: int, group: Path | None = None) -> None:
    """A web server that is no workload."""
    argv = [sys.executable, f"{REPOSITORY}/tests/system/server.py", str(port)]
    node.lab.node.popen(inside(group, argv) if group else argv)
    eventually(lambda: stranger(node, port) == "open", "it serves")


def serve(node: Guarded, user: int = 2000) -> int:
    """`vllm serve --port 0` of some user: port 9555 is internal; its pid."""
    script = node.folder / "vllm"
    script.write_text(SERVE)
    script.chmod(0o755)
    ids = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    argv = [*ids, str(script), "serve", "tiny", "--port", "0"]
    pid = node._program(argv, {**os.environ})._process.pid
    eventually(lambda: stranger(node, 9555) == "timeout", "9555 is closed", node.log)
    return pid


def test_a_file_name_opens_nothing(node: Guarded, folder: Path) -> None:
    """The backlog and the listener of an API, told by the name of a file that a user executes."""
    pid = serve(node)
    lines = [trace_line(pid, "sys_listen(fd: 5, backlog: 800)"), listen_line(pid, 9555)]
    liar = execute(node, folder / "lies", lines, 2)
    while liar.poll() is None:
        assert "timeout" == stranger(node, 9555)
    node.ask("reload")
    assert "timeout" == stranger(node, 9555)


def test_a_file_name_closes_nothing(node: Guarded, folder: Path) -> None:
    """Neither a port, by a listener that it names, nor a slice, by a cgroup."""
    with cgroup(f"/vwlie{os.getpid()}.slice/web.service") as group, unit() as armed:
        rank = node.rank(armed)
        rank.open("tcp", "0.0.0.0", 29500)
        wait_for_guard(node, armed)
        web(node, 80, group)
        made = f"cgroup_mkdir: root=0 id={number_of(group.parent)} level=1 path={SLICE}"
        again = f"cgroup_mkdir: root=0 id={number_of(group)} level=2 path={path_of(armed)}"
        lines = [listen_line(rank._process.pid, 80), trace_line(1, made), trace_line(1, again)]
        liar = execute(node, folder / "lies", lines, 2)
        while liar.poll() is None:
            assert "open" == stranger(node, 80)


@pytest.mark.parametrize("how", ["moved", "passed"])
def test_a_listener_elsewhere_closes_nothing_here(node: Guarded, how: str) -> None:
    """Real events, and a port of that number is somebody else's here."""
    serve(node)
    web(node, 80)
    script = node.folder / "liar/vllm"
    script.parent.mkdir()
    script.write_text(ELSEWHERE)
    script.chmod(0o755)
    liar = node.lab.node.popen(as_user([str(script), "serve", how]))
    assert liar.stdout and "ready\n" == liar.stdout.readline()
    tried = 0
    while tried < 20:
        assert "open" == stranger(node, 80)
        tried += 1


def test_an_events_number_is_not_believed(lab: Lab, folder: Path) -> None:
    """That of a path is what the path has; and a pass follows, which takes back what was wrong."""
    node = Guarded(lab, folder)
    with kept(node) as keeper, unit() as other, unit() as armed:
        rank = node.rank(armed)
        rank.open("tcp", "0.0.0.0", 29500)
        web(node, 80, other)
        keeper.full_pass()
        assert {number_of(armed)} == numbers(node)
        assert follow(keeper, [CgroupEvent(path_of(armed), number_of(other))]).quick
        assert follow(keeper, [CgroupEvent(SLICE, number_of(other.parent))]).full == ""
        assert {number_of(armed)} == numbers(node)
        assert "open" == stranger(node, 80)


def test_an_events_backlog_opens_nothing(lab: Lab, folder: Path) -> None:
    """It speaks against being the API only, unless the kernel's queue is as long."""
    node = Guarded(lab, folder)
    script = node.folder / "vllm"
    script.write_text(SERVE)
    script.chmod(0o755)
    with kept(node) as keeper:
        node._program([str(script), "serve", "tiny", "--port", "0"], {**os.environ})
        keeper.full_pass()
        (pid,) = keeper.members
        follow(keeper, [ListenEvent(pid, 8123, 2048, WILDCARD)])
        for backlog in (2048, -1, 1024, 4096):
            follow(keeper, [ListenEvent(pid, 9555, backlog, WILDCARD)])
            for pass_again in (keeper.quick_pass, keeper.full_pass):
                pass_again()
                assert "timeout" == stranger(node, 9555)
                assert "open" == stranger(node, 8123)
        (workload,) = keeper.recognition.workloads
        roles = {one.listener.port: one.label.role for one in workload.listeners}
        assert (Role.API, True) == (roles[8123], roles[9555] is not Role.API)


def test_a_port_of_somebody_else_is_not_closed(lab: Lab, folder: Path) -> None:
    """Not even until the next pass."""
    node = Guarded(lab, folder)
    with kept(node) as keeper:
        node.rank().open("tcp", "0.0.0.0", 29500)
        web(node, 80)
        keeper.full_pass()
        (pid,) = keeper.members
        follow(keeper, [ListenEvent(pid, 80, 128, WILDCARD), ListenEvent(pid, 81, 128, WILDCARD)])
        assert "open" == stranger(node, 80)
        active = keeper.walls.actual(min(keeper.home))
        assert active and {29500, 81} == {one.port for one in active.entries}


def test_a_storm_of_programs_is_left_to_the_next_pass(lab: Lab, folder: Path) -> None:
    """Each is read at once, up to a number; a user's execs do not keep the loop from the rest."""
    node = Guarded(lab, folder)
    with kept(node) as keeper:
        keeper.full_pass()
        rank = node.rank()
        others = [ExecEvent(2**22 + number) for number in range(64)]
        begun = ExecEvent(rank._process.pid)
        in_time = follow(keeper, [*others[:-1], begun])
        assert (in_time.quick, in_time.full) == (True, "")
        others.append(ExecEvent(2**22 + 64))
        late = follow(keeper, others)
        assert (late.quick, late.full) == (False, "lost events")
        anothers = follow(keeper, [*others, begun])  # of a user who has no part in it
        assert (anothers.quick, anothers.full) == (True, "lost events")


def test_nobody_waits_for_another_users_storm(lab: Lab, folder: Path) -> None:
    """However many listeners somebody else opens before; what he has closed again is not read."""
    node = Guarded(lab, folder)
    with kept(node) as keeper:
        job = node.rank()
        job.open("tcp", "0.0.0.0", 29500)
        keeper.full_pass()
        (pid,) = keeper.members
        storm = [ListenEvent(2**22 + number, 1000 + number, 5, WILDCARD) for number in range(1000)]
        job.open("tcp", "0.0.0.0", 29501)
        opened = ListenEvent(pid, 29501, 128, WILDCARD)
        followed = follow(keeper, [*storm, opened])
        assert "lost events" == followed.full
        assert "timeout" == stranger(node, 29501)
        closed = [CloseEvent(one.tid, one.port) for one in storm]
        again = follow(keeper, [*storm, *closed, opened, replace(opened, address=ANY6)])
        assert ("", [(opened, pid)], 1) == (again.full, list(again.waiting), len(again.reactions))


@pytest.mark.parametrize("boxed", [False, True], ids=["here", "in a box"])
def test_random_names(node: Guarded, folder: Path, boxed: bool) -> None:
    """Of programs, arguments, threads, cgroups and sockets, some of them made of events."""
    programs = folder / "programs"
    programs.mkdir()
    programs.chmod(0o777)
    with cgroup(f"/vwfuzz{os.getpid()}.slice/web.service") as group, unit() as armed:
        os.chown(group, USER, USER)
        rank = node.rank(armed)
        rank.open("tcp", "0.0.0.0", 29500)
        wait_for_guard(node, armed)
        pid = serve(node)
        web(node, 80, group)
        web(node, 9000)
        lines = [
            trace_line(pid, "sys_listen(fd: 5, backlog: 800)"),
            *(listen_line(pid, port) for port in (9555, 80, 9000)),
            trace_line(1, f"cgroup_mkdir: root=0 id={number_of(group)} level=2 path={SLICE}"),
            trace_line(1, f"cgroup_mkdir: root=0 id=1 level=2 path={path_of(armed)}"),
            "CPU:1 [LOST 12 EVENTS]",
        ]
        liar = fuzz(node, (programs, group), lines, 6, boxed)
        while liar.poll() is None:
            seen = [stranger(node, port) for port in (80, 9000, 8123, 9555, 29500)]
            assert ["open", "open", "open", "timeout", "timeout"] == seen
        assert liar.stdout and int(liar.stdout.read()) > 100
        assert [] == node.logged(EventKey.EVENT_FAILED) + node.logged(EventKey.PASS_FAILED)
