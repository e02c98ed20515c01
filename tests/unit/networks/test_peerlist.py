"""Peers that are added, removed and saved while the daemon runs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.networks.peers_site import START, Site, nets, texts, write
from vllmwall.config import load
from vllmwall.networks.sources import PeerError, PeerSource


def error_of(function: Callable[[], object]) -> str:
    """What a refused change says."""
    with pytest.raises(PeerError) as caught:
        function()
    return str(caught.value)


def test_an_empty_configuration_has_no_peers(site: Site) -> None:
    """Nobody is trusted until somebody says so."""
    peers = site.peers()
    assert peers.networks() == ()
    assert peers.sources() == ()


def test_peers_of_the_configuration_are_merged(site: Site) -> None:
    """The fewest networks, IPv4 first; the source is the file."""
    peers = site.peers('peers.cidrs = ["fd00::/64", "10.0.1.0/24", "10.0.0.0/24", "10.0.0.7"]')
    assert texts(peers.networks()) == ["10.0.0.0/23", "fd00::/64"]
    (source,) = peers.sources()
    assert (source.name, source.kind, len(source.networks)) == (str(site.main), "static", 4)


def test_an_added_peer_counts_at_once_and_after_a_restart(site: Site) -> None:
    """`peers add` does not depend on the daemon's life."""
    site.peers().add(nets("10.1.0.0/24"))
    restarted = site.peers()
    assert texts(restarted.networks()) == ["10.1.0.0/24"]
    assert restarted.sources() == (PeerSource("runtime", "runtime", nets("10.1.0.0/24")),)


def test_the_state_file_is_roots_alone(site: Site) -> None:
    """Who can write it decides who gets in."""
    site.peers().add(nets("10.1.0.0/24"))
    assert stat.S_IMODE(site.state.stat().st_mode) == 0o600
    assert [path.name for path in site.state.parent.iterdir()] == ["peers.json"]


def test_a_peer_expires_by_itself(site: Site) -> None:
    """At the second it was promised, without a refresh, and for every question."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"), START + 60)
    peers.add(nets("10.2.0.0/24"), START + 90)
    peers.add(nets("10.3.0.0/24"))
    assert {source.expires for source in peers.sources()} == {START + 60, START + 90, None}
    site.now = START + 59.9
    assert len(peers.networks()) == 3
    site.now = START + 60
    assert texts(peers.networks()) == ["10.2.0.0/24", "10.3.0.0/24"]
    site.now = START + 1000
    assert texts(peers.networks()) == ["10.3.0.0/24"]
    assert len(peers.sources()) == 1


def test_expiry_is_kept_over_a_restart(site: Site) -> None:
    """A restart neither prolongs nor forgets it."""
    site.peers().add(nets("10.1.0.0/24"), START + 60)
    site.now = START + 30
    assert texts(site.peers().networks()) == ["10.1.0.0/24"]
    site.now = START + 61
    assert site.peers().networks() == ()


def test_a_clock_that_is_set_back_is_asked_again(site: Site) -> None:
    """What was merged for a time says nothing about an earlier one."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"), START + 60)
    site.now = START + 61
    assert peers.networks() == ()
    site.now = START
    assert len(peers.networks()) == 1


def test_a_refresh_forgets_what_has_expired(site: Site) -> None:
    """The state file does not grow for ever."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"), START + 60)
    site.now = START + 61
    peers.refresh(site.now)
    assert json.loads(site.state.read_text())["runtime"] == []


def test_the_later_command_sets_the_time(site: Site) -> None:
    """Also to a shorter one, and to none."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"))
    peers.add(nets("10.1.0.0/24"), START + 5)
    assert [source.expires for source in peers.sources()] == [START + 5]
    peers.add(nets("10.1.0.0/24"))
    assert [source.expires for source in peers.sources()] == [None]


def test_a_time_that_is_over_is_refused(site: Site) -> None:
    """A peer for no time at all was not meant."""
    peers = site.peers()
    assert "limit is in the past" in error_of(lambda: peers.add(nets("10.1.0.0/24"), START))
    assert peers.networks() == ()


@pytest.mark.parametrize("everyone", ["0.0.0.0/0", "::/0", "::ffff:0:0/96"])
@pytest.mark.parametrize("config", ["", "peers.allow_everyone = true"])
def test_everyone_is_never_added_at_runtime(site: Site, everyone: str, config: str) -> None:
    """Not even where the configuration could say it: there it must stand."""
    peers = site.peers(config)
    assert "would admit every address" in error_of(lambda: peers.add(nets(everyone)))
    assert "would admit every address" in error_of(lambda: peers.save(nets(everyone)))
    assert peers.networks() == ()
    assert not site.saved.exists()


