"""Reading back: what was applied comes back equal, and what others changed is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given

from tests.support.lab import Host, Lab
from tests.support.strategies import by_elements, on_one_network, walls
from tests.support.walls import entry, everywhere, networks, wall
from vllmwall.enforce.backend import AlteredWall, EnforceError
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import KernelLog, Limits, Network, Proto, Wall, WallEntry


@pytest.fixture(scope="module")
def backend() -> Nftables:
    """Without the owner flag: others can change what is ours here."""
    return Nftables("others may edit it")


@on_one_network
@given(first=walls(), second=walls())
def test_what_was_applied_is_read_back(
    shared_lab: Lab, backend: Nftables, first: Wall, second: Wall
) -> None:
    """Any wall, made whole or from any other by its difference, comes back equal."""
    path = shared_lab.node.path
    namespace = wall(shared_lab.node, []).namespace
    one, two = replace(first, namespace=namespace), replace(second, namespace=namespace)
    backend.apply(path, one, None)
    assert backend.read_back(path) == one
    backend.apply(path, two, one)
    assert backend.read_back(path) == two


@on_one_network
@given(first=walls(), second=walls())
def test_a_difference_never_needs_a_replacement(shared_lab: Lab, first: Wall, second: Wall) -> None:
    """The kernel takes every difference of ours as it is."""
    path, namespace = shared_lab.node.path, wall(shared_lab.node, []).namespace
    one = replace(first, namespace=namespace)
    two = by_elements(replace(second, namespace=namespace), one)
    backend = _WithoutReplacement("as the others here")
    backend.put_up(path, one)
    backend.apply(path, two, one)
    assert backend.read_back(path) == two


class _WithoutReplacement(Nftables):
    """Refuses to replace a table, except when told to."""

    def put_up(self, path: str, wanted: Wall) -> None:
        super()._replace(path, wanted)

    def _replace(self, path: str, wall: Wall) -> None:
        raise AssertionError("the difference was refused")


def _standing(lab: Lab) -> Wall:
    """A wall with something of everything."""
    entries = [
        *everywhere(29500, "peers"),
        replace(entry(8000, "public"), limited=True),
        entry(9000, "monitoring", "peers", at="192.0.2.1"),
        entry(9001, "node", at="2001:db8::1", proto=Proto.UDP),
    ]
    peers = ["192.0.2.2", "198.51.100.0/28", "2001:db8::2"]
    made = wall(lab.node, entries, peers=peers, groups={"monitoring": ["198.51.100.20"]})
    return replace(
        made,
        failsafe=frozenset({22}),
        banned=networks("198.51.100.64/31", "198.51.100.66", "2001:db8:66::/64"),
        lockdown=True,
        opened=frozenset({(Proto.UDP, 53)}),
        limits=Limits(10, 20, 30),
        log=KernelLog(100),
    )


def _handle(host: Host, chain: str, rule: str) -> str:
    """The handle of the first rule of a chain that has this text in it."""
    listed = host.run(["nft", "-a", "list", "chain", "inet", "vllmwall", chain]).stdout
    line = next(line for line in listed.splitlines() if rule in line)
    return line.rpartition(" ")[2]


EDITS = {
    "a port opened": "delete element inet vllmwall walled_any4 { tcp . 29500 }",
    "a port closed": "add element inet vllmwall walled_any4 { tcp . 29501 }",
    "an entry gone": "delete element inet vllmwall any4 { tcp . 29500 }",
    "an entry added": "add element inet vllmwall any4 { tcp . 1 : jump only_peers }",
    "a verdict of their own": "add element inet vllmwall any4 { tcp . 1 : continue }",
    "a verdict changed": "delete element inet vllmwall any4 { tcp . 29500 };"
    ' add element inet vllmwall any4 { tcp . 29500 comment "tcpstore job-1" : accept }',
    "a comment changed": "delete element inet vllmwall any4 { tcp . 29500 };"
    ' add element inet vllmwall any4 { tcp . 29500 comment "a, b { }" : jump only_peers }',
    "an address entry gone": "delete element inet vllmwall addr4 { 192.0.2.1 . tcp . 9000 }",
    "a peer added": "add element inet vllmwall peers4 { 203.0.113.0/24 }",
    "a stranger trusted": "add element inet vllmwall trusted4 { 203.0.113.0/24 }",
    "everybody trusted": "add element inet vllmwall trusted6 { ::/0 }",
    "a peer removed": "delete element inet vllmwall peers4 { 192.0.2.2 }",
    "peers flushed": "flush set inet vllmwall peers6",
    "a group widened": "add element inet vllmwall group_monitoring6 { ::/0 }",
    "somebody banned": "add element inet vllmwall banned4 { 203.0.113.0/24 }",
    "a ban lifted": "delete element inet vllmwall banned4 { 198.51.100.66 }",
    "bans flushed": "flush set inet vllmwall banned6",
    "a ban's chain flushed": "flush chain inet vllmwall banned",
    "a door opened": "add element inet vllmwall opened { tcp . 9999 }",
    "a door closed": "delete element inet vllmwall opened { udp . 53 }",
    "a failsafe port added": "add element inet vllmwall failsafe { 23 }",
    "a failsafe UDP port added": "add element inet vllmwall failsafe_udp { 23 }",
    "lockdown flushed": "flush chain inet vllmwall lockdown",
    "limits flushed": "flush chain inet vllmwall limited",
    "a rule before the limits": "insert rule inet vllmwall limited accept",
    "a rule before lockdown": "insert rule inet vllmwall lockdown accept",
    "a limit lifted": "delete element inet vllmwall any4 { tcp . 8000 };"
    ' add element inet vllmwall any4 { tcp . 8000 comment "tcpstore job-1" : accept }',
    "a map flushed": "flush map inet vllmwall any6",
    "a closed set flushed": "flush set inet vllmwall walled_any6",
    "input flushed": "flush chain inet vllmwall input",
    "guarded flushed": "flush chain inet vllmwall guarded",
    "an audience flushed": "flush chain inet vllmwall only_peers",
    "strangers flushed": "flush chain inet vllmwall strangers",
    "the table flushed": "flush table inet vllmwall",
    "a rule inserted": "insert rule inet vllmwall input accept",
    "a rule added": "add rule inet vllmwall input drop",
    "a rule in strangers": "insert rule inet vllmwall strangers accept",
    "a twin of a rule": 'insert rule inet vllmwall input iif "lo" accept',
    "the policy changed": "add chain inet vllmwall input { policy drop; }",
    "a base chain added": "add chain inet vllmwall x { type filter hook input priority 0; }",
    "a chain added": "add chain inet vllmwall x",
    "an audience's chain added": "add chain inet vllmwall only_x { goto strangers; }",
    "a set added": "add set inet vllmwall x { type ipv4_addr; }",
    "a group added": "add set inet vllmwall group_x4 { type ipv4_addr; flags interval; }",
    "a counter added": "add counter inet vllmwall x",
    "a helper added": 'add ct helper inet vllmwall x { type "ftp" protocol tcp; }',
    "the table asleep": "add table inet vllmwall { flags dormant; }",
}


@pytest.fixture
def guarded(shared_lab: Lab, backend: Nftables) -> Iterator[tuple[Host, Wall]]:
    """The node with an active wall, and the wall."""
    wanted = _standing(shared_lab)
    backend.apply(shared_lab.node.path, wanted, None)
    yield shared_lab.node, wanted
    backend.remove(shared_lab.node.path)


def _repaired(backend: Nftables, host: Host, wanted: Wall, found: Wall | None) -> bool:
    backend.apply(host.path, wanted, found)
    return backend.read_back(host.path) == wanted


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_our_table_is_noticed_and_repaired(
    guarded: tuple[Host, Wall], backend: Nftables, edit: str
) -> None:
    """Whatever another program does to our table, it no longer compares equal."""
    host, wanted = guarded
    assert backend.read_back(host.path) == wanted
    host.run(["nft", EDITS[edit]])
    found = backend.read_back(host.path)
    assert found is not None
    assert found != wanted
    assert _repaired(backend, host, wanted, found)


REPLACEMENTS: dict[str, tuple[str, str, str]] = {
    "strangers accepted": ("strangers", "drop", "counter accept"),
    "a lookup narrowed": ("input", "@walled_any4", "tcp dport 1 drop"),
    "everybody a peer": ("only_peers", "@peers4", "ip saddr 0.0.0.0/0 accept"),
    "not remembered": ("strangers", "@refused6", "counter"),
    "bans narrowed": ("input", "@banned4", "tcp dport 1 goto banned"),
    "lockdown passed by": ("input", "goto lockdown", "accept"),
    "another rate": (
        "limited",
        "@rate4",
        "tcp flags syn / fin,syn,rst,ack update @rate4 "
        "{ ip saddr limit rate over 11/second burst 20 packets } goto strangers",
    ),
    "another log": (
        "strangers",
        "log prefix",
        'limit rate 5/second burst 10 packets log prefix "x " group 1',
    ),
}


@pytest.mark.parametrize("edit", REPLACEMENTS)
def test_a_rule_replaced_is_noticed_and_repaired(
    guarded: tuple[Host, Wall], backend: Nftables, edit: str
) -> None:
    """A rule of ours with other words in its place is not our wall."""
    host, wanted = guarded
    chain, old, new = REPLACEMENTS[edit]
    handle = _handle(host, chain, old)
    host.run(["nft", f"replace rule inet vllmwall {chain} handle {handle} {new}"])
    found = backend.read_back(host.path)
    assert found != wanted
    assert _repaired(backend, host, wanted, found)


def test_an_altered_wall_says_what_is_different(
    guarded: tuple[Host, Wall], backend: Nftables
) -> None:
    """People are told which rule is not ours."""
    host, _ = guarded
    host.run(["nft", "insert rule inet vllmwall only_peers tcp dport 5 accept"])
    found = backend.read_back(host.path)
    assert isinstance(found, AlteredWall)
    assert len(found.differences) == 1
    assert found.differences[0].startswith("chain only_peers: tcp dport 5 accept | ip saddr")


def test_a_deleted_table_is_no_wall(guarded: tuple[Host, Wall], backend: Nftables) -> None:
    """A table that somebody deleted is None, and is there again after apply."""
    host, wanted = guarded
    host.run(["nft", "delete table inet vllmwall"])
    assert backend.read_back(host.path) is None
    assert _repaired(backend, host, wanted, None)


def test_remove_leaves_nothing(lab: Lab, backend: Nftables) -> None:
    """After remove the namespace has no rules at all, and a second remove says so."""
    backend.apply(lab.node.path, _standing(lab), None)
    assert backend.remove(lab.node.path)
    assert lab.node.run(["nft", "list", "ruleset"]).stdout == ""
    assert not backend.remove(lab.node.path)
    assert backend.read_back(lab.node.path) is None


def test_an_owned_table_is_still_our_wall(lab: Lab, backend: Nftables) -> None:
    """The owner flag protects the table; it does not change what it does."""
    wanted = _standing(lab)
    listing = ["nft", "list", "table", "inet", "vllmwall"]
    backend.apply(lab.node.path, wanted, None)
    text = lab.node.run(listing).stdout.replace("{\n", "{\n\tflags owner\n", 1)
    backend.remove(lab.node.path)
    owner = _Owner(lab.node)
    owner.load(text)
    assert "flags owner" in lab.node.run(listing).stdout
    assert backend.read_back(lab.node.path) == wanted
    with pytest.raises(EnforceError, match="Operation not permitted"):
        backend.apply(lab.node.path, wall(lab.node, []), None)
    assert backend.read_back(lab.node.path) == wanted  # the active wall stays


class _Owner:
    """Another program that holds our table with the owner flag as long as it lives."""

    def __init__(self, host: Host) -> None:
        import nftables

        self._handle = host.call(nftables.Nftables)

    def load(self, text: str) -> None:
        code, _, complaint = self._handle.cmd(text)
        assert code == 0, complaint


INJECTIONS: dict[str, Callable[[Wall], Wall]] = {
    "a quote in a note": lambda w: replace(w, entries=_noted('x" : accept }')),
    "a line in a note": lambda w: replace(w, entries=_noted("x\nflush ruleset\n")),
    "a backslash": lambda w: replace(w, entries=_noted("x\\")),
    "a long note": lambda w: replace(w, entries=_noted("x" * 200)),
    "a NUL": lambda w: replace(w, entries=_noted("x\0")),
    "letters that are not ASCII": lambda w: replace(w, entries=_noted("ü")),
    "a rule in a group's name": lambda w: _grouped(w, "x { }; flush ruleset; add set inet y z"),
    "a line in a group's name": lambda w: _grouped(w, "x\nflush ruleset"),
    "a joined group": lambda w: _grouped(w, "a.peers"),
    "a group called public": lambda w: _grouped(w, "public"),
    "a group without networks": lambda w: replace(w, entries=frozenset([entry(1, "nobody")])),
    "public and others": lambda w: replace(w, entries=frozenset([entry(1, "peers", "public")])),
    "nobody": lambda w: replace(w, entries=frozenset([entry(1)])),
    "no port": lambda w: replace(w, entries=frozenset([entry(0, "peers")])),
    "no family": lambda w: replace(w, entries=frozenset([entry(1, "peers", family=5)])),
    "a unix socket": lambda w: replace(w, entries=frozenset([entry(1, "peers", proto=Proto.UNIX)])),
    "two for one": lambda w: replace(w, entries=frozenset([entry(1, "peers"), entry(1, "node")])),
}


def _noted(note: str) -> frozenset[WallEntry]:
    return frozenset([entry(29500, "peers", note=note)])


def _grouped(standing: Wall, name: str) -> Wall:
    nets: dict[str, tuple[Network, ...]] = {**standing.networks, name: networks("192.0.2.9")}
    return replace(standing, entries=frozenset([entry(1, name)]), networks=nets)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_wall_that_could_be_misread_is_refused(
    guarded: tuple[Host, Wall], backend: Nftables, injection: str
) -> None:
    """Text that could mean something to nft never reaches it; the active wall stays."""
    host, standing = guarded
    before = host.run(["nft", "-s", "list", "ruleset"]).stdout
    bad = INJECTIONS[injection](standing)
    for known in (None, standing):
        with pytest.raises(EnforceError):
            backend.apply(host.path, bad, known)
    assert host.run(["nft", "-s", "list", "ruleset"]).stdout == before
