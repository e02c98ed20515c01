"""Nothing in the loop waits: a port is closed as fast beside requests in endless loops."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.asking import asked_in_loops
from tests.support.guarded import Guarded, Program, guarded
from tests.support.lab import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.serial]

# Connects again and again until one packet has been dropped, and prints for how many seconds
# connections were taken.
STRANGER = """
import json, socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
print("knows the way", flush=True)
first = last = None
end = time.monotonic() + 10
while time.monotonic() < end:
    s = socket.socket()
    s.settimeout(0.15)
    begun = time.monotonic()
    try:
        s.connect((address, port))
        first, last = first or begun, time.monotonic()
        time.sleep(0.004)  # nobody accepts: the backlog of 128 must not end it first
    except ConnectionRefusedError:
        time.sleep(0.0005)  # nothing listens yet
    except TimeoutError:
        break
    finally:
        s.close()
print(json.dumps(last - first if first else 0.0))
"""
ROUNDS = 12
MORE = 0.05  # seconds; what one stall of the loop may take at the longest


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def open_for(node: Guarded, rank: Program, port: int) -> float:
    """How long a stranger can connect to a port that a workload opens, in seconds."""
    argv = [sys.executable, "-c", STRANGER, node.lab.node.ipv4, str(port)]
    stranger = node.lab.stranger.popen(argv)
    assert stranger.stdout is not None
    stranger.stdout.readline()
    time.sleep(0.02)
    rank.open("tcp", "0.0.0.0", port)
    found = float(json.loads(stranger.stdout.read()))
    stranger.wait()
    return found


def test_a_port_is_closed_as_fast_beside_plan_reload_and_status(node: Guarded) -> None:
    """Who may ask questions may not slow the wall down."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", 21000)
    node.settled()
    quiet = [open_for(node, rank, 21001 + number) for number in range(ROUNDS)]
    with asked_in_loops(node.runtime / "control.sock", "plan", "reload", "status"):
        beside = [open_for(node, rank, 22001 + number) for number in range(ROUNDS)]
    assert statistics.median(beside) <= statistics.median(quiet) + MORE, (quiet, beside)
