"""Peers that are fetched: files and DNS, and what stays when they fail."""

from __future__ import annotations

import os
import socket
import threading
from ipaddress import ip_network

import pytest

from tests.unit.networks.peers_site import START, Site, nets, texts, write
from vllmwall.networks.dns import Lookups, look_up
from vllmwall.networks.peerlist import PeerList
from vllmwall.networks.sources import PeerSource


def refreshed(site: Site, text: str) -> PeerList:
    """The peers of a daemon that has started and looked once."""
    peers = site.peers(text)
    peers.refresh(site.now)
    return peers


def errors(peers: PeerList) -> dict[str, str]:
    """What is wrong, by source."""
    return {source.name: source.error for source in peers.sources() if source.error}


def files_of(site: Site, pattern: str = "*.txt") -> str:
    """A configuration with peer files."""
    return f'peers.files = ["{site.root}/peers.d/{pattern}"]'


def test_files_hold_one_network_a_line(site: Site) -> None:
    """Comments and empty lines are none; an address is a network of one."""
    write(site.root / "peers.d" / "a.txt", "# rack 1\n10.0.0.0/24 # all of it\n\n  10.0.2.7\n")
    write(site.root / "peers.d" / "b.txt", "10.0.1.0/24\nfd00::/64")
    write(site.root / "peers.d" / "c.conf", "6.6.6.6")
    (site.root / "peers.d" / "d.txt").mkdir()
    peers = refreshed(site, files_of(site))
    assert texts(peers.networks()) == ["10.0.0.0/23", "10.0.2.7/32", "fd00::/64"]
    assert [(source.name[-5:], source.kind) for source in peers.sources()] == [
        ("a.txt", "file"),
        ("b.txt", "file"),
    ]
    assert errors(peers) == {}


def test_a_broken_line_keeps_what_the_file_said_last(site: Site) -> None:
    """Nothing wider, nothing narrower, and the line is named."""
    path = write(site.root / "peers.d" / "a.txt", "10.0.0.0/24\n")
    peers = refreshed(site, files_of(site))
    write(path, "10.1.0.0/24\n10.2.0.5/24\n")
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.0/24"]
    assert errors(peers) == {
        str(path): f'{path}:2: "10.2.0.5/24" has host bits; did you mean 10.2.0.0/24 or '
        "10.2.0.5/32?; what it said last still counts"
    }
    write(path, "10.0.0.0/24\n10.0.1.0/24\n")
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.0/23"]
    assert errors(peers) == {}


def test_a_file_that_was_never_whole_counts_with_its_good_lines(site: Site) -> None:
    """A typo in one line does not cut the whole cluster off."""
    path = write(site.root / "peers.d" / "a.txt", "nonsense\n10.0.0.0/24\n")
    peers = refreshed(site, files_of(site))
    assert texts(peers.networks()) == ["10.0.0.0/24"]
    assert errors(peers)[str(path)].startswith(f'{path}:1: "nonsense" is no network')


def test_many_errors_of_a_file_are_cut_short(site: Site) -> None:
    """Five say enough."""
    path = write(site.root / "peers.d" / "a.txt", "x\n" * 12)
    said = errors(refreshed(site, files_of(site)))[str(path)]
    assert said.count("is no network") == 5
    assert said.endswith("; and 7 more errors")


def test_a_missing_file_that_is_named_in_full_is_an_error(site: Site) -> None:
    """What it said last stays; where it never said anything it adds nobody."""
    path = write(site.root / "peers.d" / "a.txt", "10.0.0.0/24\n")
    peers = refreshed(site, files_of(site, "a.txt"))
    path.unlink()
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.0/24"]
    assert errors(peers)[str(path)].startswith(f"{path} cannot be read: No such file")
    site.state.unlink()
    assert refreshed(site, files_of(site, "a.txt")).networks() == ()


@pytest.mark.parametrize("spoil", ["file", "directory", "bytes"])
def test_a_file_that_cannot_be_trusted_adds_nobody(site: Site, spoil: str) -> None:
    """Writable by others, in a directory writable by others, or no text at all."""
    path = write(site.root / "peers.d" / "a.txt", "6.6.6.6\n")
    if spoil == "bytes":
        path.write_bytes(b"6.6.6.6\n\xff")
    else:
        (path if spoil == "file" else path.parent).chmod(0o777)
    peers = refreshed(site, files_of(site))
    assert peers.networks() == ()
    assert str(path) in errors(peers)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "0.0.0.0/1\n128.0.0.0/1", "::/0\n10.0.0.0/8"])
