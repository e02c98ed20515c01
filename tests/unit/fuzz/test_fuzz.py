"""Fuzzers of everything that others write: each loader ends in what it promises, or in one error.

See `tests.support.fuzzing` for the time that they take. A failure names the seed: try it again with
``VLLMWALL_FUZZ_SEED``, and keep what broke in the corpus.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from tests.support.fuzzing import CORPUS, JUNK, checked, garbled, mutated, seeds
from tests.unit.linux.test_trace_ring import EVENT, MKDIR, PAGE
from vllmwall.api.errors import ControlError
from vllmwall.api.server import allowed
from vllmwall.decide.walls import decide
from vllmwall.enforce.evaluator.foreign import read_ruleset
from vllmwall.enforce.evaluator.foreign_rules import Arrival
from vllmwall.enforce.nftables.notifications import Watch
from vllmwall.linux import links, netlink
from vllmwall.linux.listeners import SocketDump
from vllmwall.linux.trace_ring import EventFormat, PageFormat, beginning
from vllmwall.model import Policy, Proto
from vllmwall.networks.dns import Lookups, NoAnswerError
from vllmwall.networks.files import read_peer_files
from vllmwall.observe import other_firewalls
from vllmwall.observe.snapshot import SnapshotError, dump, load
from vllmwall.recognize import recognize

RECORDINGS = sorted((Path(__file__).parents[2] / "recordings").glob("*.json"))
KEPT = sorted(CORPUS.glob("*.json"))
LISTING = """table ip nat {
	map service-nodeports {
		type inet_proto . inet_service : verdict
		elements = { tcp . 30500 : goto external-A }
	}

	set hosts {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.0.2.1-192.0.2.9 }
	}

	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local meta l4proto . th dport vmap @service-nodeports
		ip saddr @hosts tcp dport { 80, 443, 8000-8010 } counter redirect to :8000
		numgen random mod 2 vmap { 0 : goto external-A, 1 : jump external-A }
	}

	chain external-A {
		meta mark set meta mark or 0x4000
		meta mark & 0x4000 == 0x4000 ct state vmap { established : accept, new : drop }
		meta l4proto tcp dnat to 10.244.0.7:29500
	}
}
"""
IP_VS = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0000201:7724 rr
  -> 0AF40007:733C      Masq    1      0          0
UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:7725 rr
  -> [fd00:0000:0000:0000:0000:0000:0000:0007]:733D      Masq    1      0          0
"""
PACKET = Arrival(
    ip_address("203.0.113.9"), ip_address("192.0.2.1"), "tcp", 8000, 40000, interface=""
)


def recognized(path: Path) -> None:
    """Read a snapshot, recognize what is in it, decide about it, and write it again."""
    node = load(path)
    try:
        decide(recognize(node), Policy({}), ())
        dump(node, host_facts={})
    except ValueError as error:  # only `load` may refuse
        raise AssertionError(repr(error)) from error


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_what_once_broke_something(path: Path) -> None:
    """The corpus."""
    checked(path.name, lambda: recognized(path), (SnapshotError,))


def test_snapshots(tmp_path: Path) -> None:
    """Anybody can send one with a bug report."""
    documents = [json.loads(path.read_text()) for path in RECORDINGS]
    path = tmp_path / "snapshot.json"
    for seed in seeds():
        random = Random(seed)
        document = mutated(random.choice(documents), random)
        path.write_text(json.dumps(document))
        if random.random() < 0.2:
            path.write_bytes(garbled(path.read_bytes(), random))
        checked(f"seed {seed}", lambda: recognized(path), (SnapshotError,))


def datagrams() -> Iterator[tuple[str, bytes, Callable[[bytes], object]]]:
    """Answers of this kernel, each with what decodes it."""
    with closing(netlink.opened(netlink.ROUTE)) as route:
        asked = links._HEADER.pack(0, 0, 0, 0, 0)
        for part in netlink.dumped(route, links._GET_LINK, asked):
            yield "links", part, lambda data: list(links.decoded(data))
        asked = links._ADDRESS_HEADER.pack(0, 0, 0, 0, 0)
        for part in netlink.dumped(route, links._GET_ADDRESS, asked):
            yield "addresses", part, lambda data: list(links.decoded_addresses(data))
    with closing(SocketDump()) as dumped, closing(socket.create_server(("127.0.0.1", 0))):
        for part in dumped._dump(socket.AF_INET, socket.IPPROTO_TCP, 1 << 10, 0):
            yield "listeners", part, lambda data: list(dumped._decode(data, Proto.TCP, Counter()))
        body = b"\x01\0\0\0" + netlink.text(1, "vllmwall") + netlink.attribute(2, bytes(4))
        news = netlink.message(0x0A10, 0, body) + netlink.message(0x0A06, 0, body)
        with closing(Watch()) as watch:
            yield "changes", news, lambda data: list(watch._decoded(data))


