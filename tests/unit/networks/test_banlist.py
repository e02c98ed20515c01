"""The list of bans: what counts when, what is kept, and what is no ban."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from vllmwall.cidr import merged
from vllmwall.model import Network
from vllmwall.networks.banlist import MOST, BanError, BanList


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:  # noqa: D102 the class says it
        return self.now


def nets(*cidrs: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, cidrs))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def found(tmp_path: Path, clock: Clock) -> BanList:
    return BanList(tmp_path / "run" / "bans.json", clock=clock)


def test_bans_are_merged_and_mapped_ones_are_ipv4(found: BanList) -> None:
    """Packets of ::ffff:1.2.3.4 come as IPv4."""
    found.add(nets("10.0.0.0/25", "10.0.0.128/25", "::ffff:192.0.2.9/128"), None, "")
    assert found.networks() == nets("10.0.0.0/24", "192.0.2.9/32")


def test_a_ban_counts_until_its_second(found: BanList, clock: Clock) -> None:
    """Not a moment longer, though nobody asked in between; the others stay."""
    found.add(nets("10.0.0.0/24"), 60, "")
    found.add(nets("10.0.0.7"), None, "")
    assert found.left() == 60
    clock.now += 59.9
    assert found.networks() == nets("10.0.0.0/24")
    clock.now += 0.1
    assert found.networks() == nets("10.0.0.7")
    assert found.left() is None


def test_of_two_bans_on_one_network_the_later_counts(found: BanList) -> None:
    """A ban for an hour made for good, and the other way round."""
    found.add(nets("10.0.0.7"), 60, "first")
    found.add(nets("10.0.0.7"), None, "second")
    assert [(one.expires, one.reason) for one in found.bans()] == [(None, "second")]
    found.add(nets("10.0.0.7"), 60, "third")
    assert [one.expires for one in found.bans()] == [1060]


@pytest.mark.parametrize("everyone", [["0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"], ["::/0"]])
def test_everyone_is_never_banned(found: BanList, everyone: list[str]) -> None:
    """At once or in halves, and nothing is changed."""
    *before, last = everyone
    if before:
        found.add(nets(*before), None, "")
    with pytest.raises(BanError, match="every address"):
        found.add(nets(last), None, "")
    assert found.networks() == merged(nets(*before))


def test_there_is_an_end_to_bans(found: BanList) -> None:
    """A script that bans for ever must not fill the kernel."""
    found.add(nets(*(f"10.{n >> 8}.{n & 255}.1" for n in range(MOST))), None, "")
    with pytest.raises(BanError, match="more than"):
        found.add(nets("192.0.2.1"), None, "")


def test_what_is_not_banned_cannot_be_lifted(found: BanList) -> None:
    """The message says what does ban it."""
    found.add(nets("10.0.0.0/24"), None, "")
    with pytest.raises(BanError, match=r"10.0.0.7/32 is not banned by itself; 10.0.0.0/24 is"):
        found.remove(nets("10.0.0.7"))
    with pytest.raises(BanError, match=r"192.0.2.1/32 is not banned$"):
        found.remove(nets("10.0.0.0/24", "192.0.2.1"))
    assert found.networks() == nets("10.0.0.0/24")


def test_the_next_daemon_and_the_next_boot_know_them(tmp_path: Path, clock: Clock) -> None:
    """The first file counts while it is there; after a boot only the second is."""
    files = tmp_path / "run" / "bans.json", tmp_path / "state" / "bans.json"
    first = BanList(*files, clock=clock)
    first.add(nets("10.0.0.7"), 60, "why")
    assert BanList(*files, clock=clock).bans() == first.bans()
    files[0].unlink()
    assert BanList(*files, clock=clock).bans() == first.bans()
    assert {oct(file.stat().st_mode & 0o777) for file in files[1:]} == {"0o600"}


def test_a_second_file_that_cannot_be_written_is_a_problem_and_no_more(
    tmp_path: Path, clock: Clock
) -> None:
    """The ban stands; a first file that cannot be written refuses it."""
    (tmp_path / "file").write_text("")
    bad = tmp_path / "file" / "bans.json"
    found = BanList(tmp_path / "bans.json", bad, clock=clock)
    found.add(nets("10.0.0.7"), None, "")
    assert found.networks() == nets("10.0.0.7")
    assert "the next boot forgets" in found.problems[0]
    with pytest.raises(BanError, match="cannot be written"):
        BanList(bad, clock=clock).add(nets("10.0.0.7"), None, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"version": 2, "bans": []}',
        '{"version": 1, "bans": [{"network": "x", "since": 1, "expires": null, "reason": ""}]}',
        '{"version": 1, "bans": [{"network": "::/0", "since": 1, "expires": null, "reason": ""}]}',
    ],
)
def test_a_damaged_file_is_moved_aside_and_the_other_one_counts(
    tmp_path: Path, clock: Clock, text: str
) -> None:
    """Never a crash, and never a ban on everyone."""
    files = tmp_path / "run.json", tmp_path / "state.json"
    BanList(*files, clock=clock).add(nets("10.0.0.7"), None, "")
    files[0].write_text(text)
    found = BanList(*files, clock=clock)
    assert found.networks() == nets("10.0.0.7")
    assert "moved to" in found.problems[0]
    assert (tmp_path / "run.json.bad").read_text() == text


def test_a_file_that_others_may_write_bans_nobody(tmp_path: Path, clock: Clock) -> None:
    """Who writes it decides who is shut out."""
    file = tmp_path / "bans.json"
    BanList(file, clock=clock).add(nets("10.0.0.7"), None, "")
    file.chmod(0o666)
    assert BanList(file, clock=clock).networks() == ()
