"""The file of what was adopted: of another boot, not to be written, and of a process that ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from vllmwall.decide.adopted import Adopted, Contact
from vllmwall.engine.adoption import STATE_NAME, Adoption, FirstLook
from vllmwall.engine.contacts import Contacts
from vllmwall.model import (
    PUBLIC,
    Label,
    LabelledListener,
    Listener,
    Mode,
    Policy,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.observe.proc import read_stat

POLICY = Policy({Role.API: (PUBLIC,)})
HERE, WORKER = ip_address("10.0.0.1"), ip_address("10.0.0.2")
STORE = Listener(1, Proto.TCP, 29500, ip_address("0.0.0.0"))


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """The first process of a job."""
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started
        started.kill()


def job(process: subprocess.Popen[bytes]) -> Recognition:
    """A job with a store."""
    stat = read_stat(process.pid)
    assert stat is not None
    one = WorkloadId(process.pid, stat.start_time)
    store = LabelledListener(STORE, Label(Role.TCPSTORE, 1.0))
    return Recognition((Workload(one, Stack.TORCH, "job", frozenset(), (store,)),), ())


def look(adoption: Adoption, found: Recognition, **options: object) -> tuple[Adopted, ...]:
    """A complete pass that meets the worker; what counts then."""
    facts = {
        "policy": POLICY,
        "peers": (),
        "read": lambda workloads: Contacts((Contact(1, HERE, 29500, WORKER),)),
        "is_walled": lambda: False,
        "down": False,
        "is_whole": True,
    }
    adoption.look(found, FirstLook(**{**facts, **options}))  # type: ignore[arg-type]
    return adoption.in_force()


def test_it_is_read_back_for_the_same_boot_only(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Where /run survives a boot, a process number may be another job's."""
    found = job(process)
    adopted = look(Adoption(tmp_path), found)
    assert ["10.0.0.2"] == [str(one.address) for each in adopted for one in each.sources]
    assert adopted == look(Adoption(tmp_path), found)
    file = tmp_path / STATE_NAME
    assert 0o600 == file.stat().st_mode & 0o777
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    file.write_text(file.read_text().replace(boot, "another"))
    assert () == look(Adoption(tmp_path), found)


def test_what_cannot_be_written_is_not_adopted(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Else a restart would adopt again, or forget. It is not tried again either."""
    found = job(process)
    adoption = Adoption(tmp_path)
    (tmp_path / STATE_NAME).mkdir()
    assert () == look(adoption, found)
    assert "cannot be written" in " ".join(adoption.problems)
    (tmp_path / STATE_NAME).rmdir()
    assert () == look(adoption, found)


def test_a_workload_ends_with_its_first_process(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Also while nobody has waited for it, and not because a pass did not recognize it."""
    found = job(process)
    adoption = Adoption(tmp_path)
    adopted = look(adoption, found)
    assert adopted == look(adoption, Recognition((), ()))
    os.kill(process.pid, 9)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert () == look(adoption, found)


def test_audit_mode_writes_nothing_down(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Each pass reads again which connections enforce mode would adopt."""
    found = job(process)
    adoption = Adoption(tmp_path)
    audit = Policy(POLICY.audiences, mode=Mode.AUDIT)
    would = look(adoption, found, policy=audit)
    assert ((), would) == (adoption.adopted(), adoption.would())
    assert () == look(adoption, found, policy=audit, read=lambda workloads: Contacts())
    assert not (tmp_path / STATE_NAME).exists()


def test_without_a_folder_nothing_is_adopted(process: subprocess.Popen[bytes]) -> None:
    """As in commands that run without a daemon."""
    assert () == look(Adoption(), job(process))
