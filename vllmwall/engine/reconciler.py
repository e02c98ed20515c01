"""One pass: observe, recognize, decide, enforce, read back.

`Reconciler` holds what a pass needs and what the last one found; the daemon calls it when
something happens, the command line calls it once where no daemon runs. It owns no clock and no
loop. What cannot be read changes nothing: the active wall stays.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vllmwall.config.settings import Settings
from vllmwall.decide.adopted import with_adopted
from vllmwall.decide.guards import Guarding, candidates, guarding
from vllmwall.decide.lockdown import ordered, restrained
from vllmwall.decide.opened import with_opened
from vllmwall.decide.retained import with_retained
from vllmwall.decide.scope import within
from vllmwall.decide.walls import Decision, bare_wall, decide
from vllmwall.enforce.apply import Walls
from vllmwall.enforce.backend import Backend
from vllmwall.enforce.nftables.check import DEVICE
from vllmwall.enforce.nftables.notifications import Watch
from vllmwall.engine.adoption import Adoption
from vllmwall.engine.api_ports import ApiPorts
from vllmwall.engine.armed_units import Armed
from vllmwall.engine.facts import BackendFacts, ConfigFacts, Reservation
from vllmwall.engine.first_walls import adopt
from vllmwall.engine.joiners import blocked_joiners
from vllmwall.engine.reservations import reservations
from vllmwall.engine.status_facts import NamespaceFacts, StatusFacts
from vllmwall.engine.status_parts import failures, unreadable, web_servers
from vllmwall.engine.wall_facts import WallFacts, is_home, remove_everywhere
from vllmwall.linux.cgroups import SLICE, is_within, job_of, remove_ended_jobs
from vllmwall.model import Network, Node, Policy, Process, Recognition, Wall
from vllmwall.networks.banlist import BanList
from vllmwall.networks.peerlist import PeerList
from vllmwall.observe import Observer
from vllmwall.observe.proc import read_cgroup
from vllmwall.observe.visibility import why_blind
from vllmwall.recognize import is_claimed, recognize
from vllmwall.recognize.memo import Memo, Pauses

_PASS_SECONDS = 0.25  # of a full pass, for the walls of others
_TURN_SECONDS = 0.02  # between two looks at what else there is to do


@dataclass(frozen=True)
class Asked:
    """The answer to a request to guard a cgroup. ``why_not`` is empty when the guard is active."""

    cgroup: str
    namespace: int
    why_not: str = ""


@dataclass
class Reconciler:
    """Keeps the walls of this node equal to what its workloads need.

    ``only`` restricts it to these network namespaces (inodes); empty: the whole node.
    ``armed_file`` remembers which units were guarded, ``adoption`` older connections,
    ``apis`` the ports that the operator opened. ``bans`` are in every wall.
    """

    config: Settings
    peers: PeerList
    backend: Backend
    only: frozenset[int] = frozenset()
    down: bool = False
    armed_file: Path | None = None
    bans: BanList = field(default_factory=BanList)
    apis: ApiPorts = field(default_factory=ApiPorts)
    adoption: Adoption = field(default_factory=Adoption)

    def __post_init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        """Called every few milliseconds of thought, to close what opens meanwhile. It must begin no
        pass."""
        self.observer = Observer(self.only)
        self.home = self.only or frozenset({self.observer.namespaces.own})
        self.armed = Armed(self.home, self.armed_file)
        self.configure(self.config)
        self.recognition = Recognition((), ())
        self.members: frozenset[int] = frozenset()
        self.begun: set[int] = set()
        """Processes that begin a workload by themselves, and that no thought was given yet."""
        self.guarding = Guarding()
        self.blind = ""
        self.waiting: dict[int, None] = {}
        self.decision = Decision({}, ())
        self.walls = Walls(self.backend, self.observer.namespaces.path)
        self._wall_facts = WallFacts(self.backend, self.walls, self.observer.namespaces)

    def configure(self, config: Settings) -> None:
        """Use another configuration from the next pass on."""
        self.config = config
        self.policy = config.policy
        self.apis.configure(config.apis)
        self._memo = Memo(Pauses(self._pause))
        self.adoption.is_on = config.adopt
        self.armed.configure(config.guarded_units, config.definitions)

    def full_pass(
        self,
        catch_up: Callable[[], None] = lambda: None,
        between: Callable[[], None] = lambda: None,
        at_home: Callable[[], None] = lambda: None,
    ) -> None:
        """Read everything, put every wall right, and read each of them back.

        ``catch_up`` is called once the node is read, to follow the events up to then: of a
        listener that the kernel showed now, only its event has the backlog that it asked for.
        ``between`` is called every few milliseconds, ``at_home`` when our own walls, which come
        first, are right. Those for which there is not enough time stay in ``waiting``, for
        `advance`. Raises OSError when the node cannot be read; no wall was changed then.
        """
        self.observer.observe(between)
        self.walls.release(self.observer.namespaces.inodes)
        self.armed.forget(self.observer.namespaces.inodes)
        remove_ended_jobs()
        catch_up()
        self._think(is_whole=True)
        if self.blind and not self.walls.spaces:  # the active walls are all that is known
            self.look_for_walls()
        waited = self.waiting
        self.waiting = {}
        if not self.down:
            wanted = self._wanted()
            self.waiting = dict.fromkeys(sorted(wanted, key=lambda one: self._order(one, waited)))
            for inode in self.home.intersection(wanted):
                self._settle(inode, wanted)
            at_home()
            self.advance(_PASS_SECONDS, between)

    def advance(
        self, seconds: float = _TURN_SECONDS, between: Callable[[], None] = lambda: None
    ) -> bool:
        """Put walls right that wait for it, in about so much time; whether all are."""
        ends = time.monotonic() + seconds
        wanted = self._wanted() if self.waiting and not self.down else {}
        while self.waiting and time.monotonic() < ends:
            self._settle(next(iter(self.waiting)), wanted)
            between()
        return not self.waiting

    def note_answers(self) -> bool:
        """Apply what was read meanwhile in files that processes name; whether there is news."""
        is_news = self.observer.note_answers()
        if is_news:
            self.quick_pass()
        return is_news

    def quick_pass(self) -> None:
        """Apply what the observer learned from events, to the walls as last read back."""
        self._think()
        self.renew()

    def renew(self) -> None:
        """Apply changes of peers and bans, for the node as last read.

        A namespace that has no wall yet waits for its turn, if others do too.
        """
        if self.down:
            return
        for inode, wall in self._wanted().items():
            is_new = inode not in self.walls.spaces and inode not in self.home
            if inode in self.waiting or (is_new and self.waiting):
                self.waiting[inode] = None
            else:
                self.walls.put(inode, wall)

    def _settle(self, inode: int, wanted: Mapping[int, Wall]) -> None:
        self.waiting.pop(inode, None)
        if inode in wanted:
            self.walls.settle(inode, wanted[inode])

    def _order(self, inode: int, waited: Container[int]) -> tuple[bool, bool, bool]:
        """Those that have no wall yet, then those that waited longest for another look."""
        return inode in self.walls.spaces, inode not in waited, inode not in self.home

    def repair(self, inode: int) -> None:
        """Repair one wall that another program modified."""
        wall = None if self.down else self._wanted().get(inode)
        if wall is not None:
            self.walls.settle(inode, wall)

    def follow_nat(self, inode: int) -> None:
        """Judge packets there by their first port, where NAT begins to change it."""
        self.observer.namespaces.forget_packet_path(inode)
        self.repair(inode)

    def watches(self) -> Mapping[int, Watch]:
        """By namespace (inode): what becomes readable when others change things there."""
        return self.backend.watches()

    def guard(self, pid: int) -> Asked:
        """Guard the cgroup of a process that is about to start a job there."""
        process, path = self.observer.note_exec(pid), read_cgroup(pid)
        job, namespace = job_of(path), process.namespace if process else 0
        if self.down or self.why_no_guards:
            return Asked(path, namespace, self.why_no_guards or "the walls are down on request")
        if job is None or process is None:
            return Asked(path, namespace, f"{path} is shared with other programs of its user")
        self.observer.namespaces.adopt(process)
        self.armed.expect(job, {namespace})
        self.quick_pass()
        if namespace in self.waiting:
            self._settle(namespace, self._wanted())
        numbers = self.observer.cgroup_numbers({job, SLICE})
        ids = {number for one, number in numbers.items() if is_within(job, one)}
        active = self.walls.actual(namespace)
        if active is None or ids.isdisjoint({guard.id for guard in active.guards}):
            return Asked(
                path,
                namespace,
                f"no guard is active on {job}. Run `vllmwall status` for the reason.",
            )
        return Asked(path, namespace)

    def look_for_walls(self) -> None:
        """Find the walls that an earlier daemon left where no workload runs any more.

        They are emptied by the next pass. Namespaces without a wall are released again.
        """
        for inode in set(self.observer.namespaces.inodes) - self.walls.spaces.keys():
            if self.walls.read_back(inode).actual is None:
                del self.walls.spaces[inode]

    @property
    def why_no_guards(self) -> str:
        """Why this node has no guards, in words; empty: it has them."""
        if not self.config.guards:
            return "guards are switched off in the configuration"
        return self.backend.why_no_guards

    def is_claimed(self, process: Process) -> bool:
        """Whether this process begins a workload, by a stack or a definition. Cheap."""
        return is_claimed(process, self.config.definitions, self.config.rows)

    def take_down(self) -> list[int]:
        """Remove every wall of ours from every namespace; the inodes that had one."""
        self.down = True
        self.waiting.clear()
        self.walls.spaces.clear()
        self.walls.closed.clear()
        return remove_everywhere(self.backend, self.only)

    def plan(
        self,
        config: Settings,
        peers: tuple[Network, ...],
        catch_up: Callable[[], None] = lambda: None,
    ) -> tuple[NamespaceFacts, ...]:
        """The active walls, and those that this configuration would make; changes nothing.

        For the node as last read, and the events since. ``catch_up`` is called between
        namespaces, to follow the events that came meanwhile.
        """
        node = self.observer.node()
        policy = config.policy
        recognized = recognize(node, config.definitions, config.rows, Memo(Pauses(catch_up)))
        opened = with_opened(recognized, self.apis.planned(config.apis))
        adopted = self.adoption.in_force(is_on=config.adopt)
        recognition = self._in_scope(with_adopted(opened, adopted, policy), node, policy)
        guards = self._guarding(recognition, node, policy).guards
        wanted = self._walls(
            decide(recognition, policy, peers, guards, self._silent(guards)), policy, peers
        )
        found = []
        for inode, wall in wanted.items():
            found.append(self._wall_facts.read(inode, wall))
            catch_up()
        return tuple(found)

    def status(
        self, now: float, problems: Iterable[str] = (), reserved: Iterable[Reservation] = ()
    ) -> StatusFacts:
        """The state of everything, with the walls read back from the kernel now. ``problems`` and
        ``reserved`` are the daemon's own."""
        wanted = self._wanted()
        if self.down:
            spaces = tuple(map(self._wall_facts.down, wanted))
        else:
            ours = {inode: wall for inode, wall in wanted.items() if not self.is_taken(inode)}
            spaces = tuple(self._wall_facts.whole(inode, wall) for inode, wall in ours.items())
        spaces += tuple(unreadable(self))
        return StatusFacts(
            host=socket.gethostname(),
            now=now,
            recognition=self.recognition,
            policy=self.policy,
            namespaces=spaces,
            peers=self.peers.networks(),
            backend=BackendFacts(self.backend.name),
            config=ConfigFacts(files=tuple(map(str, self.config.files))),
            sources=self.peers.sources(),
            skipped=self.decision.skipped,
            down=self.down,
            guarding=self.guarding,
            blind=self.blind,
            problems=(*problems, *failures(self)),
            reservations=(*reserved, *reservations(self)),
            bans=len(self.bans.bans()),
            programs=dict(web_servers(self)),
            adopted=self.adoption.in_force(),
            joiners=tuple(blocked_joiners(self)),
        )

    def is_taken(self, inode: int) -> bool:
        """Whether somebody else holds a table of our name in a namespace that is not the host's: it
        is not guarded, and says nothing about the rest of the node."""
        space = self.walls.spaces.get(inode)
        return space is not None and space.foreign and not is_home(inode, self.only)

    def _pause(self) -> None:
        self.meanwhile()

    def _think(self, *, is_whole: bool = False) -> None:
        """The pure half, about what is known now. A namespace that could not be read keeps the wall
        it has, and what is closed meanwhile stays closed until the next time."""
        node = self.observer.node()
        self.walls.closed.clear()
        self.begun.clear()
        own = self.observer.namespaces.own
        self.blind = why_blind(one for one in node.listeners if one.namespace == own)
        recognized = recognize(node, self.config.definitions, self.config.rows, self._memo)
        found = adopt(self, with_opened(recognized, self.apis.opened()), node, is_whole=is_whole)
        self.recognition = self._in_scope(found, node, self.policy)
        self.observer.keep(self.recognition)
        before = self.members
        self.members = frozenset(pid for one in self.recognition.workloads for pid in one.pids)
        if joined := self.members - before:
            node = self.observer.moved(joined)
        self.guarding = self._guarding(self.recognition, node, self.policy)
        self.armed.learn(self.guarding.guards)
        guards = self.guarding.guards
        self.decision = decide(
            self.recognition,
            self.policy,
            self.peers.networks(),
            guards,
            self._silent(guards),
            pause=self._memo.pause,
        )

    def _silent(self, inodes: Iterable[int]) -> frozenset[int]:
        elsewhere = self.observer.namespaces.delivers_elsewhere
        return frozenset(inode for inode in inodes if elsewhere(inode))

    def _guarding(self, found: Recognition, node: Node, policy: Policy) -> Guarding:
        if why := self.why_no_guards:
            return Guarding(reasons={one.id: why for one in found.workloads})
        armed = self.armed.expected(
            {job for one in node.processes.values() if (job := job_of(one.cgroup)) is not None}
        )
        paths = candidates(found, node.processes) | armed.keys()
        numbers = self.observer.cgroup_numbers(paths)
        self.armed.drop_ended(numbers)
        return guarding(found, node.processes, numbers, armed, policy, pause=self._memo.pause)

    def _in_scope(self, found: Recognition, node: Node, policy: Policy) -> Recognition:
        """The workloads in the namespaces that we guard, with the APIs that lockdown leaves."""
        return within(restrained(found, node.processes, policy), node, self.only)

    def _wanted(self) -> Mapping[int, Wall]:
        return self._walls(self.decision, self.policy, self.peers.networks())

    def _walls(
        self, decision: Decision, policy: Policy, peers: tuple[Network, ...]
    ) -> Mapping[int, Wall]:
        """The wall of every namespace that needs one and could be read: those with workloads,
        our own or those that we are to guard, and any that has a wall of ours from before."""
        namespaces = self.observer.namespaces
        walls = dict(decision.walls)
        for inode in (namespaces.own, *self.home, *self.walls.spaces):
            walls.setdefault(inode, bare_wall(inode, policy, peers))
        there = set(namespaces.inodes) - namespaces.errors.keys()
        if self.blind:
            walls = {
                inode: with_retained(wall, self.walls.actual(inode), policy)
                for inode, wall in walls.items()
            }
        banned = self.bans.networks()
        return {
            inode: ordered(self._along(self.walls.with_closed(wall)), policy, banned, self.home)
            for inode, wall in walls.items()
            if inode in there
        }

    def _along(self, wall: Wall) -> Wall:
        """The wall with the rules that the way of its packets needs."""
        path = self.observer.namespaces.packet_path(wall.namespace)
        vrfs = frozenset(filter(DEVICE.fullmatch, path.vrfs))
        return replace(wall, redirected=path.nat, vrfs=vrfs)
