"""A job that systemd moved into its scope, and the unit from which it was started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cgroups import cgroup, inside, shared_slice
from tests.support.guarded import Guarded
from tests.support.lab import Lab
from tests.support.reconciling import kept
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.netns import inode_of

SERVES = "import socket; s = socket.create_server(('', 29700)); print('ready', flush=True); input()"
STARTS_A_CHILD = f'sleep 600 & echo $!; wait; read word; exec {sys.executable} -c "{SERVES}"'


@pytest.fixture
def keeper(lab: Lab, tmp_path: Path) -> Iterator[Reconciler]:
    """A keeper of the lab's node."""
    with kept(Guarded(lab, tmp_path)) as found:
        yield found


def test_the_unit_that_started_a_job_gets_no_guard(lab: Lab, keeper: Reconciler) -> None:
    """Not for a child that ended there before the job was moved; who runs CI keeps its ports."""
    ours = f"vwmoved-{os.getpid()}"
    with shared_slice() as jobs, cgroup(f"/{ours}.service") as unit:
        scope = jobs / f"{ours}.scope"
        scope.mkdir(parents=True)
        command = lab.node.command(inside(unit, ["sh", "-c", STARTS_A_CHILD]))
        pipe = subprocess.PIPE
        job = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        try:
            assert job.stdin is not None
            assert job.stdout is not None
            child = int(job.stdout.readline())
            keeper.full_pass()
            keeper.observer.note_exec(child)
            subprocess.run(["kill", str(child)], check=True)
            (scope / "cgroup.procs").write_text(str(job.pid))
            assert "" == keeper.guard(job.pid).why_not
            print("go", file=job.stdin, flush=True)
            assert "ready\n" == job.stdout.readline()
            keeper.observer.note_exec(job.pid)
            keeper.observer.observe_listen(job.pid, 29700, 128)
            keeper.quick_pass()
            assert job.pid in keeper.members
        finally:
            job.kill()
            job.communicate()
        standing = keeper.walls.actual(inode_of(lab.node.path))
        assert standing is not None
        numbers = {guard.id for guard in standing.guards}
        assert scope.parent.stat().st_ino in numbers
        assert unit.stat().st_ino not in numbers
