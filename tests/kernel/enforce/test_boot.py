"""The saved wall: plain nft loads it, packets meet it, and the daemon's wall takes its place."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from itertools import chain, repeat
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, Program, eventually
from tests.support.hammer import hammer
from tests.support.lab import Lab
from tests.support.reconciling import Refusing, kept
from tests.support.walls import entry, everywhere, wall
from vllmwall.enforce.backend import AlteredWall
from vllmwall.enforce.boot import boot_script
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.saved_wall import SavedWall
from vllmwall.linux.netns import inode_of
from vllmwall.model import Mode, Wall

EPHEMERAL = range(32768, 61000)
SSHD = """
import socket, time
open("/proc/self/comm", "w").write("sshd")
one = socket.create_server(("0.0.0.0", 40022))
print("ready", flush=True)
time.sleep(600)
"""


def boot(lab: Lab, script: str) -> None:
    """What vllmwall-boot.service does."""
    lab.node.run(["nft", "-f", "-"], stdin=script)


def doors(lab: Lab, *ports: int) -> dict[int, tuple[str, str]]:
    """What a stranger and a peer find at each port of the node."""
    return {
        port: (
            lab.stranger.connect(lab.node.ipv4, port),
            lab.peer.connect(lab.node.ipv4, port),
        )
        for port in ports
    }


CLOSED, OPEN = ("timeout", "open"), ("open", "open")


def saved(lab: Lab, mode: Mode = Mode.ENFORCE) -> Wall:
    """A fixed internal port, an API in the ephemeral range, and a failsafe port in there."""
    entries = [*everywhere(29500, "peers"), *everywhere(40000, "public"), entry(8000, "public")]
    return replace(wall(lab.node, entries, mode=mode), failsafe=frozenset({22, 40022}))


PORTS = (22, 8000, 29500, 29600, 40000, 40022, 43211)


@pytest.fixture
def listening(lab: Lab) -> Lab:
    for port in PORTS:
        lab.node.listen("::", port)
    return lab


def test_what_was_fixed_is_closed_from_the_first_packet_on(listening: Lab) -> None:
    """Everything else is as on a node without vllmwall."""
    boot(listening, boot_script(saved(listening)))
    assert dict.fromkeys(PORTS, OPEN) | {29500: CLOSED} == doors(listening, *PORTS)
    assert "timeout" == listening.stranger.connect(listening.node.ipv6, 29500)
    assert "open" == listening.peer.connect(listening.node.ipv6, 29500)


def test_the_fence_is_around_the_ephemeral_range(listening: Lab) -> None:
    """Not around what the wall names, nor around a failsafe port."""
    boot(listening, boot_script(saved(listening), fence=EPHEMERAL))
    expected = dict.fromkeys(PORTS, OPEN) | {29500: CLOSED, 43211: CLOSED}
    assert expected == doors(listening, *PORTS)
    assert "timeout" == listening.stranger.connect(listening.node.ipv6, 43211)
    assert "open" == listening.peer.connect(listening.node.ipv6, 43211)


def test_the_fence_lets_answers_and_datagrams_through(listening: Lab) -> None:
    """Name servers, package mirrors and object stores answer to ports of that range."""
    boot(listening, boot_script(saved(listening), fence=EPHEMERAL))
    listening.stranger.listen("0.0.0.0", 80)
    with listening.node.dial(listening.stranger.ipv4, 80) as one:
        assert one.getsockname()[1] in EPHEMERAL
        one.sendall(b"hello")
        assert b"hello" == one.recv(64)
    listening.node.listen_udp("0.0.0.0", 43211)
    assert "open" == listening.stranger.udp(listening.node.ipv4, 43211)


def test_in_audit_nothing_is_closed(listening: Lab) -> None:
    """It counts."""
    boot(listening, boot_script(saved(listening, Mode.AUDIT), fence=EPHEMERAL))
    assert dict.fromkeys(PORTS, OPEN) == doors(listening, *PORTS)


def test_it_can_be_loaded_again(lab: Lab) -> None:
    """A boot after a boot without a daemon, or somebody who starts the unit by hand."""
    script = boot_script(saved(lab), fence=EPHEMERAL)
    boot(lab, script)
    before = lab.node.run(["nft", "list", "ruleset"]).stdout
    boot(lab, script)
    assert before == lab.node.run(["nft", "list", "ruleset"]).stdout


@pytest.mark.serial
@pytest.mark.parametrize("owned", ["", "others may edit it"])
def test_the_daemons_wall_takes_its_place_without_a_gap(lab: Lab, owned: str) -> None:
    """Under a flood, with and without an owner; the fence goes with the daemon's first word."""
    backend = Nftables(owned or None)
    lab.node.listen("0.0.0.0", 29500)
    lab.node.listen("0.0.0.0", 43211)
    wanted = replace(saved(lab), failsafe=frozenset({22}))
    for _ in range(4):
        backend.remove(lab.node.path)
        boot(lab, boot_script(wanted, fence=EPHEMERAL))
        standing = backend.read_back(lab.node.path)
        assert isinstance(standing, AlteredWall)
        swap = partial(backend.apply, lab.node.path, wanted, standing)
        once = chain([swap], repeat(lambda: None))
        door = (lab.node.ipv4, 29500)
        tried, opened = hammer(lab.stranger, "tcp", door, 0.8, lambda each=once: next(each)())
        assert (True, 0) == (tried > 500, opened)
        assert wanted == backend.read_back(lab.node.path)
        assert {29500: CLOSED, 43211: OPEN} == doors(lab, 29500, 43211)
    backend.remove(lab.node.path)