def test_everyone_in_two_halves_is_refused(site: Site) -> None:
    """One half in the configuration and one added come to the same."""
    peers = site.peers('peers.cidrs = ["0.0.0.0/1"]')
    assert error_of(lambda: peers.add(nets("128.0.0.0/1"))) == (
        "0.0.0.0/0 would admit every address. Only the configuration can allow that, with "
        "peers.allow_everyone = true"
    )
    assert texts(peers.networks()) == ["0.0.0.0/1"]


def test_where_everyone_is_a_peer_another_one_may_be_added(site: Site) -> None:
    """The configuration said it; the command adds nothing to that."""
    peers = site.peers('peers = { cidrs = ["0.0.0.0/0"], allow_everyone = true }')
    peers.add(nets("10.1.0.0/24"))
    assert texts(peers.networks()) == ["0.0.0.0/0"]


def test_mapped_networks_are_added_as_what_they_mean(site: Site) -> None:
    """And can be removed in either spelling."""
    peers = site.peers()
    peers.add(nets("::ffff:10.1.0.0/120"))
    assert texts(peers.networks()) == ["10.1.0.0/24"]
    peers.remove(nets("10.1.0.0/24"))
    assert peers.networks() == ()


def test_a_removed_peer_is_gone_for_good(site: Site) -> None:
    """After a restart too; the others stay."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24", "10.3.0.0/24"))
    peers.remove(nets("10.1.0.0/24"))
    assert texts(peers.networks()) == texts(site.peers().networks()) == ["10.3.0.0/24"]


def test_a_peer_of_the_configuration_cannot_be_removed(site: Site) -> None:
    """The message says where it comes from; of several removals none is made then."""
    peers = site.peers('peers.cidrs = ["10.0.0.0/24"]')
    peers.add(nets("10.1.0.0/24"))
    assert error_of(lambda: peers.remove(nets("10.1.0.0/24", "10.0.0.0/24"))) == (
        f"10.0.0.0/24 comes from {site.main}; remove it there"
    )
    assert texts(peers.networks()) == ["10.0.0.0/24", "10.1.0.0/24"]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "10.0.0.7/32",
            "10.0.0.7/32 is not a peer by itself; it is part of 10.0.0.0/24 from {main}",
        ),
        ("10.0.0.0/23", "10.0.0.0/23 is not a peer"),
        ("fd00::/64", "fd00::/64 is not a peer"),
    ],
)
def test_what_is_no_peer_cannot_be_removed(site: Site, network: str, message: str) -> None:
    """A part of a peer is said to be one."""
    peers = site.peers('peers.cidrs = ["10.0.0.0/24"]')
    assert error_of(lambda: peers.remove(nets(network))) == message.format(main=site.main)
    assert error_of(lambda: peers.forget(nets(network))) == message.format(main=site.main)


def test_a_saved_peer_counts_at_once_and_after_a_reboot(site: Site) -> None:
    """It is in conf.d, as configuration that loads."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"))
    peers.save(nets("10.1.0.0/24", "fd00::/64"))
    assert texts(peers.networks()) == ["10.1.0.0/24", "fd00::/64"]
    assert [source.kind for source in peers.sources()] == ["static"]
    site.state.unlink()
    assert texts(site.peers().networks()) == ["10.1.0.0/24", "fd00::/64"]
    assert stat.S_IMODE(site.saved.stat().st_mode) == 0o644


def test_saving_again_changes_nothing(site: Site) -> None:
    """The same bytes, whatever the order; more networks are added in order."""
    peers = site.peers()
    peers.save(nets("10.1.0.0/24", "10.0.0.0/24"))
    before = site.saved.read_bytes()
    peers.save(nets("10.0.0.0/24"))
    peers.save(nets("10.0.0.0/24", "10.1.0.0/24"))
    assert site.saved.read_bytes() == before
    peers.save(nets("9.0.0.0/8", "fd00::/8"))
    assert texts(load(site.main).peers.cidrs) == [
        *("9.0.0.0/8", "10.0.0.0/24", "10.1.0.0/24", "fd00::/8")
    ]


