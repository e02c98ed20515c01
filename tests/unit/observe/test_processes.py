"""Real processes that rename themselves, exec, end and lie."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from vllmwall.model import Stack
from vllmwall.observe import processes
from vllmwall.observe.processes import ProcessTable, read_cgroup, read_environ, read_stat

# What setproctitle does, by hand: overwrite the argument area, and with it the environment.
RENAME = """
import ctypes, sys
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[45]), int(fields[46])
title = b"VLLM::Worker" + bytes(max(0, end - start - 12))
ctypes.memmove(start, title, end - start)
open("/proc/self/comm", "w").write("VLLM::Worker")
print("renamed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def started() -> Iterator[ExitStack]:
    """Processes put on this stack are killed and reaped."""
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def test_a_process_that_renamed_itself_keeps_the_command_line_it_started_with(
    started: ExitStack,
) -> None:
    """setproctitle destroys cmdline and environ; what was read at exec stays."""
    gate = "import sys; sys.stdin.readline(); exec(sys.argv[1])"
    env = {**os.environ, "MASTER_PORT": "29777"}
    child = start(started, [sys.executable, "-c", gate, RENAME, "--port", "8123"], env)
    table = ProcessTable()
    wait_until(lambda: "--port" in (table.look_at(child.pid) or EMPTY).argv)
    print("go", file=child.stdin, flush=True)
    assert child.stdout is not None
    assert "renamed\n" == child.stdout.readline()
    process = table.look_at(child.pid)
    assert process is not None
    assert ("VLLM::Worker", "VLLM::Worker") == (process.argv[0], process.comm)
    assert ("--port", "8123") == process.started_as[-2:]
    assert "29777" == process.env["MASTER_PORT"]


EMPTY = processes.Process(pid=0, ppid=0, comm="")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 5 s"
        time.sleep(0.005)


def test_exec_makes_a_new_program_of_the_same_pid(started: ExitStack) -> None:
    """``bash -c 'exec vllm serve'``: the command line of bash must not be kept."""
    child = start(started, ["sh", "-c", "read go; exec cat"])
    table = ProcessTable()
    wait_until(lambda: (table.look_at(child.pid) or EMPTY).comm == "sh")
    table.remember({child.pid: Stack.VLLM})
    print("go", file=child.stdin, flush=True)
    wait_until(lambda: (table.look_at(child.pid) or EMPTY).comm == "cat")
    process = table.processes[child.pid]
    assert (("cat",), None) == (process.started_as, process.remembered)


def test_an_ended_process_is_forgotten(started: ExitStack) -> None:
    """A zombie has no sockets and is no process to us."""
    child = start(started, ["sleep", "100"])
    table = ProcessTable()
    table.scan()
    assert child.pid in table.processes
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    table.scan()
    assert child.pid not in table.processes


def test_the_first_parent_is_remembered_when_it_dies(started: ExitStack) -> None:
    """A killed vLLM root leaves its engine serving under pid 1."""
    parent = start(started, ["sh", "-c", "sleep 100 & echo $!; wait"])
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    table = ProcessTable()
    try:
        table.scan()
        parent.kill()
        parent.wait()
        process = table.look_at(child)
        assert process is not None
        assert parent.pid != process.ppid
        assert parent.pid == process.birth_ppid
    finally:
        os.kill(child, 9)


def test_a_name_with_parentheses_does_not_confuse_the_parser(started: ExitStack) -> None:
    """comm is the user's own: ``x) R 1 (`` is a legal name."""
    code = "open('/proc/self/comm','w').write('x) R 1 (');print(1,flush=True);input()"
    child = start(started, [sys.executable, "-c", code])
    assert child.stdout is not None
    child.stdout.readline()
    stat = read_stat(child.pid)
    assert stat is not None
    assert ("x) R 1 (", os.getpid()) == (stat.comm, stat.ppid)


def test_only_the_variables_that_recognition_reads_leave_the_environment(
    started: ExitStack,
) -> None:
    """Environments hold tokens."""
    child = start(started, ["cat"], {"HF_TOKEN": "hf_secret", "MASTER_PORT": "1", "PATH": "/bin"})
    wait_until(lambda: "MASTER_PORT" in read_environ(child.pid))
    assert {"MASTER_PORT": "1"} == dict(read_environ(child.pid))


def test_kernel_threads_are_no_processes() -> None:
    """They hold no sockets and would be read at every pass."""
    table = ProcessTable()
    table.scan()
    assert 2 not in table.processes


def test_want_of_descriptors_is_an_error_and_not_an_empty_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seeing nothing must never look like there being nothing."""

    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(processes.os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        read_stat(os.getpid())


def test_the_cgroup_is_an_absolute_path() -> None:
    """Also on hosts that mount cgroup v1 beside v2."""
    assert read_cgroup(os.getpid()).startswith("/")