def test_everyone_in_a_file_counts_for_nothing(site: Site, text: str) -> None:
    """In halves too; the other sources go on counting."""
    path = write(site.root / "peers.d" / "a.txt", text)
    peers = refreshed(site, f'peers.cidrs = ["10.3.0.0/24"]\n{files_of(site)}')
    assert texts(peers.networks()) == ["10.3.0.0/24"]
    assert "would make everyone a peer" in errors(peers)[str(path)]


def test_halves_of_everyone_in_two_files_count_once(site: Site) -> None:
    """The one that completes it is left out."""
    write(site.root / "peers.d" / "a.txt", "0.0.0.0/1")
    path = write(site.root / "peers.d" / "b.txt", "128.0.0.0/1")
    peers = refreshed(site, files_of(site))
    assert texts(peers.networks()) == ["0.0.0.0/1"]
    assert list(errors(peers)) == [str(path)]


def test_everyone_in_a_file_counts_where_it_is_spelled_out(site: Site) -> None:
    """peers.allow_everyone = true is for files too."""
    write(site.root / "peers.d" / "a.txt", "0.0.0.0/0")
    peers = refreshed(site, f"peers.allow_everyone = true\n{files_of(site)}")
    assert texts(peers.networks()) == ["0.0.0.0/0"]


def test_names_are_peers_with_all_their_addresses(site: Site) -> None:
    """A and AAAA."""
    site.answers["gpu.internal"] = ("10.0.0.1", "10.0.0.9", "fd00::1")
    peers = refreshed(site, 'peers.dns = ["gpu.internal"]')
    assert peers.sources() == (
        PeerSource("gpu.internal", "dns", nets("10.0.0.1", "10.0.0.9", "fd00::1")),
    )
    assert texts(peers.networks()) == ["10.0.0.1/32", "10.0.0.9/32", "fd00::1/128"]


def test_a_name_that_fails_keeps_its_last_good_answer(site: Site) -> None:
    """DNS away is no reason to cut running peers; and it is said."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    peers = refreshed(site, 'peers.dns = ["gpu.internal", "other.internal"]')
    site.answers["gpu.internal"] = OSError(-3, "Temporary failure in name resolution")
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.1/32"]
    assert errors(peers) == {
        "gpu.internal": "gpu.internal does not resolve: Temporary failure in name resolution; its "
        "last good answer stays (10.0.0.1/32)",
        "other.internal": "other.internal does not resolve: Name or service not known; it has "
        "never resolved, so it adds no peers",
    }
    site.answers["gpu.internal"] = ("10.0.0.1", "10.0.0.2")
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.1/32", "10.0.0.2/32"]


def test_last_good_answers_outlive_a_restart(site: Site) -> None:
    """A daemon that restarts while DNS and a file are away keeps the cluster together."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    path = write(site.root / "peers.d" / "a.txt", "10.1.0.0/24")
    text = f'peers.dns = ["gpu.internal"]\n{files_of(site, "a.txt")}'
    refreshed(site, text)
    site.answers.clear()
    path.unlink()
    restarted = site.peers(text)
    assert texts(restarted.networks()) == ["10.0.0.1/32", "10.1.0.0/24"]
    restarted.refresh(site.now)
    assert texts(restarted.networks()) == ["10.0.0.1/32", "10.1.0.0/24"]
    assert errors(restarted).keys() == {"gpu.internal", str(path)}


def test_an_answer_without_addresses_is_no_answer(site: Site) -> None:
    """It must not empty the list."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    peers = refreshed(site, 'peers.dns = ["gpu.internal"]')
    site.answers["gpu.internal"] = ()
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.1/32"]
    assert "gpu.internal: no answer" in errors(peers)["gpu.internal"]


def test_a_name_that_python_cannot_encode_is_an_error(site: Site) -> None:
    """The idna codec raises UnicodeError, not OSError."""
    site.answers["x"] = UnicodeError("label too long")
    assert "label too long" in errors(refreshed(site, 'peers.dns = ["x"]'))["x"]


def test_a_new_configuration_counts_at_once(site: Site) -> None:
    """What it no longer names is no peer any more; what was added at runtime is."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    write(site.root / "peers.d" / "a.txt", "10.1.0.0/24")
    peers = refreshed(site, f'peers.dns = ["gpu.internal"]\n{files_of(site)}')
    peers.add(nets("10.2.0.0/24"))
    peers.configure(site.config('peers.cidrs = ["10.3.0.0/24"]').peers)
    assert texts(peers.networks()) == ["10.2.0.0/24", "10.3.0.0/24"]
    peers.configure(site.config('peers.dns = ["gpu.internal"]').peers)
    assert texts(peers.networks()) == ["10.0.0.1/32", "10.2.0.0/24"]


