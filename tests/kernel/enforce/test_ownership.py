"""A table with an owner: nobody else changes it, nobody's death takes it down."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given

from tests.support.hammer import hammer
from tests.support.lab import Host, Lab
from tests.support.strategies import by_elements, on_one_network, walls
from tests.support.walls import everywhere, wall
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables import replacement
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.nftables.libnftables import Libnftables
from vllmwall.enforce.nftables.objects import Table
from vllmwall.engine.wall_facts import remove_everywhere
from vllmwall.linux.netns import inode_of
from vllmwall.model import Mode, Wall

PORT = 29500
WATCHED = "not owned, for this test"

# Puts the wall up as another process of ours would, and says so; then waits.
OTHER = """
import sys, time
from tests.kernel.enforce.test_ownership import closed_at
from vllmwall.enforce.nftables.backend import Nftables
backend = Nftables()
path = sys.argv[1]
backend.apply(path, closed_at(path), backend.read_back(path))
print(backend.ownership(path), flush=True)
if sys.argv[2:] == ["stay"]:
    time.sleep(600)
"""
ATTACKS = (
    "flush ruleset",
    "delete table inet vllmwall",
    "flush table inet vllmwall",
    "flush chain inet vllmwall input",
    f"delete element inet vllmwall walled_any4 {{ tcp . {PORT} }}",
    "insert rule inet vllmwall input accept",
    "add table inet vllmwall { flags dormant; }",
    "delete table inet vllmwall; add table inet vllmwall",
)


def closed_at(path: str) -> Wall:
    """The wall of these tests, for any owner."""
    return wall(Host("", path, None, None), everywhere(PORT, "peers"))  # type: ignore[arg-type]


@pytest.fixture
def backend() -> Nftables:
    """One that owns its tables: the kernel of the tests takes it."""
    made = Nftables()
    if made.why_not_owned:
        pytest.skip(made.why_not_owned)
    return made


@pytest.fixture
def node(lab: Lab) -> Host:
    """A node that answers everybody as long as no wall is active."""
    lab.node.listen("::", PORT)
    lab.node.listen_udp("::", PORT)
    assert lab.stranger.connect(lab.node.ipv4, PORT) == "open"
    return lab.node


def is_active(lab: Lab) -> bool:
    """By packets: strangers are refused over both families, the peer is not."""
    doors = [(lab.node.ipv4, "timeout"), (lab.node.ipv6, "timeout")]
    return all(lab.stranger.connect(at, PORT) == answer for at, answer in doors) and (
        lab.peer.connect(lab.node.ipv4, PORT) == "open"
    )


def attack(host: Host, command: str) -> int:
    """What another program's nft returns; its words are no matter."""
    done = subprocess.run(host.command(["nft", command]), capture_output=True, check=False)
    return done.returncode


