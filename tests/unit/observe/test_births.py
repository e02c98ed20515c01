"""Births in the process table of a later daemon, as an earlier one saw them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.support.waiting import eventually
from vllmwall.linux.wire import Fit, decode, encode
from vllmwall.model import Process, Stack
from vllmwall.observe.births import Birth, Recalled
from vllmwall.observe.processes import ProcessTable

SECRET = "sk-very-secret"
# As setproctitle does, with the environment behind the arguments.
RENAME = """
import ctypes
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[45]), int(fields[48])
ctypes.memmove(start, b"VLLM::Worker" + bytes(end - start - 12), end - start)
print("renamed", flush=True)
sys.stdin.read()
"""
GATE = "import sys; sys.stdin.readline(); exec(sys.argv[1])"


@pytest.fixture
def started() -> Iterator[ExitStack]:
    """Processes put on this stack are killed and reaped."""
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, *argv: str, **env: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **env}, process_group=0
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def server(stack: ExitStack, *flags: str, **env: str) -> subprocess.Popen[str]:
    """A program that overwrites its command line and its environment when it is told to."""
    return start(stack, sys.executable, "-c", GATE, RENAME, *flags, **env)


def rename(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    print("go", file=process.stdin, flush=True)
    assert "renamed\n" == process.stdout.readline()


def seen(table: ProcessTable, pid: int, word: str) -> Process:
    """The process, once its command line holds this word."""
    eventually(lambda: (one := table.look_at(pid)) and word in one.argv, f"{word} is there")
    return table.processes[pid]


def stored(table: ProcessTable, *pids: int) -> list[Birth]:
    """What is stored of them, through JSON."""
    births = [one for _, one in table.births(pids) if one.pid in pids]
    texts = [json.dumps(encode(one.without_secrets())) for one in births]
    return [decode(Birth, json.loads(text), Fit.WHOLE) for text in texts]


def later(births: list[Birth]) -> ProcessTable:
    """The table of the daemon that comes next."""
    table = ProcessTable()
    table.recalled = Recalled(births)
    return table


def test_a_later_daemon_knows_what_a_title_has_overwritten(started: ExitStack) -> None:
    """Flags, environment and the workload that it belonged to."""
    child = server(started, "--port", "8123", MASTER_PORT="29777")
    table = ProcessTable()
    before = seen(table, child.pid, "--port")
    table.remember({child.pid: Stack.VLLM})
    births = stored(table, child.pid)
    rename(child)
    late, recalled = ProcessTable().look_at(child.pid), later(births).look_at(child.pid)
    assert late is not None
    assert recalled is not None
    assert ("VLLM::Worker",) == late.started_as == recalled.argv
    assert "MASTER_PORT" not in late.env
    assert ("--port", "8123") == recalled.started_as[-2:]
    assert len(before.argv) == len(recalled.started_as)
    assert ("29777", Stack.VLLM) == (recalled.env["MASTER_PORT"], recalled.remembered)


def test_what_can_still_be_read_is_read(started: ExitStack) -> None:
    """The words on disk are those of a snapshot; a definition may match others."""
    child = server(started, "--model", "/srv/own/path", "--port", "8123")
    table = ProcessTable()
    before = seen(table, child.pid, "--port")
    recalled = later(stored(table, child.pid)).look_at(child.pid)
    assert recalled is not None
    assert before.exec_argv == recalled.exec_argv


def test_a_fork_has_the_words_of_its_parent(started: ExitStack) -> None:
    """Whole, as it had before: the workers of gunicorn are known by that."""
    fork = "import os, signal; p = os.fork(); p and print(p, flush=True); p and signal.pause()"
    parent = start(started, sys.executable, "-c", f"{fork}\n{GATE}", RENAME, "what no file holds")
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    table = ProcessTable()
    seen(table, parent.pid, "what no file holds")
    before = seen(table, pid, "what no file holds")
    births = stored(table, parent.pid, pid)
    rename(parent)  # only the child reads
    again = later(births)
    again.look_at(parent.pid)
    recalled = again.look_at(pid)
    assert recalled is not None
    assert (("VLLM::Worker",), before.exec_argv) == (recalled.argv, recalled.exec_argv)


def test_no_secret_is_stored(started: ExitStack) -> None:
    """Neither of the command line nor of the environment."""
    flags = ("--api-key", SECRET, f"--token={SECRET}", SECRET)
    child = server(started, *flags, MASTER_ADDR=SECRET, OTHER=SECRET, MASTER_PORT="29777")
    table = ProcessTable()
    seen(table, child.pid, "--api-key")
    text = json.dumps([encode(one) for one in stored(table, child.pid)])
    assert "29777" in text
    assert SECRET not in text


def test_the_settings_file_is_found_again(started: ExitStack) -> None:
    """Its path is no secret, and what is in it is read again."""
    child = server(started, "vllm", "serve", "--config", "/srv/my settings.yaml", "--token", SECRET)
    table = ProcessTable()
    seen(table, child.pid, "--config")
    births = stored(table, child.pid)
    rename(child)
    recalled = later(births).look_at(child.pid)
    assert recalled is not None
    words = recalled.started_as
    assert "/srv/my settings.yaml" == words[words.index("--config") + 1]
    assert SECRET not in words


def test_another_program_of_the_same_process_is_another(started: ExitStack) -> None:
    """``nice``, ``env`` and ``setpriv`` become the server; the parent is the first one still."""
    for wrapper in ("nice", "env", "setpriv"):
        gate = 'read go; exec "$@"'
        child = start(
            started, "sh", "-c", gate, "sh", wrapper, sys.executable, "-c", GATE, "--late"
        )
        table = ProcessTable()
        seen(table, child.pid, wrapper)
        table.remember({child.pid: Stack.VLLM})
        births = stored(table, child.pid)
        assert child.stdin is not None
        print("go", file=child.stdin, flush=True)
        now = later(births)
        recalled = seen(now, child.pid, "--late")
        eventually(lambda p=child.pid, t=now: t.look_at(p).argv[0] == sys.executable, "it runs")
        recalled = now.processes[child.pid]
        assert recalled.exec_argv == recalled.argv
        assert (recalled.remembered, recalled.birth_ppid) == (None, os.getpid())


def test_an_orphan_keeps_its_first_parent(started: ExitStack) -> None:
    """After a double fork too."""
    code = "import os, sys; os.fork() and os._exit(0); print(os.getpid(), flush=True); input()"
    parent = start(started, sys.executable, "-c", f"input()\n{code}")
    table = ProcessTable()
    seen(table, parent.pid, "-c")
    assert parent.stdin is not None
    assert parent.stdout is not None
    print("go", file=parent.stdin, flush=True)
    pid = int(parent.stdout.readline())
    parent.wait()
    child = table.look_at(pid)
    assert child is not None
    births = [replace(one, parent=parent.pid) for one in stored(table, pid)]
    recalled = later(births).look_at(pid)
    assert recalled is not None
    assert parent.pid == recalled.birth_ppid != recalled.ppid


def test_another_process_of_the_same_pid_is_another(started: ExitStack) -> None:
    """Its start time is another one, and so nothing is recalled."""
    child = server(started, "--port", "8123")
    table = ProcessTable()
    seen(table, child.pid, "--port")
    (birth,) = stored(table, child.pid)
    rename(child)
    before = replace(birth, program=(birth.start_time - 1, birth.program[1]), parent=4)
    recalled = later([before]).look_at(child.pid)
    assert recalled is not None
    assert ("VLLM::Worker",) == recalled.started_as
    assert recalled.birth_ppid == os.getpid()
