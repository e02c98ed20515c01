"""The script for the next boot: which entries it keeps, and what the rest of it looks like."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given

from tests.support.strategies import walls
from tests.unit.enforce.nftables.test_ruleset import WALLS, _matches, entry, wall
from vllmwall import __version__
from vllmwall.enforce.backend import AlteredWall
from vllmwall.enforce.boot import boot_script, lasting, remembered_in
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.model import Guard, Mode, Proto, Wall, WallEntry

EPHEMERAL = range(32768, 61000)
WIDE = range(1024, 65536)


def kept(
    standing: Wall,
    *remembered: WallEntry,
    others: tuple[int, ...] = (),
    ephemeral: range = EPHEMERAL,
) -> set[tuple[int, str]]:
    """Port and audience of what lasts; ``others`` listen over TCP."""
    doors = {(Proto.TCP, port) for port in others}
    lasts = lasting(standing, remembered, doors, ephemeral)
    return {(one.port, ".".join(one.audience)) for one in lasts.entries}


@pytest.mark.parametrize(
    ("name", "fence"), [("peers", None), ("every-audience", EPHEMERAL), ("peers-audit", EPHEMERAL)]
)
def test_the_script_is_as_in_the_golden_file(name: str, fence: range | None) -> None:
    """A change of what a boot loads is seen in review, as text."""
    text = boot_script(WALLS[name], fence=fence).replace(__version__, "VERSION")
    assert _matches(f"boot-{name}", text)


def test_fixed_ports_last_and_drawn_ones_do_not() -> None:
    """After a reboot another program may draw the port; its audience before does not matter."""
    standing = wall(
        entry(29500, "peers"),
        entry(29501, "peers", at="192.0.2.1"),
        entry(43211, "peers"),
        entry(43212, "peers", at="192.0.2.1"),
        entry(40000, "public"),
        entry(61000, "peers"),
    )
    assert {(29500, "peers"), (29501, "peers"), (40000, "public"), (61000, "peers")} == kept(
        standing
    )


def test_what_a_stopped_job_had_is_remembered() -> None:
    """Jobs are stopped before a reboot: the wall of the last second is empty."""
    assert {(29500, "peers")} == kept(wall(), entry(29500, "peers"), entry(43211, "peers"))


def test_what_is_active_now_counts_more_than_what_was() -> None:
    """An API that moved to an internal port, or the other way round."""
    assert {(8000, "peers")} == kept(wall(entry(8000, "peers")), entry(8000, "public"))
    at = entry(8000, "peers", at="192.0.2.1")
    assert {(8000, "public")} == kept(wall(entry(8000, "public")), at)


def test_a_port_that_another_program_took_is_forgotten() -> None:
    """A wall for a job that is gone may not close what others open, more than once."""
    before = entry(29500, "peers"), entry(6379, "peers"), entry(6379, "peers", family=6)
    assert {(29500, "peers")} == kept(wall(), *before, others=(6379,))
    udp = entry(6379, "peers", proto=Proto.UDP)
    assert {(6379, "peers")} == kept(wall(), udp, others=(6379,))


def test_a_group_that_is_gone_takes_what_was_remembered_along() -> None:
    """Its networks are unknown now."""
    assert set() == kept(wall(), entry(9090, "monitoring"))


def test_failsafe_ports_are_in_no_script() -> None:
    """Whatever was there: ssh has moved to that port since."""
    standing = replace(wall(entry(2222, "peers")), failsafe=frozenset({22, 2222}))
    assert set() == kept(standing, entry(22, "peers"))


def test_where_every_port_is_ephemeral_the_usual_fixed_ones_last_while_they_are_active() -> None:
    """ip_local_port_range = 1024 65535 is common on clusters; remembering would never end."""
    standing = wall(entry(29500, "peers"), entry(43211, "peers"))
    assert {(29500, "peers")} == kept(standing, entry(6379, "peers"), ephemeral=WIDE)


def test_what_is_remembered_has_an_end() -> None:
    """The script may not grow for ever."""
    many = [entry(port, "peers") for port in range(1, 5000)]
    assert 1024 == len(kept(wall(), *many))


@given(walls())
def test_the_script_gives_back_its_entries(any_wall: Wall) -> None:
    """They are all that a daemon remembers over its restart."""
    unlimited = frozenset(replace(one, limited=False) for one in any_wall.entries)
    assert unlimited == remembered_in(boot_script(any_wall, fence=EPHEMERAL))


@pytest.mark.parametrize("text", ["", "nonsense", "table inet vllmwall {\n", "\0"])
def test_from_a_broken_file_nothing_is_remembered(text: str) -> None:
    """It is written again."""
    assert frozenset() == remembered_in(text)


@given(walls())
def test_the_daemon_sees_that_it_is_not_its_own_table(any_wall: Wall) -> None:
    """Else it would take the fence for its wall and leave it."""
    found = read_wall(boot_script(any_wall), 7)
    assert isinstance(found, AlteredWall)
    assert any("chain guarded" in each for each in found.differences)


@given(walls())
def test_nothing_in_it_ends_with_the_kernel_or_needs_a_new_one(any_wall: Wall) -> None:
    """Numbers of cgroups mean nothing after a reboot; `socket` can be missing from the kernel."""
    guarding = replace(any_wall, guards=frozenset({Guard(2, 4711, "/a.slice/b.service")}))
    script = boot_script(guarding, fence=EPHEMERAL)
    assert "4711" not in "".join(line for line in script.splitlines() if "cgroup" in line)
    assert "socket cgroupv2" not in script


@given(walls())
def test_only_lines_of_ours_begin_a_command(any_wall: Wall) -> None:
    """Root loads this file at boot: no group's name or note may become a command in it."""
    lines = boot_script(any_wall, fence=EPHEMERAL).splitlines()
    commands = [one for one in lines if one and not one.startswith(("\t", "#"))]
    table = "table inet vllmwall {"
    assert ["add table inet vllmwall", "delete table inet vllmwall", table, "}"] == commands


def test_the_same_wall_is_the_same_text() -> None:
    """The file is written when its text changes: sets have no order, the script has."""
    entries = [entry(port, "peers", at=str(ip_address(port))) for port in range(1000, 1100)]
    assert boot_script(wall(*entries)) == boot_script(wall(*entries[::-1]))


def test_audit_drops_nothing() -> None:
    """Also at boot, also behind the fence."""
    assert "drop" not in boot_script(wall(mode=Mode.AUDIT), fence=EPHEMERAL).replace("dropbear", "")
