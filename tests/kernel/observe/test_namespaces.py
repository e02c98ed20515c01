"""The way into a network namespace, when the processes of its events end at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.hung_mount import USER, as_user
from tests.support.lab import Lab
from tests.support.waiting import eventually
from vllmwall.linux.netns import inode_of
from vllmwall.model import Process
from vllmwall.observe import namespaces as observed
from vllmwall.observe.namespaces import Namespaces
from vllmwall.observe.processes import ProcessTable


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """What a daemon knows at its start: nobody."""
    made = Namespaces()
    yield made
    made.close()


def named(process: subprocess.Popen[str]) -> Process:
    """A process as an event's reader finds it."""
    found = ProcessTable().look_at(process.pid)
    assert found is not None
    return found


def test_our_own_namespace_is_entered_through_ourselves(namespaces: Namespaces) -> None:
    """A job that ends at once does not take the way to our own wall with it."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, text=True) as job:
        namespaces.adopt(named(job))
        job.kill()
    assert namespaces.own == inode_of(namespaces.path(namespaces.own))
    namespaces.listeners(namespaces.own)  # there may be none; reading them is what must work
    assert not namespaces.errors


def test_who_is_known_in_a_namespace_is_kept_while_he_lives(
    lab: Lab, namespaces: Namespaces
) -> None:
    """Then the next one that is named takes his place."""
    first, second, third = (lab.node.popen(["sleep", "600"]) for _ in range(3))
    inode = inode_of(lab.node.path)
    namespaces.adopt(waited_for(first, inode))
    namespaces.adopt(waited_for(second, inode))
    second.kill()
    second.wait()
    assert inode == inode_of(namespaces.path(inode))
    namespaces.adopt(waited_for(third, inode))
    first.kill()
    first.wait()
    namespaces.adopt(waited_for(third, inode))
    assert inode == inode_of(namespaces.path(inode))


def waited_for(process: subprocess.Popen[str], inode: int) -> Process:
    """As soon as it has entered the namespace."""
    while (found := named(process)).namespace != inode:
        assert process.poll() is None
    return found


def test_a_pid_that_was_reused_does_not_lead_into_another_namespace(
    lab: Lab, namespaces: Namespaces
) -> None:
    """Its listeners would get the rules of a namespace in which they are not."""
    elsewhere = lab.node.popen(["sleep", "600"])
    process = waited_for(elsewhere, inode_of(lab.node.path))
    server = lab.node.listen("0.0.0.0", 29500)
    gone = inode_of(lab.peer.path)
    namespaces.update({process.pid: replace(process, namespace=gone)})
    assert [] == namespaces.listeners(gone)
    assert f"network namespace {gone} is gone" in namespaces.errors[gone]
    namespaces.update({process.pid: process})
    assert [29500] == [one.port for one in namespaces.listeners(process.namespace)]
    server.close()


def test_a_user_has_a_share_of_the_namespaces(
    monkeypatch: pytest.MonkeyPatch, lab: Lab, namespaces: Namespaces
) -> None:
    """Only of those that the user made: those of containers are made by root for other users."""
    monkeypatch.setattr("vllmwall.observe.namespaces._MOST_MADE", 2)
    made = ["unshare", "--user", "--net", "--map-root-user", "sleep", "600"]
    roots = ["unshare", "--net", *as_user(["sleep", "600"])]
    started = [lab.node.popen(argv) for argv in (*[as_user(made)] * 4, *[roots] * 3)]
    ours = inode_of(lab.node.path)
    for one in started:
        eventually(lambda: _ran(one) and inode_of(f"/proc/{one.pid}/ns/net") != ours, "it runs")  # noqa: B023
    found = {one.pid: named(one) for one in started}
    namespaces.update(found)
    assert 2 + 3 == len(namespaces.inodes)
    line = f"user {USER}: 2 of the network namespaces that this user made are not looked at"
    assert [line] == list(namespaces.left_out)
    kept = set(namespaces.inodes)
    namespaces.update(found)
    assert kept == set(namespaces.inodes)


def _ran(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/exe").resolve().name == "sleep"


def test_a_namespace_has_its_name_beside_one_that_cannot_be_entered(
    lab: Lab, namespaces: Namespaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a namespace can vanish while names are read, and a link can lead nowhere."""
    monkeypatch.setattr(observed, "NAMED", tmp_path)
    for name in ("a", "z"):
        (tmp_path / name).symlink_to("/nowhere")
    inode = inode_of(lab.node.path)
    assert f"net:{inode}" == namespaces.name(inode)
    (tmp_path / "job").symlink_to(lab.node.path)
    assert "job" == namespaces.name(inode)


@pytest.mark.parametrize(("services", "expected"), [("", False), ("TCP 0A000001:0050 rr", True)])
def test_the_services_of_ipvs_show_that_packets_go_elsewhere(
    namespaces: Namespaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, services: str,
    expected: bool,
) -> None:  # fmt: skip
    """What ip_vs_info_seq_show prints, for a kernel without IPVS; no file: there is none."""
    monkeypatch.setattr(namespaces, "_member", lambda _: str(tmp_path))
    assert not namespaces.delivers_elsewhere(namespaces.own)
    (tmp_path / "net").mkdir()
    head = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
    head += "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    (tmp_path / "net" / "ip_vs").write_text(head + services)
    assert expected is namespaces.delivers_elsewhere(namespaces.own)
