"""Trace instances: those of killed daemons are removed, those of living ones never."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from vllmwall.linux.tracefs import Instance, mounted, remove_abandoned

HOLDS = """
import os, sys
held = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """An instance that records, named as that of a daemon with some runtime folder."""
    try:
        made = mounted() / "instances" / f"vllmwall-{secrets.token_hex(4)}"
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no tracefs here: {error}")
    yield made
    if made.exists():
        made.rmdir()


@pytest.fixture
def used(folder: Path) -> Iterator[TextIO]:
    """An open file in it: daemons that other tests start do not remove it meanwhile."""
    with (folder / "tracing_on").open() as held:
        (folder / "events/syscalls/sys_enter_listen/enable").write_text("1")
        yield held


def test_a_daemon_removes_what_killed_ones_left(folder: Path) -> None:
    """Whatever their runtime folder was: each of them recorded every listen of the machine."""
    second = folder.with_name(f"{folder.name}.2")
    second.mkdir()
    Instance(f"vwtest-{os.getpid()}").close()
    assert (False, False) == (folder.exists(), second.exists())


@pytest.mark.parametrize("file", ["trace_pipe", "per_cpu/cpu0/trace_pipe_raw"])
@pytest.mark.parametrize("box", [(), ("unshare", "--pid", "--fork", "--mount-proc")])
def test_a_living_daemons_instance_is_not_removed(
    folder: Path, used: TextIO, file: str, box: tuple[str, ...]
) -> None:
    """Whatever part of it is open still, and though its process has no number here."""
    command = [*box, sys.executable, "-c", HOLDS, str(folder / file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout and "ready\n" == daemon.stdout.readline()
        used.close()
        remove_abandoned()
        assert "1\n" == (folder / "events/syscalls/sys_enter_listen/enable").read_text()
        daemon.communicate()
    remove_abandoned()
    assert not folder.exists()


def test_other_programs_instances_are_left_alone() -> None:
    """Though nobody reads them now."""
    other = mounted() / "instances" / f"vllmwalls-{os.getpid()}"
    other.mkdir()
    try:
        remove_abandoned()
        assert other.exists()
    finally:
        other.rmdir()
