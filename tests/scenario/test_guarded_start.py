"""`vllmwall run` and the real daemon: closed before the first listen, and nothing left behind."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cgroups
from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.guarding import (
    PORT,
    all_numbers,
    asleep,
    number_of,
    numbers,
    path_of,
    refuses,
    stranger,
    unit,
)
from tests.support.lab import Lab
from vllmwall.linux.cgroups import SLICE

# A plain cgroup is what this is about, also on a machine with systemd.
_HIDDEN = "if [ -d /run/systemd/system ]; then mount -t tmpfs none /run/systemd; fi"
RUN = ["sh", "-c", f'{_HIDDEN}; exec "$@"', "sh", sys.executable, "-m", "vllmwall", "run"]
# Nothing in its command line tells what it is; it listens when it is told to.
SERVER = """
import socket, sys
held = []
print("ready", flush=True)
for line in sys.stdin:
    held.append(socket.create_server(("0.0.0.0", int(line))))
    print("listening", flush=True)
"""


class Job:
    """A command on the node, below `vllmwall run`."""

    def __init__(self, node: Guarded, *arguments: str) -> None:
        env = {**os.environ, "VLLMWALL_SOCKET": str(node.runtime / "control.sock")}
        self.process = subprocess.Popen(
            node.lab.node.command([*RUN, *arguments]),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        node.lab.node._stack.callback(self.end)

    def hears(self, line: str) -> None:
        """Wait for its next line."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        assert f"{line}\n" == found, found + self._errors()

    def listen(self, port: int) -> None:
        """Have `SERVER` open a port."""
        assert self.process.stdin is not None
        print(port, file=self.process.stdin, flush=True)
        self.hears("listening")

    def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def _errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


@pytest.fixture(autouse=True)
def slice_folder() -> Iterator[Path]:
    """Where jobs go."""
    with cgroups.shared_slice() as folder:
        yield folder


def server(node: Guarded, name: str = "") -> Job:
    """A job that has started and has not listened yet."""
    job = Job(node, *(["--name", name] if name else []), sys.executable, "-c", SERVER)
    job.hears("ready")
    return job


def test_a_jobs_first_port_is_closed_before_it_exists(node: Guarded, slice_folder: Path) -> None:
    """The daemon sleeps from the moment that the job runs: only the guard can refuse."""
    job = server(node)
    assert number_of(slice_folder) in all_numbers(node)
    with asleep(node):
        job.listen(PORT)
        assert refuses(node)


def test_the_daemon_may_die_after_the_job_has_begun(node: Guarded) -> None:
    """The guard is the kernel's by then."""
    job = server(node)
    node.stop(signal.SIGKILL)
    job.listen(PORT)
    assert refuses(node)


def test_jobs_do_not_close_what_runs_beside_them(node: Guarded) -> None:
    """Two jobs are closed, a server of the same user that was started plainly is not."""
    first, second, other = server(node), server(node), node.bystander()
    with asleep(node):
        first.listen(PORT)
        second.listen(PORT + 1)
        other.open("tcp", "0.0.0.0", PORT + 2)
        assert refuses(node)
        assert refuses(node, PORT + 1)
        assert "open" == stranger(node, PORT + 2)
    node.ask("reload")
    assert refuses(node)
    assert "open" == stranger(node, PORT + 2)


def test_a_job_in_another_namespace_is_guarded_there(lab: Lab, tmp_path: Path) -> None:
    """Its ports are where it runs, not where the daemon does."""
    elsewhere = copy.copy(lab)
    elsewhere.node = lab.host("pod", "198.51.100.7", "2001:db8:7::7")
    pod = Guarded(elsewhere, tmp_path / "pod")
    also = ("--only-namespace", elsewhere.node.path)
    with guarded(lab, tmp_path / "node", arguments=also) as node:
        pod.runtime = node.runtime
        job = server(pod)
        with asleep(node):
            job.listen(PORT)
            assert refuses(pod)


