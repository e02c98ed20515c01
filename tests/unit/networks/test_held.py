"""Peers that their source no longer names: held for a time, or until somebody accepts the loss."""

from __future__ import annotations

import threading

import pytest

from tests.unit.networks.peers_site import START, Site, nets, texts, write
from vllmwall.networks.peerlist import PeerList
from vllmwall.networks.sources import HeldPeer, PeerError

HOLD = 600.0
NODES = tuple(f"10.0.0.{number}" for number in range(1, 51))
NAME = 'peers.dns = ["gpu.internal"]'


def answers(site: Site, peers: PeerList, *addresses: str, after: float = 0.0) -> set[str]:
    """DNS answers so after a time; the peers that count then."""
    site.now += after
    site.answers["gpu.internal"] = addresses
    peers.refresh(site.now)
    return set(counted(peers))


def counted(peers: PeerList) -> list[str]:
    """Every network that counts, as its source has it."""
    return [str(network) for one in peers.sources() for network, _ in one.counted()]


def waits(peers: PeerList) -> dict[str, float | None]:
    """Until when each held network counts."""
    return {str(one.network): one.until for source in peers.sources() for one in source.held}


def named(*addresses: str) -> set[str]:
    """Addresses as networks."""
    return {f"{one}/32" for one in addresses}


@pytest.fixture
def peers(site: Site) -> PeerList:
    """A daemon whose peers are fifty nodes of a DNS name."""
    found = site.peers(NAME)
    assert answers(site, found, *NODES) == named(*NODES)
    return found


def test_new_peers_count_at_once(site: Site, peers: PeerList) -> None:
    """A node that joins does not wait for the hold time."""
    assert answers(site, peers, *NODES, "10.9.0.1") == named(*NODES, "10.9.0.1")


def test_a_peer_that_is_gone_is_held_and_then_removed(site: Site, peers: PeerList) -> None:
    """At the second, without another look at the source."""
    assert answers(site, peers, *NODES[1:]) == named(*NODES)
    assert waits(peers) == {"10.0.0.1/32": START + HOLD}
    answers(site, peers, *NODES[1:], after=HOLD - 1)
    assert "10.0.0.1/32" in counted(peers)
    site.now += 1
    assert set(counted(peers)) == named(*NODES[1:])
    assert not any(one.overlaps(nets("10.0.0.1")[0]) for one in peers.networks())


def test_a_peer_that_comes_back_is_held_no_longer(site: Site, peers: PeerList) -> None:
    """A later absence begins a hold time of its own."""
    answers(site, peers, *NODES[1:])
    answers(site, peers, *NODES, after=HOLD / 2)
    assert waits(peers) == {}
    answers(site, peers, *NODES[1:], after=HOLD)
    assert waits(peers) == {"10.0.0.1/32": START + 1.5 * HOLD + HOLD}


@pytest.mark.parametrize("left", [0, 1, 24])
def test_a_loss_of_more_than_half_waits_for_a_person(
    site: Site, peers: PeerList, left: int
) -> None:
    """One address instead of fifty is trouble with DNS, not forty-nine dead nodes."""
    answers(site, peers, *NODES[:left])
    if left:
        assert set(waits(peers).values()) == {None}
    answers(site, peers, *NODES[:left], after=100 * HOLD)
    assert set(counted(peers)) == named(*NODES)


def test_a_loss_of_half_ends_by_itself(site: Site, peers: PeerList) -> None:
    """Half is not more than half."""
    answers(site, peers, *NODES[:25])
    assert answers(site, peers, *NODES[:25], after=HOLD) == named(*NODES[:25])


def test_a_loss_in_small_steps_is_a_loss(site: Site, peers: PeerList) -> None:
    """A source that shrinks every minute is measured by its size at the beginning."""
    for left in range(49, 0, -4):
        answers(site, peers, *NODES[:left], after=HOLD / 20)
    assert answers(site, peers, NODES[0], after=10 * HOLD) == named(*NODES)


def test_a_slow_shrinkage_is_no_loss(site: Site, peers: PeerList) -> None:
    """A cluster that is taken down over hours needs no person."""
    for left in range(40, 0, -10):
        answers(site, peers, *NODES[:left], after=2 * HOLD)
        answers(site, peers, *NODES[:left], after=2 * HOLD)
    assert set(counted(peers)) == named(*NODES[:10])