def test_a_script_with_a_mistake_leaves_no_half_of_itself(lab: Lab) -> None:
    """nft -f is one transaction: the unit fails, and no rule is there."""
    script = boot_script(saved(lab)).replace("goto strangers", "goto nowhere", 1)
    with pytest.raises(Exception, match="non-zero"):
        boot(lab, script)
    assert "" == lab.node.run(["nft", "list", "ruleset"]).stdout


# -- what a running node keeps --------------------------------------------------------------


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    return Guarded(lab, tmp_path)


@pytest.fixture
def rank(node: Guarded) -> Program:
    return node.rank()


@pytest.fixture
def keeper(node: Guarded) -> Iterator[Reconciler]:
    """A keeper of the lab's node."""
    with kept(node, Refusing()) as found:
        found.peers.refresh(0.0)
        # So that it has a wall always, as the host's namespace has.
        found.walls.read_back(inode_of(node.lab.node.path))
        yield found
        found.backend.remove(node.lab.node.path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "var" / "boot.nft"


def test_a_reboot_finds_the_fixed_ports_closed(
    node: Guarded, rank: Program, keeper: Reconciler, file: Path
) -> None:
    """Saved, forgotten by the kernel, loaded: the same doors, also after the job was stopped."""
    node.bystander()
    rank.open("tcp", "0.0.0.0", 29500)
    rank.open("tcp", "0.0.0.0", 43211)
    keeper.full_pass()
    saved_wall = SavedWall(file)
    assert saved_wall.keep(keeper, fenced=False) is True
    rank.kill()
    keeper.full_pass()
    standing = keeper.walls.actual(inode_of(node.lab.node.path))
    assert standing is not None
    assert frozenset() == standing.entries
    assert SavedWall(file).keep(keeper, fenced=False) is False
    keeper.take_down()
    boot(node.lab, file.read_text())
    for port in (29500, 43211):
        node.lab.node.listen("0.0.0.0", port)
    assert {29500: CLOSED, 43211: OPEN} == doors(node.lab, 29500, 43211)


def test_the_file_is_roots_and_written_only_when_it_changes(
    rank: Program, keeper: Reconciler, file: Path
) -> None:
    """Ports drawn by chance come and go by the hundred: no write for them."""
    saved_wall = SavedWall(file)
    keeper.full_pass()
    assert [True, False] == [saved_wall.keep(keeper, fenced=True) for _ in range(2)]
    before = file.stat()
    assert 0o600 == stat.S_IMODE(before.st_mode)
    rank.open("tcp", "0.0.0.0", 43211)
    keeper.full_pass()
    assert saved_wall.keep(keeper, fenced=True) is False
    assert before.st_ino == file.stat().st_ino
    assert saved_wall.keep(keeper, fenced=False) is True


def test_what_cannot_be_written_is_told_and_tried_again(
    rank: Program, keeper: Reconciler, file: Path
) -> None:
    """A full disk costs the new script; the old one stays whole, and nothing lies beside it."""
    keeper.full_pass()
    saved_wall = SavedWall(file)
    file.parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", file.parent], check=True)
    try:
        saved_wall.keep(keeper, fenced=False)
        before = file.read_text()
        (file.parent / "ballast").write_bytes(bytes(shutil.disk_usage(file.parent).free))
        rank.open("tcp", "0.0.0.0", 29500)
        keeper.full_pass()
        with pytest.raises(OSError, match="No space"):
            saved_wall.keep(keeper, fenced=False)
        assert before == file.read_text()
        assert ["ballast", "boot.nft"] == sorted(one.name for one in file.parent.iterdir())
        (file.parent / "ballast").unlink()
        assert saved_wall.keep(keeper, fenced=False) is True
        assert "29500" in file.read_text()
    finally:
        subprocess.run(["umount", file.parent], check=True)


def test_what_is_down_or_altered_does_not_become_the_next_boots(
    node: Guarded, rank: Program, keeper: Reconciler, file: Path
) -> None:
    """The last good one stays."""
    rank.open("tcp", "0.0.0.0", 29500)
    keeper.full_pass()
    saved_wall = SavedWall(file)
    saved_wall.keep(keeper, fenced=False)
    before = file.read_text()
    others = "add element inet vllmwall any4 { tcp . 29600 : jump only_peers }"
    node.lab.node.run(["nft", others])
    keeper.walls.read_back(inode_of(node.lab.node.path))
    assert saved_wall.keep(keeper, fenced=False) is False
    keeper.take_down()
    assert saved_wall.keep(keeper, fenced=False) is False
    assert before == file.read_text()


def test_peers_for_a_while_are_not_peers_after_a_reboot(
    rank: Program, keeper: Reconciler, file: Path
) -> None:
    """They live in /run, and their time may be over when the node is up again."""
    keeper.peers.add([ip_network("203.0.113.0/24")])
    keeper.full_pass()
    assert ip_network("203.0.113.0/24") in keeper.peers.networks()
    SavedWall(file).keep(keeper, fenced=False)
    assert "203.0.113.0" not in file.read_text()
    assert "192.0.2.2" in file.read_text()


def test_the_operators_door_is_outside_the_fence(
    node: Guarded, keeper: Reconciler, file: Path
) -> None:
    """An sshd on a port of the ephemeral range that nobody named in the configuration."""
    sshd = node.lab.node.popen([sys.executable, "-c", SSHD])
    assert sshd.stdout is not None
    assert "ready\n" == sshd.stdout.readline()
    node.lab.node.listen("0.0.0.0", 40023)
    eventually(lambda: _saved_with(keeper, file), "sshd is seen")
    boot(node.lab, file.read_text())
    assert {40022: OPEN, 40023: CLOSED} == doors(node.lab, 40022, 40023)


def _saved_with(keeper: Reconciler, file: Path) -> bool:
    keeper.full_pass()
    SavedWall(file).keep(keeper, fenced=True)
    return "40022" in file.read_text()


def test_a_port_of_another_program_is_let_go(
    node: Guarded, rank: Program, keeper: Reconciler, file: Path
) -> None:
    """What the job had is somebody else's now: closing it was right once at most."""
    rank.open("tcp", "0.0.0.0", 29500)
    keeper.full_pass()
    saved_wall = SavedWall(file)
    saved_wall.keep(keeper, fenced=False)
    rank.kill()
    node.bystander().open("tcp", "0.0.0.0", 29500)
    keeper.full_pass()
    assert saved_wall.keep(keeper, fenced=False) is True
    assert "29500" not in file.read_text()