@pytest.mark.parametrize(("command", "status"), [(["false"], 1), (["sh", "-c", "exit 77"], 77)])
def test_the_jobs_status_is_the_commands(node: Guarded, command: list[str], status: int) -> None:
    """Scripts see no difference."""
    job = Job(node, "--", *command)
    assert ("", "") == job.process.communicate()
    assert status == job.process.returncode


def test_nobody_can_have_anothers_cgroup_guarded(node: Guarded) -> None:
    """The kernel names the process that asks; another one that it names is not looked at."""
    with unit() as mine, unit() as others:
        web = node.bystander(others)
        web.open("tcp", "0.0.0.0", PORT)
        asked = "from vllmwall.api.client import request; from pathlib import Path; "
        asked += (
            f"a = {{'pid': {web._process.pid}}}; s = Path({str(node.runtime)!r}) / 'control.sock'"
        )
        argv = [sys.executable, "-c", f"{asked}; print(request('guard', a, s)['cgroup'])"]
        process = node.lab.node.popen(cgroups.inside(mine, argv))
        assert process.stdout and f"{path_of(mine)}\n" == process.stdout.read()
        assert number_of(others) not in all_numbers(node)
        assert "open" == stranger(node)


def test_a_job_that_ended_leaves_no_guard(node: Guarded, slice_folder: Path) -> None:
    """Nor a memory of its scope; the slice stays guarded for the next job."""
    job = server(node, f"llama-{os.getpid()}")
    scope = slice_folder / f"run-llama-{os.getpid()}.scope"
    assert scope.is_dir()
    job.end()
    cgroups.remove(scope)
    node.ask("reload")
    assert {number_of(slice_folder)} == all_numbers(node)
    assert not armed_scopes(node)


def test_a_job_that_was_killed_leaves_no_cgroup(
    lab: Lab, tmp_path: Path, slice_folder: Path
) -> None:
    """Nor its starter, killed before there was a job; those of living jobs stay."""
    with guarded(lab, tmp_path, before=_HIDDEN) as node:
        killed, living = server(node, f"killed-{os.getpid()}"), server(node, f"lives-{os.getpid()}")
        begun = slice_folder / f"run-begun-{os.getpid()}.scope"
        begun.mkdir()  # as far as the starter came
        killed.end()
        scope = slice_folder / f"run-killed-{os.getpid()}.scope"
        eventually(lambda: not (scope / "cgroup.procs").read_text(), "its processes are gone")
        node.ask("reload")
        assert (False, False) == (scope.exists(), begun.exists())
        assert (slice_folder / f"run-lives-{os.getpid()}.scope").exists()
        with asleep(node):
            living.listen(PORT)
            assert refuses(node)


def armed_scopes(node: Guarded) -> list[str]:
    """The scopes of jobs that the daemon guards as soon as they are made again."""
    kept = json.loads((node.runtime / "armed.json").read_text())
    return [path for path in kept if path.endswith(".scope")]


def test_a_slice_that_is_made_again_is_guarded_again(lab: Lab, tmp_path: Path) -> None:
    """Systemd removes an empty slice. The daemon sees a hierarchy that no job but ours is in."""
    with cgroups.cgroup(f"/vwslice-{os.getpid()}") as folder:
        below = folder / SLICE.lstrip("/")
        with guarded(lab, tmp_path, before=cgroups.contained(folder)) as node:
            assert not numbers(node)
            for _ in range(2):
                below.mkdir()
                eventually(lambda: number_of(below) in numbers(node), "guarded", node.log)
                number = number_of(below)
                below.rmdir()
                node.ask("reload")
                assert number not in numbers(node)


def test_the_reason_of_the_daemon_reaches_the_user(lab: Lab, tmp_path: Path) -> None:
    """What cannot be guarded is not started, unless with --anyway."""
    node = Guarded(lab, tmp_path)
    node.configure(f"{PEERS}[guards]\nenabled = false\n")
    node.start()
    started = tmp_path / "started"
    for option, status in ((["--anyway"], 0), ([], 125)):
        started.unlink(missing_ok=True)
        job = Job(node, *option, "--", "touch", str(started))
        _, errors = job.process.communicate()
        assert "guards are switched off in the configuration" in errors
        assert (status, status == 0) == (job.process.returncode, started.exists())
    node.stop()
