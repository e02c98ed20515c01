"""The table of processes, and users with many of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.attacks import MANY
from tests.support.hung_mount import USER, as_user
from tests.support.waiting import eventually
from vllmwall.observe.processes import ProcessTable

LONG = ["x" * 100_000]  # MOST_ARGUMENTS bytes of it are kept: forty fill most of a share
FORKS = 60


@pytest.fixture
def families() -> Iterator[list[int]]:
    """The leaders of two families of a user that have the same long command line."""
    with contextlib.ExitStack() as stack:
        leaders = []
        for _ in range(2):
            argv = as_user([sys.executable, "-c", MANY, *LONG])
            process = subprocess.Popen(argv, start_new_session=True)
            stack.callback(process.wait)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            leaders.append(process.pid)
        yield leaders


def test_a_program_and_its_forks_use_up_their_users_share_once(families: list[int]) -> None:
    """Data loaders are forks of a rank, with its command line: hundreds are no attack."""
    table = ProcessTable()

    def members() -> list[int]:
        table.scan()
        return [pid for pid, one in table.processes.items() if one.ppid in families]

    eventually(lambda: len(members()) == 2 * FORKS, "all have forked")
    table = ProcessTable()
    assert 2 * FORKS == len(members())
    assert {""} == {table.processes[pid].unread for pid in members()}
    assert (USER, 0) not in table.left_out
