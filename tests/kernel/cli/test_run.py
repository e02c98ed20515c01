"""`vllmwall run` where no systemd runs: a plain cgroup, the daemon's word, then the job itself.

Every test has a cgroup namespace of its own, as a container has: what the command calls
/vllmwall.slice is a folder of the test's. The daemon is the real control socket with an answer
of the test's; the scopes of a real systemd are tested in tests/system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cgroups
from tests.support.guarded import eventually
from tests.support.lab import Lab
from tests.support.serving import served
from tests.support.walls import wall
from vllmwall.api.commands import Command
from vllmwall.api.errors import ControlError, Json
from vllmwall.api.server import ControlServer
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.linux.netns import inode_of
from vllmwall.model import Guard

RUN = [sys.executable, "-m", "vllmwall", "run"]
# A mount namespace without systemd, in which the test's cgroup is the root of the hierarchy.
_CONTAINED = """
echo $$ >"$1/cgroup.procs" && exec unshare --cgroup --mount sh -c '
if [ -d /run/systemd/system ]; then mount -t tmpfs none /run/systemd; fi
umount --lazy "$1" && mount -t cgroup2 none "$1" && before=$2 && shift 2 &&
eval "$before" && exec "$@"' sh "${@:2}"
"""
SERVER = """
import socket, sys, time
one = socket.create_server(("0.0.0.0", 29500))
print("ready", flush=True)
time.sleep(600)
"""


class Container:
    """A place with cgroups of its own and a daemon that answers as the test says."""

    def __init__(self, folder: Path, socket_path: Path) -> None:
        self.folder = folder
        self.socket_path = socket_path
        self.answer: Json | ControlError = {"guarded": True, "why": "", "cgroup": "?"}
        self.asked: list[str] = []

    @property
    def slice(self) -> Path:
        """Where jobs go."""
        return self.folder / "vllmwall.slice"

    def scopes(self) -> list[str]:
        """The cgroups of jobs that there are."""
        return sorted(one.name for one in self.slice.glob("*.scope"))

    def told(self, command: Command[object, object], question: object) -> Json:
        """What the daemon says; it notes who is in the scopes when it is asked."""
        held = (one.read_text().split() for one in self.slice.glob("*.scope/cgroup.procs"))
        self.asked += [pid for pids in held for pid in pids]
        if isinstance(self.answer, ControlError):
            raise self.answer
        return self.answer

    def argv(self, *arguments: str, before: str = ":") -> list[str]:
        """The command line of ``vllmwall run ARGUMENTS`` in here, after ``before``."""
        mount = str(cgroups.root())
        return ["bash", "-c", _CONTAINED, "bash", str(self.folder), mount, before, *RUN, *arguments]

    def popen(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """Start it."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {**os.environ, "VLLMWALL_SOCKET": str(self.socket_path)}
        argv = self.argv(*arguments)
        return subprocess.Popen(argv, env=env, text=True, **{**pipes, **options})  # type: ignore[call-overload,no-any-return]

    def run(self, *arguments: str, before: str = ":") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        env = {**os.environ, "VLLMWALL_SOCKET": str(self.socket_path)}
        argv = self.argv(*arguments, before=before)
        return subprocess.run(argv, env=env, text=True, capture_output=True, check=False)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    with cgroups.cgroup(f"/vwrun-{os.getpid()}") as folder:
        made = Container(folder, tmp_path / "control.sock")
        with served(ControlServer(made.socket_path, made.told)):
            yield made
        for one in [*folder.glob("**/")][::-1]:
            cgroups.remove(one)


def cgroup_of(text: str) -> str:
    """The v2 line of /proc/PID/cgroup."""
    return next(line[3:] for line in text.splitlines() if line.startswith("0::"))


def test_the_job_is_in_a_cgroup_of_its_own_from_its_first_instruction(container: Container) -> None:
    """And it is the very process that was started."""
    job = container.popen("--", "cat", "/proc/self/cgroup")
    out, errors = job.communicate()
    assert (0, "") == (job.returncode, errors)
    assert cgroup_of(out).startswith(f"/vllmwall.slice/run-{job.pid}-")


def test_the_daemon_is_asked_from_inside_before_the_job_starts(container: Container) -> None:
    """It guards the cgroup of whoever asks: asked from outside it would guard another one."""
    job = container.popen("--", "true")
    job.communicate()
    assert [str(job.pid)] == container.asked


