"""The state file: what is in it is believed only when it is ours and whole."""

from __future__ import annotations

import json

import pytest

from tests.unit.networks.peers_site import Site, nets, texts, write

GOOD = {"version": 1, "runtime": [{"network": "10.1.0.0/24", "expires": None}], "answers": []}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\0" * 100,
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "runtime": [{"network": "10.1.0.1/24", "expires": None}]}),
        json.dumps({**GOOD, "runtime": [{"network": "10.1.0.0/24", "expires": "soon"}]}),
        json.dumps({**GOOD, "more": 1}),
        '{"version": 1, "runtime": [{"network": "10.1.0.0/24", "expires": NaN}], "answers": []}',
        json.dumps({**GOOD, "answers": [{"kind": "static", "name": "x", "networks": []}]}),
    ],
)
def test_a_damaged_state_file_is_moved_aside_and_reported(site: Site, text: str) -> None:
    """No crash, no peer of it, and the next peer that is added starts a clean file."""
    write(site.state, text)
    peers = site.peers()
    assert peers.networks() == ()
    (source,) = peers.sources()
    assert source.error is not None
    assert source.error.startswith(f"{site.state} is damaged (")
    assert source.error.endswith("Peers added at runtime must be added again.")
    assert (site.root / "run" / "peers.json.bad").read_text() == text
    peers.refresh(site.now)
    assert peers.sources() == (source,)
    peers.add(nets("10.1.0.0/24"))
    assert [each.error for each in peers.sources()] == [None]
    assert texts(site.peers().networks()) == ["10.1.0.0/24"]


def test_a_state_file_of_another_encoding_is_damaged(site: Site) -> None:
    """Bytes that are no text."""
    write(site.state, "").write_bytes(b"\xff\xfe")
    assert "is damaged" in str(site.peers().sources()[0].error)


def test_a_state_file_that_others_can_write_is_not_believed(site: Site) -> None:
    """It could let anybody in."""
    write(site.state, json.dumps(GOOD)).chmod(0o666)
    peers = site.peers()
    assert peers.networks() == ()
    assert "is writable by group or others" in str(peers.sources()[0].error)


def test_a_state_file_that_cannot_be_read_is_reported(site: Site) -> None:
    """Here a directory in its place."""
    site.state.mkdir(parents=True)
    (source,) = site.peers().sources()
    why = f"{site.state} cannot be read: {site.state} is no regular file"
    assert source.error == f"{why}. Peers added at runtime must be added again."


def test_a_damaged_state_file_that_cannot_be_moved_is_reported(site: Site) -> None:
    """Here a directory stands where it would go."""
    write(site.state, "{")
    (site.root / "run" / "peers.json.bad" / "x").mkdir(parents=True)
    assert "cannot be moved aside" in str(site.peers().sources()[0].error)


def test_everyone_in_a_state_file_counts_for_nothing(site: Site) -> None:
    """Whoever wrote it: everyone is a peer only by configuration."""
    everyone = [{"network": "0.0.0.0/0", "expires": None}]
    write(site.state, json.dumps({**GOOD, "runtime": everyone}))
    peers = site.peers('peers.cidrs = ["10.0.0.0/24"]')
    assert texts(peers.networks()) == ["10.0.0.0/24"]
    assert [bool(source.error) for source in peers.sources()] == [False, True]
