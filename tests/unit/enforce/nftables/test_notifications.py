"""Notifications as the kernel sends them, and as it never should: what the watch makes of them."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllmwall.enforce.nftables.notifications import LOST, Touch, Watch

INET, IP = 1, 2
NEWTABLE, DELTABLE, NEWRULE, DELCHAIN, DELSETELEM, NEWGEN = 0, 2, 6, 5, 14, 15


class Fed(Watch):
    """A watch that is fed from a socket pair instead of the kernel."""

    def __init__(self, portid: int = 0) -> None:
        super().__init__(portid)
        self._socket.close()
        self._socket, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)


@pytest.fixture
def watch() -> Fed:
    return Fed(portid=77)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, *, family: int = INET, port: int = 5) -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + body
    return struct.pack("=IHHII", 16 + len(body), 10 << 8 | kind, 0, 0, port) + body


def named(name: str, *more: bytes) -> bytes:
    return attribute(1, name.encode() + b"\0") + b"".join(more)


def commit_by(pid: int, command: str) -> bytes:
    body = attribute(1, bytes(4)) + attribute(2, struct.pack("!I", pid))
    return message(NEWGEN, body + attribute(3, command.encode() + b"\0"), family=0)


NFT = commit_by(4242, "nft")


def seen(watch: Fed, *datagrams: bytes) -> tuple[Touch, ...]:
    for datagram in datagrams:
        watch.kernel.send(datagram)
    return watch.read()


def test_a_touch_names_process_and_deed(watch: Fed) -> None:
    """The process that changed our table is in the log with pid, command and what was done."""
    element = message(DELSETELEM, named("vllmwall", attribute(2, b"walled_any4\0")))
    rule = message(NEWRULE, named("vllmwall", attribute(2, b"input\0")))
    what = "deleted elements of walled_any4, added a rule to input"
    assert (Touch(4242, "nft", what),) == seen(watch, element + rule, NFT)
    assert f"nft (pid 4242) {what}" == str(Touch(4242, "nft", what))


def test_a_deleted_table_is_told_in_three_words(watch: Fed) -> None:
    """The kernel lists everything that was in it first; people need no list."""
    chain = message(DELCHAIN, named("vllmwall", attribute(3, b"input\0")))
    assert (
        "deleted the table" == seen(watch, chain, message(DELTABLE, named("vllmwall")), NFT)[0].what
    )


def test_what_is_not_ours_is_no_touch(watch: Fed) -> None:
    """Other tables, tables of our name in other families, texts with our name in them."""
    others = [
        message(NEWTABLE, named("filter")),
        message(NEWTABLE, named("vllmwall_standin")),
        message(NEWTABLE, named("vllmwall"), family=IP),
        message(NEWRULE, named("filter", attribute(2, b"input\0"), named("vllmwall"))),
    ]
    assert () == seen(watch, *(part for other in others for part in (other, NFT)))


def test_our_own_changes_are_no_touch(watch: Fed) -> None:
    """They come from the socket that the watch was told of."""
    assert () == seen(watch, message(DELTABLE, named("vllmwall"), port=77), NFT)


def test_each_commit_is_a_touch_of_its_own(watch: Fed) -> None:
    """What one process did is never laid at another's door."""
    deed = message(DELTABLE, named("vllmwall"))
    theirs = commit_by(7, "ufw")
    commands = [touch.command for touch in seen(watch, deed, NFT, theirs, deed, theirs)]
    assert ["nft", "ufw"] == commands


def test_a_commit_may_arrive_in_pieces(watch: Fed) -> None:
    """The name of the process comes last, and maybe only with the next wake-up."""
    assert () == seen(watch, message(DELTABLE, named("vllmwall")))
    assert [4242] == [touch.pid for touch in seen(watch, NFT)]


def test_a_name_cannot_forge_a_log_line(watch: Fed) -> None:
    """Processes choose what they are called."""
    liar = commit_by(7, "x\n2026 all is well")
    (touch,) = seen(watch, message(DELTABLE, named("vllmwall")), liar)
    assert "x?2026 all is well" == touch.command


def test_many_deeds_are_cut_short(watch: Fed) -> None:
    """A script of a thousand lines is one line in the log."""
    rules = [
        message(NEWRULE, named("vllmwall", attribute(2, f"chain{number}\0".encode())))
        for number in range(1000)
    ]
    (touch,) = seen(watch, b"".join(rules[:500]), NFT)
    assert len(touch.what) < 300
    assert touch.what.endswith(", …")


def test_lost_notifications_are_a_touch(watch: Fed) -> None:
    """The state of the wall is unknown then: it has to be read back."""
    assert 0 == LOST.pid
    assert "lost" in str(LOST)


@given(st.binary(max_size=200), st.integers(0, 40), st.integers(0, 70_000))
def test_no_datagram_breaks_it(noise: bytes, kind: int, length: int) -> None:
    """Whatever newer kernels send, cut or in an unknown shape."""
    watch = Fed()
    try:
        whole = message(kind, named("vllmwall", noise))
        lying = struct.pack("=I", length) + whole[4:]
        seen(watch, whole + noise, lying, whole[: len(noise)], noise, NFT)
    finally:
        watch.close()
        watch.kernel.close()
