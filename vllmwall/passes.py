"""One pass: observe, recognize, decide, enforce, read back.

`WallKeeper` holds what a pass needs and what the last one found; the daemon calls it when
something happens, the command line calls it once where no daemon runs. It owns no clock and no
loop. What cannot be read changes nothing: the wall that stands stays.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vllmwall.arming import Armed
from vllmwall.cgroups import job_of
from vllmwall.config import Config
from vllmwall.decide import Decision, bare_wall, decide
from vllmwall.enforce.backend import AlteredWall, Backend, EnforceError
from vllmwall.guards import Guarding, candidates, guarding
from vllmwall.model import (
    Guard,
    Network,
    Node,
    Policy,
    Process,
    Recognition,
    Wall,
    WallEntry,
)
from vllmwall.observe import Observer
from vllmwall.observe.namespaces import every_namespace
from vllmwall.peers import PeerList
from vllmwall.recognize import is_claimed, recognize
from vllmwall.report.facts import (
    BackendFacts,
    ConfigFacts,
    NamespaceFacts,
    StatusFacts,
)

_TRIES = 3


@dataclass
class _Space:
    """What we know of one network namespace's wall: as read back, why it could not be read,
    and why the last change to it was not taken."""

    standing: Wall | None = None
    error: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Change:
    """One transaction that a pass made, for the log."""

    namespace: int
    before: Wall | None
    after: Wall


@dataclass
class WallKeeper:
    """Keeps the walls of this node equal to what its workloads need.

    ``only`` restricts it to these network namespaces (inodes); empty: the whole node.
    ``armed_file`` remembers over restarts which units were guarded.
    """

    config: Config
    peers: PeerList
    backend: Backend
    only: frozenset[int] = frozenset()
    down: bool = False
    armed_file: Path | None = None
    on_change: Callable[[Change], None] = field(default=lambda change: None)
    on_failure: Callable[[int, str], None] = field(default=lambda namespace, why: None)

    def __post_init__(self) -> None:
        self.observer = Observer(self.only)
        home = self.only or {self.observer.namespaces.own}
        self.armed = Armed(home, self.armed_file)
        self.configure(self.config)
        self.recognition = Recognition((), ())
        self.members: frozenset[int] = frozenset()
        self.guarding = Guarding()
        self.decision = Decision({}, ())
        self._spaces: dict[int, _Space] = {}

    def configure(self, config: Config) -> None:
        """Take another configuration; it counts from the next pass on."""
        self.config = config
        self.policy = config.policy()
        self._lessons = config.lessons()
        self.armed.configure(config.guards.units, self._lessons)

    def full_pass(self) -> None:
        """Read everything, put every wall right, and read each of them back.

        Raises OSError when the node cannot be read; no wall was changed then.
        """
        node = self.observer.observe()
        self._settle(node)

    def quick_pass(self) -> None:
        """Put right what events told the observer, against the walls as last read back."""
        self._think(self.observer.node())
        for inode, wall in self._wanted().items():
            space = self._spaces.setdefault(inode, _Space())
            if space.error is None and space.standing != wall:
                self._enforce(inode, wall, space)

    @property
    def why_no_guards(self) -> str:
        """Why no guard stands on this node, in words; empty: they do."""
        if not self.config.guards.enabled:
            return "guards are switched off in the configuration"
        return self.backend.why_no_guards

    def is_claimed(self, process: Process) -> bool:
        """Whether a stack or a lesson says that this process begins a workload. Cheap."""
        return is_claimed(process, self._lessons)

    def standing(self, inode: int) -> Wall | None:
        """The wall of a namespace as last read back or changed; None: none, or not to be told."""
        space = self._spaces.get(inode)
        return None if space is None or space.error is not None or self.down else space.standing

    def close(
        self, inode: int, entries: frozenset[WallEntry], guards: frozenset[Guard] = frozenset()
    ) -> None:
        """Close ports at once, before anything is read: a pass must come after it.

        Raises OSError, KeyError and EnforceError; the wall is then as it was.
        """
        standing = self.standing(inode)
        if standing is not None and not (entries <= standing.entries and guards <= standing.guards):
            path = self.observer.namespaces.path(inode)
            closed = self.backend.close(path, entries, guards)
            self._spaces[inode].standing = replace(
                standing, entries=standing.entries | entries, guards=standing.guards | closed
            )

    def take_down(self) -> list[int]:
        """Remove every wall of ours from every namespace; the inodes where one stood."""
        self.down = True
        self._spaces.clear()
        return remove_everywhere(self.backend, self.only)

    def plan(self, config: Config, peers: tuple[Network, ...]) -> tuple[NamespaceFacts, ...]:
        """What stands, and what would stand with this configuration; changes nothing."""
        node = self.observer.observe()
        recognition = self._in_scope(recognize(node, config.lessons()), node)
        policy = config.policy()
        guards = self._guarding(recognition, node, policy).guards
        wanted = self._walls(decide(recognition, policy, peers, guards), policy, peers)
        return tuple(self._read_facts(inode, wall) for inode, wall in wanted.items())

    def status(self, now: float, problems: Iterable[str] = ()) -> StatusFacts:
        """What stands, read back from the kernel now."""
        wanted = {} if self.down else self._wanted()
        spaces = tuple(self._namespace_facts(inode, wall) for inode, wall in wanted.items())
        spaces += tuple(self._unreadable())
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
            problems=(*problems, *self._failures()),
        )

    def _unreadable(self) -> Iterator[NamespaceFacts]:
        """Namespaces in which we put up a wall and cannot see the listeners now."""
        namespaces = self.observer.namespaces
        for inode, error in namespaces.errors.items():
            if inode in self._spaces:
                yield NamespaceFacts(inode, namespaces.name(inode), error=error)

    def _failures(self) -> list[str]:
        name = self.observer.namespaces.name
        return [
            f"{name(inode)}: the last change was not taken: {space.failure}"
            for inode, space in self._spaces.items()
            if space.failure is not None
        ]

    def _settle(self, node: Node) -> None:
        self._think(node)
        if self.down:
            return
        for inode, wall in self._wanted().items():
            self._read_back(inode)
            space = self._spaces[inode]
            if space.error is None and space.standing != wall:
                self._enforce(inode, wall, space)

    def _think(self, node: Node) -> None:
        """The pure half. A namespace that could not be read keeps the wall it has."""
        self.recognition = self._in_scope(recognize(node, self._lessons), node)
        self.observer.keep(self.recognition)
        self.members = frozenset(pid for one in self.recognition.workloads for pid in one.pids)
        self.guarding = self._guarding(self.recognition, node, self.policy)
        self.armed.learn(self.guarding.guards)
        self.decision = decide(
            self.recognition, self.policy, self.peers.networks(), self.guarding.guards
        )

    def _guarding(self, found: Recognition, node: Node, policy: Policy) -> Guarding:
        if why := self.why_no_guards:
            return Guarding(reasons={one.id: why for one in found.workloads})
        armed = self.armed.expected(
            {job for one in node.processes.values() if (job := job_of(one.cgroup)) is not None}
        )
        paths = candidates(found, node.processes) | armed.keys()
        numbers = self.observer.cgroup_numbers(paths)
        return guarding(found, node.processes, numbers, armed, policy)

    def _in_scope(self, found: Recognition, node: Node) -> Recognition:
        """Without the workloads that live outside the namespaces we were told to guard."""
        if not self.only:
            return found
        workloads = (
            one
            for one in found.workloads
            if any(
                pid in node.processes and node.processes[pid].namespace in self.only
                for pid in one.pids
            )
        )
        return replace(found, workloads=tuple(workloads))

    def _wanted(self) -> Mapping[int, Wall]:
        return self._walls(self.decision, self.policy, self.peers.networks())

    def _walls(
        self, decision: Decision, policy: Policy, peers: tuple[Network, ...]
    ) -> Mapping[int, Wall]:
        """The wall of every namespace that needs one and could be read: those with workloads,
        our own, and any that has a wall of ours from before."""
        namespaces = self.observer.namespaces
        walls = dict(decision.walls)
        for inode in (namespaces.own, *self._spaces):
            walls.setdefault(inode, bare_wall(inode, policy, peers))
        there = set(namespaces.inodes) - namespaces.errors.keys()
        return {inode: wall for inode, wall in walls.items() if inode in there}

    def _read_back(self, inode: int) -> None:
        space = self._spaces.setdefault(inode, _Space())
        try:
            space.standing = self.backend.read_back(self.observer.namespaces.path(inode))
            space.error = None
        except (OSError, KeyError, EnforceError) as error:
            space.error = str(error)

    def _enforce(self, inode: int, wall: Wall, space: _Space) -> None:
        before = space.standing
        for attempt in range(_TRIES):
            try:
                path = self.observer.namespaces.path(inode)
                # The last try rebuilds the whole table: a delta is only as good as our memory.
                last = attempt == _TRIES - 1
                made = self.backend.apply(path, wall, None if last else space.standing)
            except (OSError, KeyError, EnforceError) as error:
                space.error = str(error)
                continue
            self._read_back(inode)
            if space.standing == made:
                space.failure = None
                self.on_change(Change(inode, before, made))
                return
            space.error = space.error or "the kernel shows another wall than the one we wrote"
        space.failure = space.error
        self.on_failure(inode, str(space.error))

    def _read_facts(self, inode: int, wall: Wall) -> NamespaceFacts:
        self._read_back(inode)
        space = self._spaces[inode]
        name = self.observer.namespaces.name(inode)
        altered = space.standing if isinstance(space.standing, AlteredWall) else None
        differences = altered.differences if altered else ()
        return NamespaceFacts(
            inode, name, wall, space.standing, space.error, differences=differences
        )

    def _namespace_facts(self, inode: int, wall: Wall) -> NamespaceFacts:
        facts = self._read_facts(inode, wall)
        if facts.error is not None:
            return facts
        try:
            refused = self.backend.counters(self.observer.namespaces.path(inode))
        except (OSError, KeyError, EnforceError):
            return facts
        return replace(facts, refused_packets=refused.packets, refused_bytes=refused.bytes)


def remove_everywhere(backend: Backend, only: frozenset[int] = frozenset()) -> list[int]:
    """Take away our table wherever it stands (in ``only``, if given); where it stood (inodes).

    A namespace that ends meanwhile is passed over; raises EnforceError when a wall stays.
    """
    removed, errors = [], []
    for inode, path in every_namespace().items():
        if only and inode not in only:
            continue
        try:
            if backend.remove(path):
                removed.append(inode)
        except OSError:
            continue
        except EnforceError as error:
            errors.append(f"net:{inode}: {error}")
    if errors:
        raise EnforceError("\n".join(errors))
    return removed