def test_netlink() -> None:
    """The kernel's answers, cut, changed and repeated: MalformedMessageError or a result."""
    for name, data, decode in datagrams():
        for seed in seeds():
            made = garbled(data, Random(seed))
            checked(
                f"{name}, seed {seed}",
                lambda decode=decode, made=made: decode(made),
                (netlink.MalformedMessageError,),
            )


def test_trace_pages() -> None:
    """No bytes of a page raise, and no field lies outside its record."""
    pages, layout = PageFormat(PAGE, EVENT), EventFormat(MKDIR, ("id", "path"))
    for seed in seeds():
        random = Random(seed)
        page = garbled(random.randbytes(16) + bytes(64) + random.randbytes(4016), random)
        page = page[:4096].ljust(4096, b"\xee")

        def read(page: bytes = page) -> None:
            pages.lost(page)
            for record in pages.records(page):
                beginning(page, record)
                if (fields := layout.read(page, record)) is not None:
                    assert isinstance(fields[1], bytes)
                    assert len(fields[1]) <= record.end - record.start

        checked(f"seed {seed}", read, ())


def test_peer_files(tmp_path: Path) -> None:
    """A broken file is an error of its source."""
    path = tmp_path / "peers"
    good = b"# rack 7\n10.0.0.0/24  # nodes\n2001:db8::/64\nfe80::1%eth0\n10.1.0.0/255.255.0.0\n"
    for seed in seeds():
        path.write_bytes(garbled(good * 3, Random(seed)))
        checked(f"seed {seed}", lambda: read_peer_files([str(path)], {}), ())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_answers_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the resolver of the node returns: networks, or one error for the name."""
    for seed in seeds():
        random = Random(seed)
        good = [(socket.AF_INET, 1, 6, "", ("10.0.0.7", 0))]
        answer = [mutated(good, random), [(2, 1, 6, "", (random.choice(JUNK), 0))]][seed % 2]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, answer=answer, **__: answer)
        [found] = Lookups(seconds=10.0).answers(["gpu.internal"]).values()
        assert isinstance(found, (NoAnswerError, tuple)), f"seed {seed}"
        if isinstance(found, NoAnswerError):
            assert str(found), f"seed {seed}"


def test_requests() -> None:
    """A line of a client is a request or one error, before any handler sees it."""
    requests: list[dict[str, object]] = [
        {"command": "explain", "sources": ["stranger"], "target": "8000", "skip": 0},
        {"command": "bans.add", "networks": ["10.0.0.0/8"], "seconds": 5.0, "ssh_client": ""},
        {"command": "events", "after": 1, "epoch": "x", "most": 3},
        {"command": "guard"},
    ]
    for seed in seeds():
        random = Random(seed)
        line = json.dumps(mutated(random.choice(requests), random)).encode()
        line = garbled(line, random) if random.random() < 0.5 else line
        uid = random.choice((0, 1000))
        checked(f"seed {seed}", lambda line=line, uid=uid: allowed(line, 7, uid), (ControlError,))


def test_rules_of_other_programs() -> None:
    """Whatever nft prints, of this version or the next: a verdict or unknown."""
    for seed in seeds():
        listing = garbled(LISTING.encode(), Random(seed)).decode(errors="replace")

        def fate(listing: str = listing) -> None:
            ruleset = read_ruleset(listing)
            assert ruleset.fate(PACKET).verdict in {
                *("accept", "drop", "reject", "forwarded", "unknown")
            }
            assert all(0 < port < 65536 for port in ruleset.ports)

        checked(f"seed {seed}", fate, ())


def test_lists_of_ipvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is none is left out."""
    monkeypatch.setattr(other_firewalls, "_NET", tmp_path)
    (tmp_path / "ip_vs").write_text(IP_VS)
    assert [("tcp", 30500, "10.244.0.7:29500"), ("udp", 30501, "[fd00::7]:29501")] == [
        (one.proto, one.port, one.to) for one in other_firewalls._ipvs()
    ]
    for seed in seeds():
        (tmp_path / "ip_vs").write_bytes(garbled(IP_VS.encode(), Random(seed)))
        checked(f"seed {seed}", lambda: list(other_firewalls._ipvs()), ())