def test_input_status_and_signals_are_the_jobs_own(container: Container) -> None:
    """A script that ran the command itself sees no difference."""
    job = container.popen("--", "sh", "-c", "read line; echo $line; exit 77")
    assert ("hello\n", "") == job.communicate("hello\n")
    assert 77 == job.returncode
    job = container.popen("sleep", "600")
    eventually(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", "the job runs")
    job.terminate()
    job.communicate()
    assert -signal.SIGTERM == job.returncode


def test_no_signal_is_ignored_in_the_job_that_was_not_before(container: Container) -> None:
    """Python ignores SIGPIPE: a job that inherits that never ends behind `| head`."""
    ignored = next(
        line.split()[1]
        for line in container.run("cat", "/proc/self/status").stdout.splitlines()
        if line.startswith("SigIgn")
    )
    assert 0 == int(ignored, 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_the_terminal_stays_the_jobs(container: Container) -> None:
    """It is in the foreground of the terminal that it was started in."""
    script = "import os; print(os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp())"
    argv = container.argv("--", sys.executable, "-c", script)
    said = _on_terminal(argv, {**os.environ, "VLLMWALL_SOCKET": str(container.socket_path)})
    assert "True" in said


def _on_terminal(argv: list[str], env: dict[str, str]) -> str:
    """What a command says on a terminal of its own."""
    main, other = os.openpty()
    job = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *argv], stdin=other, stdout=other, stderr=other, env=env
    )
    os.close(other)
    said = b""
    with contextlib.suppress(OSError):  # EIO: the last one that had it open is gone
        while part := os.read(main, 4096):
            said += part
    os.close(main)
    job.wait()
    return said.decode()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"guarded": False, "why": "guards are switched off"}, "guards are switched off"),
        ({}, "the daemon does not say why"),
        (ControlError("failed", "no memory"), "no memory"),
        (ControlError("denied", "join group vllmwall"), "join group vllmwall"),
    ],
)
def test_what_cannot_be_guarded_is_not_started(
    container: Container, answer: Json | ControlError, words: str, tmp_path: Path
) -> None:
    """Unless it shall start anyway: then it does, with the same words as a warning."""
    container.answer = answer
    started = tmp_path / "started"
    done = container.run("--", "touch", str(started))
    assert (125, "") == (done.returncode, done.stdout)
    assert words in done.stderr
    assert not started.exists()
    done = container.run("--anyway", "--", "touch", str(started))
    assert 0 == done.returncode
    assert "warning" in done.stderr
    assert words in done.stderr
    assert started.exists()


def test_without_a_daemon_nothing_is_started(container: Container) -> None:
    """Its words say how to start it."""
    container.socket_path = container.socket_path.with_name("none.sock")
    done = container.run("echo", "hello")
    assert (125, "") == (done.returncode, done.stdout)
    assert "systemctl start vllmwall" in done.stderr
    assert "hello\n" == container.run("--anyway", "echo", "hello").stdout


def test_what_is_no_command_makes_nothing(container: Container) -> None:
    """The statuses are those of every shell; nobody is asked, no cgroup made."""
    assert [127, 126] == [container.run(one).returncode for one in ("nonesuch", "/etc/passwd")]
    assert ([], []) == (container.asked, container.scopes())


def test_a_name_is_part_of_the_cgroups(container: Container) -> None:
    """And it is taken while its job runs."""
    out = container.run("--name", "llama", "cat", "/proc/self/cgroup").stdout
    assert "/vllmwall.slice/run-llama.scope" == cgroup_of(out)
    job = container.popen("--name", "llama", "sh", "-c", "echo ready; read end")
    assert job.stdout is not None
    assert "ready\n" == job.stdout.readline()
    done = container.run("--name", "llama", "true")
    assert 125 == done.returncode
    assert "another --name" in done.stderr
    job.communicate()


@pytest.mark.parametrize("name", ["a/b", "..", "x y", "-x", "x" * 101])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(
    container: Container, name: str
) -> None:
    """It goes into a path and a unit's name."""
    assert 2 == container.run(f"--name={name}", "true").returncode
    assert [] == container.scopes()


def test_empty_cgroups_do_not_pile_up(container: Container) -> None:
    """Those of jobs that ended go with the next start; what a job left running stays."""
    for _ in range(3):
        container.run("true")
    container.run("--name", "left", "sh", "-c", "sleep 600 >/dev/null 2>&1 <&1 &")
    container.run("--name", "last", "true")
    assert ["run-last.scope", "run-left.scope"] == container.scopes()


def test_jobs_that_start_at_once_do_not_disturb_each_other(container: Container) -> None:
    """A cgroup is empty for a moment before its job is in it: nobody may sweep it then."""
    jobs = [container.popen("true") for _ in range(24)]
    assert [("", "")] * 24 == [job.communicate() for job in jobs]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("mount -o remount,bind,ro {mount}", "read-only"),
        ("umount -a -t cgroup2", "no cgroup v2 hierarchy is mounted"),
        ("echo 0 >{mount}/cgroup.max.descendants", "cgroup.max.descendants"),
    ],
)
def test_why_there_is_no_cgroup_is_said(container: Container, before: str, words: str) -> None:
    """What is wrong, where, and what to do; and nothing is started."""
    done = container.run("echo", "hello", before=before.format(mount=cgroups.root()))
    assert (125, "") == (done.returncode, done.stdout)
    assert words in done.stderr


def test_who_may_not_make_cgroups_is_told(container: Container) -> None:
    """An ordinary user without a service manager, here root without the power over files."""
    container.folder.chmod(0o555)
    powerless = "set -- setpriv --bounding-set=-dac_override"
    done = container.run("echo", "hello", before=f'{powerless} "$@"')
    assert (125, "") == (done.returncode, done.stdout)
    assert "Run it as root" in done.stderr


def test_a_server_that_listens_at_once_is_closed_by_the_slices_guard(
    container: Container, lab: Lab, backend: Nftables
) -> None:
    """The guard stands on the slice: what the job opens a moment after exec is covered."""
    container.slice.mkdir()
    level = len(container.slice.relative_to(cgroups.root()).parts)
    guard = Guard(level, container.slice.stat().st_ino, f"/{container.folder.name}/vllmwall.slice")
    node = lab.node
    bare = wall(node, [])
    wanted = type(bare)(inode_of(node.path), bare.entries, bare.networks, guards=frozenset({guard}))
    backend.apply(node.path, wanted, None)
    env = {**os.environ, "VLLMWALL_SOCKET": str(container.socket_path)}
    job = node.popen(container.argv("--", sys.executable, "-c", SERVER), env=env)
    assert job.stdout is not None
    assert "ready\n" == job.stdout.readline()
    assert "timeout" == lab.stranger.connect(node.ipv4, 29500)
    assert "open" == lab.peer.connect(node.ipv4, 29500)