@contextmanager
def other_process(lab: Lab, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has put the wall up."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, lab.node.path, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "owned\n" == process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def handles(host: Host) -> list[str]:
    """The kernel's number of everything in our table: it changes when something is made again."""
    listed = host.run(["nft", "-a", "list", "table", "inet", "vllmwall"]).stdout
    return re.findall(r"handle \d+", listed)


@pytest.mark.parametrize("command", ATTACKS)
def test_no_other_program_changes_it(lab: Lab, node: Host, backend: Nftables, command: str) -> None:
    """A flush passes our table over, everything else is refused, and all of it is still there."""
    backend.apply(node.path, closed_at(node.path), None)
    before = handles(node)
    assert (attack(node, command) == 0) == (command == "flush ruleset")
    assert handles(node) == before
    assert backend.read_back(node.path) == closed_at(node.path)
    assert "owned" == backend.ownership(node.path)
    assert is_active(lab)


@pytest.mark.serial
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nothing_slips_in_during_attacks(
    lab: Lab, node: Host, backend: Nftables, proto: str
) -> None:
    """Under a hammer, whatever other programs try."""
    commands = iter(ATTACKS * 1000)
    assert hammer(lab.stranger, proto, (node.ipv4, PORT), 0.3, lambda: None)[1] > 0
    backend.apply(node.path, closed_at(node.path), None)
    meanwhile = lambda: attack(node, next(commands))  # noqa: E731
    tried, opened = hammer(lab.stranger, proto, (node.ipv4, PORT), 3, meanwhile)
    assert tried > 500
    assert 0 == opened


def test_it_outlives_its_owner_and_is_adopted(lab: Lab, node: Host, backend: Nftables) -> None:
    """kill -9: the wall stays, and the next daemon owns it as it is."""
    with other_process(lab, "stay") as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert is_active(lab)
        before = handles(node)
        wanted = closed_at(node.path)
        assert backend.read_back(node.path) == wanted
        assert not backend.holds(node.path)
        assert "watched: not adopted yet" == backend.ownership(node.path)
        backend.apply(node.path, wanted, wanted)
    assert backend.holds(node.path)
    assert "owned" == backend.ownership(node.path)
    assert handles(node) == before
    assert 0 == attack(node, "flush ruleset")
    assert is_active(lab)


def test_commands_without_a_daemon_leave_it_to_the_next(
    lab: Lab, node: Host, backend: Nftables
) -> None:
    """`vllmwall up` twice, then a daemon: each takes over what the last one left."""
    for _ in range(2):
        with other_process(lab):
            pass
        assert is_active(lab)
    wanted = closed_at(node.path)
    backend.apply(node.path, wanted, wanted)
    assert "owned" == backend.ownership(node.path)


def test_an_owner_that_hangs_is_named(lab: Lab, node: Host, backend: Nftables) -> None:
    """The message names the process to end; the wall stays active meanwhile."""
    with other_process(lab, "stay") as owner:
        owner.send_signal(signal.SIGSTOP)
        named = rf"belongs to \S+ \(pid {owner.pid}\)"
        for wanted in (closed_at(node.path), wall(node, [])):
            with pytest.raises(EnforceError, match=named):
                backend.apply(node.path, wanted, closed_at(node.path))
        with pytest.raises(EnforceError, match=named):
            backend.remove(node.path)
        assert f"(pid {owner.pid})" in backend.ownership(node.path)
        assert is_active(lab)


def test_down_says_so_where_its_own_wall_is_held_by_another(
    lab: Lab, node: Host, backend: Nftables
) -> None:
    """At home it has not done its work; in a container's namespace the table is the container's."""
    inode, beside = inode_of(node.path), inode_of(lab.peer.path)
    with other_process(lab, "stay") as owner:
        with pytest.raises(EnforceError, match=rf"net:{inode}: .*\(pid {owner.pid}\)"):
            remove_everywhere(backend, frozenset({inode}))
        assert [] == remove_everywhere(backend, frozenset({inode, beside}))
        assert is_active(lab)
    assert [inode] == remove_everywhere(backend, frozenset({inode, beside}))
    assert lab.stranger.connect(node.ipv4, PORT) == "open"


def test_an_orphan_can_be_taken_down(lab: Lab, node: Host, backend: Nftables) -> None:
    """`vllmwall down` needs no daemon when there is none."""
    with other_process(lab):
        pass
    assert backend.remove(node.path)
    assert "no table" == backend.ownership(node.path)
    assert lab.stranger.connect(node.ipv4, PORT) == "open"


def test_a_namespace_release_of_is_adopted_again(lab: Lab, node: Host) -> None:
    """Its table is an orphan then, the wall in it stays active, and the next apply owns it."""
    backend = Nftables()
    wanted = closed_at(node.path)
    backend.apply(node.path, wanted, None)
    backend.release([])
    assert is_active(lab)
    assert not backend.holds(node.path)
    backend.apply(node.path, wanted, wanted)
    assert backend.holds(node.path)


def _turns(host: Host) -> Callable[[], None]:
    """Make the table owned, plain and of another mode, again and again."""
    owning, watching = Nftables(), Nftables(WATCHED)
    closed = closed_at(host.path)

    def once() -> None:
        owning.apply(host.path, closed, closed)
        assert "owned" == owning.ownership(host.path)
        owning.apply(host.path, closed, None)
        owning.release([])  # or the other may not
        watching.apply(host.path, closed, None)
        assert f"watched: {WATCHED}" == watching.ownership(host.path)

    return once


@pytest.mark.serial
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nothing_slips_in_while_a_table_gets_an_owner(lab: Lab, node: Host, proto: str) -> None:
    """The boot script's table has none: it is replaced without a gap, and so is an owned one."""
    Nftables(WATCHED).apply(node.path, closed_at(node.path), None)
    turns = _turns(node)
    tried, opened = hammer(lab.stranger, proto, (node.ipv4, PORT), 3, turns)
    assert tried > 500
    assert 0 == opened
    assert "vllmwall_standin" not in node.run(["nft", "list", "tables"]).stdout


STEPS = 4


class _Dying(Nftables):
    """Fails before a step of the replacement, as a daemon does that is killed there."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step
        run, through = self._library.run, self._library.through

        def counted_run(path: str, script: str) -> str:
            self._count()
            return run(path, script)

        def counted_through(path, exchange):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if "_rebuild" in exchange.__qualname__ or "_end_" in exchange.__qualname__:
                self._count()
            return through(path, exchange)

        self._library.run = counted_run  # type: ignore[method-assign]
        self._library.through = counted_through  # type: ignore[method-assign]

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise EnforceError("killed here")


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("before", ["plain", "owned"])
def test_a_replacement_that_dies_leaves_ports_closed(
    lab: Lab, node: Host, backend: Nftables, step: int, before: str
) -> None:
    """At each of its steps; and the next one converges and cleans up."""
    closed = closed_at(node.path)
    (Nftables() if before == "owned" else Nftables(WATCHED)).apply(node.path, closed, None)
    dying = _Dying(step)
    with pytest.raises(EnforceError, match="killed here"):
        dying.apply(node.path, closed, None)
    dying.release([])
    assert lab.stranger.connect(node.ipv4, PORT) == "timeout"
    backend.apply(node.path, closed, backend.read_back(node.path))
    assert backend.read_back(node.path) == closed
    assert "table inet vllmwall\n" == node.run(["nft", "list", "tables"]).stdout
    assert "owned" == backend.ownership(node.path)
    assert is_active(lab)


def test_an_adopted_table_has_no_stand_in_left(lab: Lab, node: Host, backend: Nftables) -> None:
    """A daemon that was killed before its last step left one; the wall being right otherwise."""
    closed = closed_at(node.path)
    Nftables(WATCHED).apply(node.path, closed, None)
    dying = _Dying(STEPS - 1)
    with pytest.raises(EnforceError, match="killed here"):
        dying.apply(node.path, closed, None)
    dying.release([])
    assert "vllmwall_standin" in node.run(["nft", "list", "tables"]).stdout
    assert backend.read_back(node.path) == closed
    assert not backend.holds(node.path)
    backend.apply(node.path, closed, closed)
    assert "table inet vllmwall\n" == node.run(["nft", "list", "tables"]).stdout


def test_down_takes_a_stand_in_too(lab: Lab, node: Host, backend: Nftables) -> None:
    """What a killed replacement left goes with the wall."""
    closed = closed_at(node.path)
    Nftables(WATCHED).apply(node.path, closed, None)
    Libnftables().run(node.path, replacement.standing_in(_table(closed)))
    assert backend.remove(node.path)
    assert "" == node.run(["nft", "list", "ruleset"]).stdout


def _table(closed: Wall) -> Table:
    from vllmwall.enforce.nftables import ruleset

    return ruleset.table(closed)


def test_a_change_of_mode_makes_the_table_again(lab: Lab, node: Host, backend: Nftables) -> None:
    """The comment says the mode and is set at birth only: a new table, as owned as the old one."""
    closed = closed_at(node.path)
    audit = replace(closed, mode=Mode.AUDIT)
    backend.apply(node.path, audit, None)
    assert lab.stranger.connect(node.ipv4, PORT) == "open"
    backend.apply(node.path, closed, audit)
    assert backend.read_back(node.path) == closed
    assert "owned" == backend.ownership(node.path)
    assert is_active(lab)


class _WithoutReplacement(Nftables):
    """Refuses to replace a table, except when told to."""

    def put_up(self, path: str, wanted: Wall) -> None:
        super()._replace(path, wanted)

    def _replace(self, path: str, wall: Wall) -> Wall:
        raise AssertionError("the difference was refused")


@on_one_network
@given(first=walls(), second=walls())
def test_any_wall_fits_an_owned_table(shared_lab: Lab, first: Wall, second: Wall) -> None:
    """Made whole or by its difference, each wall comes back equal, though only parts of
    the table can be named."""
    path, namespace = shared_lab.node.path, wall(shared_lab.node, []).namespace
    one = replace(first, namespace=namespace, guards=frozenset())
    two = by_elements(replace(second, namespace=namespace, guards=frozenset()), one)
    backend = _WithoutReplacement()
    backend.put_up(path, one)
    assert backend.read_back(path) == one
    backend.apply(path, two, one)
    assert backend.read_back(path) == two