def test_replaced_nodes_are_no_loss(site: Site, peers: PeerList) -> None:
    """Pods with new addresses: as many as before."""
    new = [one.replace("10.0", "10.7") for one in NODES]
    assert answers(site, peers, *new) == named(*NODES, *new)
    assert answers(site, peers, *new, after=HOLD) == named(*new)


def test_a_loss_that_recovers_needs_nobody(site: Site, peers: PeerList) -> None:
    """What is missing after the recovery waits for its time."""
    answers(site, peers, NODES[0])
    answers(site, peers, *NODES[:49], after=60)
    assert waits(peers) == {"10.0.0.50/32": START + HOLD}


def test_a_loss_over_a_restart_is_a_loss(site: Site, peers: PeerList) -> None:
    """The daemon may have been away while DNS shrank, and away for long."""
    site.now += 50 * HOLD
    restarted = site.peers(NAME)
    answers(site, restarted, NODES[0])
    assert set(waits(restarted).values()) == {None}
    again = site.peers(NAME)
    assert set(counted(again)) == named(*NODES)
    assert answers(site, again, NODES[0], after=50 * HOLD) == named(*NODES)


def test_the_hold_time_goes_on_over_a_restart(site: Site, peers: PeerList) -> None:
    """Neither longer nor shorter."""
    answers(site, peers, *NODES[1:])
    site.now += HOLD - 1
    restarted = site.peers(NAME)
    assert waits(restarted) == {"10.0.0.1/32": START + HOLD}
    site.now += 1
    assert set(counted(restarted)) == named(*NODES[1:])


def test_a_loss_is_accepted(site: Site, peers: PeerList) -> None:
    """At once, for good, and the next small change waits for its time again."""
    answers(site, peers, *NODES[:10])
    peers.accept_loss(["gpu.internal"])
    assert set(counted(peers)) == named(*NODES[:10])
    assert texts(site.peers(NAME).networks()) == texts(peers.networks())
    answers(site, peers, *NODES[:9])
    assert set(waits(peers).values()) == {START + HOLD}


def test_only_the_loss_of_the_named_source_is_accepted(site: Site) -> None:
    """Of all, without a name; and an unknown name is refused."""
    peers = site.peers('peers.dns = ["gpu.internal", "other.internal"]')
    site.answers["other.internal"] = ("10.5.0.1", "10.5.0.2", "10.5.0.3")
    answers(site, peers, *NODES)
    site.answers["other.internal"] = ("10.5.0.1",)
    answers(site, peers, NODES[0])
    with pytest.raises(PeerError, match=r"gpu\.internol is not a file or DNS name of the peers"):
        peers.accept_loss(["gpu.internol"])
    peers.accept_loss(["gpu.internal"])
    assert set(waits(peers)) == named("10.5.0.2", "10.5.0.3")
    peers.accept_loss()
    assert set(counted(peers)) == named(NODES[0], "10.5.0.1")


def test_without_a_hold_time_peers_go_at_once(site: Site) -> None:
    """For an operator who wants exactly what the source says."""
    peers = site.peers(f"{NAME}\npeers.hold_seconds = 0")
    answers(site, peers, *NODES)
    assert answers(site, peers, NODES[0]) == named(NODES[0])


def test_a_file_in_the_middle_of_a_change_cuts_nobody(site: Site) -> None:
    """Emptied, half written, or away for a moment: what it named still counts."""
    path = site.root / "peers.d" / "nodes.txt"
    text = "".join(f"{one}\n" for one in NODES)
    write(path, text)
    peers = site.peers(f'peers.files = ["{path.parent}/*.txt"]')
    peers.refresh(site.now)
    for part in ("", text[:36], None):
        if part is None:
            path.unlink()
        else:
            write(path, part)
        peers.refresh(site.now)
        assert set(counted(peers)) == named(*NODES)
        assert set(waits(peers).values()) == {None}
    write(path, text)
    peers.refresh(site.now)
    assert waits(peers) == {}


