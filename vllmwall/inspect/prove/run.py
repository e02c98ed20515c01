"""The proof: one network namespace after the other, all of its tries at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.nftables.libnftables import Libnftables, NotThereError
from vllmwall.enforce.nftables.names import TABLE
from vllmwall.inspect.prove import plan
from vllmwall.inspect.prove.errors import ProveError
from vllmwall.inspect.prove.harness import locked, staged, sweep
from vllmwall.inspect.prove.other_tables import surroundings
from vllmwall.inspect.prove.plan import Place, Source, Try, Untried
from vllmwall.inspect.prove.probes import Trial
from vllmwall.inspect.prove.verdicts import Memory, Seen, Verdict, Witness, judge, newly_counted
from vllmwall.linux.listeners import SocketDump
from vllmwall.linux.netns import OWN, run_in
from vllmwall.model import Address, Mode, Network, Proto

if TYPE_CHECKING:
    from vllmwall.api.shapes import StatusJson

PATIENCE = 1.0  # seconds; a SYN is sent three times in it

_NAMED = Path("/run/netns")


@dataclass(frozen=True)
class Question:
    """What to prove. ``networks`` are those of each audience, ``failsafe`` ports stay reachable."""

    status: StatusJson
    networks: Mapping[str, Collection[Network]]
    failsafe: Collection[tuple[Proto, int]]
    peers: tuple[Address, ...] = ()
    patience: float = PATIENCE


@dataclass(frozen=True)
class Finding:
    """What came of one network namespace. ``ruleset`` is the sha256 of our table as read back."""

    inode: int
    name: str
    ruleset: str
    sources: tuple[Source, ...] = ()
    surroundings: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    untried: tuple[Untried, ...] = ()
    problems: tuple[str, ...] = field(default=())


def prove(question: Question) -> list[Finding]:
    """Try every listener of every workload, in every namespace with a wall or a workload.

    Everything made is taken away again. Raises ProveError, EnforceError and OSError.
    """
    backend = Nftables(why_not_owned="only read here")
    names = {one["inode"]: one["name"] for one in question.status["namespaces"]}
    pids: dict[int, list[int]] = {inode: [] for inode in names}
    for workload in question.status["workloads"]:
        for one in workload["listeners"]:
            pids.setdefault(one["namespace"], []).extend(one["pids"])
    return [
        _finding(question, inode, names.get(inode, f"net:{inode}"), members, backend)
        for inode, members in pids.items()
    ]


def _finding(
    question: Question, inode: int, name: str, pids: Collection[int], backend: Nftables
) -> Finding:
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(_entered(inode, pids))
        except FileNotFoundError:
            return Finding(inode, name, "", problems=(f"{name}: the network namespace is gone",))
        stack.enter_context(locked(path))
        sweep(path)
        place = run_in(path, _place)
        targets, untried = plan.targets_of(question.status, inode, place)
        targets += plan.failsafe_targets(question.failsafe, targets, place)
        sources, problems = _sources(question, targets, place, path)
        tries = plan.tries_of(targets, sources, question.networks)
        verdicts = _tried(tries, place, path, question.patience, backend)
        return Finding(
            inode,
            name,
            _hash_of_ruleset(path),
            tuple(sources),
            tuple(run_in(path, surroundings)),
            tuple(verdicts),
            tuple(untried),
            tuple(f"{name}: {problem}" for problem in problems),
        )


def _tried(
    tries: list[Try], place: Place, path: str, patience: float, backend: Nftables
) -> list[Verdict]:
    if not tries:
        return []
    trial = Trial([*tries, *plan.controls_of(tries, place)])
    before = _memory(backend, path)
    sources = list(dict.fromkeys(one.source for one in tries))
    with staged(path, sources, {one.target.address for one in tries}) as inside:
        try:
            run_in(inside, lambda: trial.run(patience))
        finally:
            trial.stop()
    counted = newly_counted(before, _memory(backend, path))
    later = run_in(path, _place)
    gone = {one for one in tries if trial.seen.get(one) is not Seen.OPEN and _left(one, later)}
    seen = {one: trial.seen.get(one, Seen.SILENT) for one in trial.tries}
    witness = Witness(seen, counted, gone, _mode(backend, path))
    return [judge(one, witness) for one in tries]


def _left(one: Try, place: Place) -> bool:
    target = one.target
    return not place.is_listening(target.proto, target.bound, target.port)


def _sources(
    question: Question, targets: Collection[plan.Target], place: Place, path: str
) -> tuple[list[Source], list[str]]:
    """A stranger for each family that something listens in, and the peers asked for."""
    found, problems = [], []
    families = {one.address.version for one in targets}
    taken = [*(one for each in question.networks.values() for one in each), *run_in(path, _routed)]
    for version in sorted(families):
        address = plan.free_address(version, taken)
        if address is None:
            raise ProveError(
                f"every IPv{version} documentation range is in use on this node (a peer, an "
                "address or a route): no stranger's address is left to try from"
            )
        found.append(Source("stranger", address))
    for peer in question.peers:
        if peer in place.addresses:
            problems.append(f"{peer} is an address of the node itself, so not tried from")
        elif peer.version in families:
            found.append(Source("peer", peer))
    return found, problems


def _place() -> Place:
    with contextlib.closing(SocketDump()) as dump, IPRoute() as routes:
        found = [
            ip_address(str(text))
            for one in routes.get_addr()
            if (text := one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"))
        ]
        outside = (one for one in found if not (one.is_loopback or one.is_link_local))
        return Place(tuple(outside), tuple(dump.listeners()))


def _routed() -> list[Network]:
    """Where this namespace sends packets to, by any of its tables."""
    with IPRoute() as routes:
        return [
            ip_network(f"{to}/{route['dst_len']}")
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in routes.get_routes(family=family)
            if (to := route.get_attr("RTA_DST"))
        ]


def _memory(backend: Nftables, path: str) -> Memory:
    refusals = backend.counters(path).refusals
    return {(one.source, one.proto, one.port): one.packets for one in refusals}


def _mode(backend: Nftables, path: str) -> Mode | None:
    wall = backend.read_back(path)
    return wall.mode if wall is not None else None


def _hash_of_ruleset(path: str) -> str:
    """Of what `paper.LISTED` prints; empty: no table stands.

    Versions of nft name the table's owner behind the brace in words of their own.
    """
    try:
        text = Libnftables().show(path, f"list table {TABLE}")
    except NotThereError:
        return ""
    except EnforceError as error:
        raise ProveError(f"our table cannot be read back: {error}") from error
    first, rest = text.split("\n", 1)
    plain = f"{first.partition(' #')[0]}\n{rest}"
    return hashlib.sha256(plain.encode()).hexdigest()


@contextlib.contextmanager
def _entered(inode: int, pids: Collection[int]) -> Iterator[str]:
    """A path to a namespace that stays good: by ourselves, its processes or its name."""
    for path in _ways_in(pids):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_ino == inode:
                yield f"/proc/{os.getpid()}/fd/{descriptor}"
                return
        finally:
            os.close(descriptor)
    raise FileNotFoundError(inode)


def _ways_in(pids: Collection[int]) -> Iterator[str]:
    yield OWN
    yield "/proc/1/ns/net"
    yield from (f"/proc/{pid}/ns/net" for pid in dict.fromkeys(pids))
    with contextlib.suppress(OSError):
        yield from map(str, _NAMED.iterdir())
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield f"/proc/{entry.name}/ns/net"
