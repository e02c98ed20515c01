"""A daemon whose PID and cgroup namespaces are not the machine's first, as in LXC and nspawn.

The kernel's events name processes and cgroups as the first namespaces do, so there they say that
something happened, and not to which process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.hammer import hammer, hammering
from tests.support.lab import Lab
from tests.support.waiting import eventually
from tests.system.box import ADDRESS, REPOSITORY, Box
from tests.system.units import NETWORK, UNITS

TORCH = REPOSITORY / ".venv-torch/bin/python"
JOB = f"""[Unit]
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
ExecStart={sys.executable} {REPOSITORY}/tests/system/server.py 29500
[Install]
WantedBy=sysinit.target
"""
TAUGHT = """[daemon]
full_pass_seconds = 600
[[workload]]
name = "job"
match = { unit = "job.service" }
"""


@pytest.fixture
def daemon(host: Box) -> Iterator[Box]:
    """A host whose daemon guards and knows of job.service, which does not run yet."""
    host.write(f"{UNITS}/network.service", NETWORK)
    host.write(f"{UNITS}/job.service", JOB)
    host.write("/etc/vllmwall/vllmwall.toml", TAUGHT)
    host.boot()
    host.run("systemctl", "start", "network")
    command = [sys.executable, "-m", "vllmwall", "daemon"]
    path = f"--setenv=PYTHONPATH={REPOSITORY}"
    host.run("systemd-run", "--unit=wall", "--service-type=notify", path, *command)
    yield host
    print(host.journal()[-3000:])


def test_a_unit_that_starts_is_guarded_before_it_runs(lab: Lab, daemon: Box) -> None:
    """By the number of its cgroup, whatever the kernel's path of it is."""
    verbs = iter(["start", *["restart"] * 8])

    def again() -> None:
        if verb := next(verbs, None):
            daemon.run("systemctl", verb, "job.service")
        time.sleep(0.3)

    tried, opened = hammer(lab.stranger, "tcp", (ADDRESS, 29500), 6.0, again)
    assert (True, 0) == (tried > 1000, opened)
    assert "open" == daemon_itself(daemon, 29500)


def test_a_process_that_no_event_names_is_found_at_once(lab: Lab, daemon: Box) -> None:
    """Real torch is guarded while it still loads."""
    if not TORCH.exists():
        pytest.skip("no .venv-torch (make .venv-torch/ready)")
    train = [str(TORCH), "-m", "torch.distributed.run", "--nproc-per-node=1", "--master-port=29501"]
    train += ["--master-addr=127.0.0.1", f"{REPOSITORY}/tests/workloads/train.py", "--steps=9999"]
    with hammering(lab.stranger, "tcp", (ADDRESS, 29501)) as attempts:
        daemon.run("systemd-run", "--quiet", "--unit=train", *train, "--pause=0.5")
        eventually(lambda: daemon_itself(daemon, 29501) == "open", "it listens", patience=120)
        time.sleep(1)  # open now, and hammered for a while
    assert (True, 0) == (attempts.tried > 1000, attempts.opened)


def daemon_itself(host: Box, port: int) -> str:
    """Whether something listens there at all: asked from inside."""
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('open')"
    return host.run(sys.executable, "-c", connect, check=False).stdout.strip()