def test_one_of_many_files_that_is_deleted_is_held_for_its_time(site: Site) -> None:
    """A file for each node: the pattern is the source, and it lost one of four."""
    for number in range(4):
        write(site.root / "peers.d" / f"{number}.txt", f"10.0.0.{number}\n")
    peers = site.peers(f'peers.files = ["{site.root}/peers.d/*.txt"]')
    peers.refresh(site.now)
    (site.root / "peers.d" / "3.txt").unlink()
    peers.refresh(site.now)
    (gone,) = [source for source in peers.sources() if source.name.endswith("3.txt")]
    assert gone.networks == ()
    assert gone.held == (HeldPeer(nets("10.0.0.3")[0], START + HOLD),)
    site.now += HOLD
    peers.refresh(site.now)
    assert not any(source.name.endswith("3.txt") for source in peers.sources())
    assert set(counted(peers)) == named("10.0.0.0", "10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize("end", ["# end\n", "# end", "# end\n\n"])
def test_a_file_that_says_where_it_ends_needs_no_person(site: Site, end: str) -> None:
    """It was not cut short. The hold time applies all the same."""
    path = write(site.root / "nodes.txt", "".join(f"{one}\n" for one in NODES) + "# end\n")
    peers = site.peers(f'peers.files = ["{path}"]')
    peers.refresh(site.now)
    write(path, f"{NODES[0]}\n{end}")
    peers.refresh(site.now)
    assert set(waits(peers).values()) == {START + HOLD}
    site.now += HOLD
    assert set(counted(peers)) == named(NODES[0])


def test_a_network_that_moves_to_another_source_is_not_missed(site: Site, peers: PeerList) -> None:
    """From DNS to the configuration, or into a wider network."""
    peers.configure(site.config(f'{NAME}\npeers.cidrs = ["10.0.0.0/26"]').peers)
    answers(site, peers)
    answers(site, peers, "10.9.0.1")
    assert waits(peers) == {}


def test_a_source_that_is_no_longer_configured_holds_nothing(site: Site, peers: PeerList) -> None:
    """The operator's own word counts at once."""
    answers(site, peers, NODES[0])
    peers.configure(site.config('peers.cidrs = ["10.3.0.0/24"]').peers)
    assert counted(peers) == ["10.3.0.0/24"]
    peers.refresh(site.now)
    peers.configure(site.config(NAME).peers)
    assert waits(peers) == {}


def test_a_held_peer_cannot_be_removed_by_itself(site: Site, peers: PeerList) -> None:
    """The message names the command that removes it."""
    answers(site, peers, *NODES[1:])
    with pytest.raises(PeerError, match=r"is held.*vllmwall peers accept-loss gpu\.internal"):
        peers.remove(nets("10.0.0.1"))


def test_a_list_that_does_not_change_writes_nothing(site: Site, peers: PeerList) -> None:
    """Once a minute for ever must not mean a write a minute."""
    answers(site, peers, *NODES[1:])
    path = site.state.with_name("peers-held.json")
    first = path.stat()
    answers(site, peers, *NODES[1:], after=60)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)


def test_a_damaged_file_of_held_peers_is_moved_aside(site: Site, peers: PeerList) -> None:
    """The start goes on, and says so."""
    answers(site, peers, *NODES[1:])
    path = site.state.with_name("peers-held.json")
    path.write_text("{")
    restarted = site.peers(NAME)
    assert set(counted(restarted)) == named(*NODES[1:])
    assert any("is damaged" in (one.error or "") for one in restarted.sources())


def test_the_last_line_of_a_file_that_is_being_written_does_not_count(site: Site) -> None:
    """Half of 10.0.0.0/24 is 10.0.0.0/2, which is a quarter of the Internet."""
    path = write(site.root / "nodes.txt", "10.0.0.0/24\n")
    peers = site.peers(f'peers.files = ["{path}"]')
    peers.refresh(site.now)
    path.write_text("10.0.0.0/2")
    rest = threading.Timer(0.2, lambda: path.open("a").write("4\n10.1.0.0/2"))
    rest.start()
    peers.refresh(site.now)
    rest.join()
    assert texts(peers.networks()) == ["10.0.0.0/24"]
    assert "is being written" in str(peers.sources()[0].error)


def test_a_last_line_without_an_end_counts_once_nobody_writes(site: Site) -> None:
    """Many editors leave it so."""
    path = write(site.root / "nodes.txt", "")
    path.write_text("10.0.0.0/24")
    peers = site.peers(f'peers.files = ["{path}"]')
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.0/24"]