def test_a_fetched_peer_cannot_be_removed(site: Site) -> None:
    """The message names the file or the DNS name."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    peers = refreshed(site, 'peers.dns = ["gpu.internal"]')
    with pytest.raises(
        Exception, match=r"10\.0\.0\.1/32 comes from gpu\.internal; remove it there"
    ):
        peers.remove(nets("10.0.0.1"))


def test_a_refresh_that_cannot_write_its_state_says_so(site: Site) -> None:
    """The peers count all the same; the error goes when writing works again."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    peers = site.peers('peers.dns = ["gpu.internal"]')
    write(site.root / "run", "")
    peers.refresh(site.now)
    assert texts(peers.networks()) == ["10.0.0.1/32"]
    assert "a restart would forget" in errors(peers)["runtime"]
    (site.root / "run").unlink()
    peers.refresh(site.now)
    assert errors(peers) == {}
    assert site.state.exists()


def test_a_refresh_without_news_writes_nothing(site: Site) -> None:
    """Once a minute for ever must not mean a write a minute."""
    site.answers["gpu.internal"] = ("10.0.0.1",)
    peers = refreshed(site, 'peers.dns = ["gpu.internal"]')
    inode = site.state.stat().st_ino
    peers.refresh(site.now)
    assert site.state.stat().st_ino == inode


def test_networks_are_merged_once_until_something_changes(site: Site) -> None:
    """Every pass asks, and a pass has half a millisecond."""
    peers = site.peers('peers.cidrs = ["10.0.0.0/24"]')
    peers.add(nets("10.1.0.0/24"), START + 60)
    first = peers.networks()
    site.now += 59
    assert peers.networks() is first


def test_a_lookup_that_hangs_is_given_up_and_not_started_again() -> None:
    """One thread a name, however often it is asked for; its late answer counts."""
    started, release = [], threading.Event()

    def hang(name: str) -> tuple[object, ...]:
        started.append(name)
        release.wait(30)
        return nets("10.0.0.1")

    lookups = Lookups(hang, seconds=0.05)  # type: ignore[arg-type]
    try:
        for _ in range(3):
            answer = lookups.answers(["slow"])["slow"]
            assert str(answer) == "slow: no answer within 0.05 s"
        assert started == ["slow"]
    finally:
        release.set()
    lookups.seconds = 30
    assert lookups.answers(["slow"]) == {"slow": nets("10.0.0.1")}
    assert lookups.answers(["slow"]) == {"slow": nets("10.0.0.1")}
    assert started == ["slow", "slow"]


def test_a_slow_name_does_not_delay_the_others(site: Site) -> None:
    """All names are asked at once, under one deadline."""
    meeting = threading.Barrier(3, timeout=30)

    def together(name: str) -> tuple[object, ...]:
        meeting.wait()
        return nets("10.0.0.1")

    lookups = Lookups(together, seconds=30)  # type: ignore[arg-type]
    assert list(lookups.answers(["a", "b", "c"])) == ["a", "b", "c"]


def test_questions_are_answered_while_dns_hangs(site: Site) -> None:
    """`networks` never waits for a refresh."""
    asked, release = threading.Event(), threading.Event()

    def hang(name: str) -> tuple[object, ...]:
        asked.set()
        release.wait(30)
        return nets("10.0.0.1")

    config = site.config('peers = { cidrs = ["10.3.0.0/24"], dns = ["slow"] }')
    peers = PeerList(config.peers, site.root / "run", lookups=Lookups(hang))  # type: ignore[arg-type]
    refresh = threading.Thread(target=peers.refresh, args=(site.now,))
    refresh.start()
    try:
        assert asked.wait(30)
        assert texts(peers.networks()) == ["10.3.0.0/24"]
    finally:
        release.set()
        refresh.join(30)
    assert texts(peers.networks()) == ["10.0.0.1/32", "10.3.0.0/24"]


def test_real_lookups_give_networks_of_one_address() -> None:
    """localhost needs no server."""
    assert ip_network("127.0.0.1/32") in look_up("localhost")


def test_a_zone_in_an_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """fe80::1%eth0 is fe80::1 for a rule; a mapped address is IPv4."""
    answers = [("fe80::1%eth0",), ("::ffff:10.0.0.1",), ("10.0.0.1",)]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (*one, 0)) for one in answers]
    )
    assert texts(look_up("x")) == ["10.0.0.1/32", "fe80::1/128"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_adds_nobody(site: Site) -> None:
    """He could let himself in."""
    path = write(site.root / "peers.d" / "a.txt", "6.6.6.6\n")
    os.chown(path, 65534, 0)
    peers = refreshed(site, files_of(site))
    assert peers.networks() == ()
    assert "belongs to uid 65534" in errors(peers)[str(path)]