def test_a_saved_peer_is_removed_with_save(site: Site) -> None:
    """Without it the message says how; with the last one the file goes."""
    peers = site.peers()
    peers.save(nets("10.1.0.0/24", "10.3.0.0/24"))
    peers.add(nets("10.1.0.0/24"))
    assert error_of(lambda: peers.remove(nets("10.1.0.0/24"))) == (
        f"10.1.0.0/24 is saved in {site.saved}; use peers remove --save"
    )
    peers.forget(nets("10.1.0.0/24"))
    assert texts(peers.networks()) == texts(site.peers().networks()) == ["10.3.0.0/24"]
    peers.forget(nets("10.3.0.0/24"))
    assert not site.saved.exists()
    assert peers.networks() == site.peers().networks() == ()


def test_forget_takes_runtime_peers_too(site: Site) -> None:
    """`peers remove --save` of a peer that was never saved."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"))
    peers.forget(nets("10.1.0.0/24"))
    assert peers.networks() == ()


def test_a_saved_peer_that_also_stands_elsewhere_cannot_be_removed(site: Site) -> None:
    """It would stay a peer; the message names the other file."""
    peers = site.peers('peers.cidrs = ["10.1.0.0/24"]')
    peers.save(nets("10.1.0.0/24"))
    assert error_of(lambda: peers.forget(nets("10.1.0.0/24"))) == (
        f"10.1.0.0/24 comes from {site.main}; remove it there"
    )


@pytest.mark.parametrize(
    "text",
    [
        'mode = "audit"',
        'mode = "audit"\npeers.cidrs = []',
        'peers = ["10.0.0.0/24"]',
        "peers.cidrs = 3",
        "peers.cidrs = [3]",
        "peers.dns = ['x']",
        'peers = { cidrs = [], dns = ["x"] }',
        'peers.cidrs = ["10.0.0.1/24"]',
        "[peers",
    ],
)
def test_what_somebody_else_wrote_is_not_lost(site: Site, text: str) -> None:
    """A drop-in file that we would not write is refused, and stays as it is."""
    peers = site.peers()
    write(site.saved, text)
    said = error_of(lambda: peers.save(nets("10.1.0.0/24")))
    assert said.startswith(f"{site.saved} is not as vllmwall writes it (")
    assert site.saved.read_text() == text
    assert peers.networks() == ()


def test_a_saved_file_that_others_can_write_is_refused(site: Site) -> None:
    """Saving must not take over what a stranger put there."""
    peers = site.peers()
    write(site.saved, 'peers.cidrs = ["6.6.6.6"]').chmod(0o666)
    assert "is writable by group or others" in error_of(lambda: peers.save(nets("10.1.0.0/24")))


def test_a_saved_file_that_cannot_be_read_is_an_error(site: Site) -> None:
    """Here a directory in its place."""
    peers = site.peers()
    site.saved.mkdir(parents=True)
    assert "cannot be read" in error_of(lambda: peers.save(nets("10.1.0.0/24")))


def blocked(path: Path) -> None:
    """Make writing a file below ``path`` fail, for root too: a file in the directory's place."""
    write(path, "")


def test_a_peer_that_cannot_be_saved_is_refused(site: Site) -> None:
    """Nothing is in force that was not written down."""
    peers = site.peers()
    blocked(site.saved.parent)
    assert "90-peers-saved.toml cannot be" in error_of(lambda: peers.save(nets("10.1.0.0/24")))
    assert peers.networks() == ()


def test_a_write_that_fails_leaves_nothing_behind(site: Site) -> None:
    """No temporary file stays, and the old text does."""
    peers = site.peers()
    site.state.mkdir(parents=True)
    assert "peers.json cannot be written" in error_of(lambda: peers.add(nets("10.1.0.0/24")))
    assert [path.name for path in site.state.parent.iterdir()] == ["peers.json"]
    assert peers.networks() == ()


def test_a_peer_that_would_be_forgotten_is_refused(site: Site) -> None:
    """`peers add` without a state file to keep it in."""
    peers = site.peers()
    blocked(site.state.parent)
    assert "peers.json cannot be written" in error_of(lambda: peers.add(nets("10.1.0.0/24")))
    assert peers.networks() == ()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to fill the disk."""

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_leaves_the_old_files(site: Site, full_disk: Callable[[], None]) -> None:
    """The new text takes the name only when it is on the disk."""
    peers = site.peers()
    peers.add(nets("10.1.0.0/24"))
    before = site.state.read_text()
    full_disk()
    said = error_of(lambda: peers.add(nets("10.3.0.0/24")))
    assert said == f"{site.state} cannot be written: No space left on device"
    said = error_of(lambda: peers.save(nets("10.3.0.0/24")))
    assert said == f"{site.saved} cannot be written: No space left on device"
    assert list(site.saved.parent.iterdir()) == []
    assert site.state.read_text() == before
    assert texts(peers.networks()) == ["10.1.0.0/24"]
