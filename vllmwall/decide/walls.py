"""The walls of every network namespace, from workloads, policy and peers.

Pure: no clock, file, socket or log, and it never raises. Promises (DESIGN §3, invariants 1, 8
and 9; checked by property tests):

- A listener that is not `api` is public only if the policy names its role.
- A failsafe port is in no wall.
- A listener on loopback is for this host, whatever its role. Packets of other hosts reach it where
  ``route_localnet`` is set, as kube-proxy does, or by NAT.
- A rule never affects another user's socket that belongs to no workload.
- Every TCP or UDP listener of a workload has an entry, or is `Skipped` with the reason.
- The order of the input does not matter.

A wildcard listener and one on a single address of the same port both get an entry: the kernel
hands a packet to the listener on its exact address before any wildcard one (`compute_score` in
net/ipv4/inet_hashtables.c and udp.c), and the wall looks the exact address up first too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from vllmwall.cidr import merged
from vllmwall.decide.adopted import KIND as ADOPTED
from vllmwall.decide.adopted import groups_of, networks_of
from vllmwall.model import (
    NODE,
    PEERS,
    PUBLIC,
    Address,
    Guard,
    LabelledListener,
    Listener,
    Mode,
    Network,
    Policy,
    Proto,
    Recognition,
    Role,
    Wall,
    WallEntry,
    Workload,
)

UNIX = "unix socket: no packet reaches it"
FAILSAFE = "failsafe port: never in a wall"
NOWHERE = "the kernel reports no address or port for it"
SHARED = "shared with another user's socket outside any workload, which a rule would affect too"

Guards = Mapping[int, frozenset[Guard]]
"""The guards of each network namespace, by its inode."""

NO_GUARDS: Guards = MappingProxyType({})
_LONGEST_NOTE = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._:/-]")


@dataclass(frozen=True)
class Skipped:
    """A listener of a workload that gets no rule, and why (failsafe, shared)."""

    listener: Listener
    reason: str


@dataclass(frozen=True)
class Decision:
    """What every namespace's wall must be, by its inode, and the listeners without a rule.

    A namespace in which no listener needs a rule is not in ``walls``.
    """

    walls: Mapping[int, Wall]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Key:
    """The fields by which a packet is matched. ``address`` None: any address of the family."""

    namespace: int
    family: int
    proto: Proto
    port: int
    address: Address | None


@dataclass(frozen=True)
class _Claim:
    """The entry that one listener of a workload needs under ``key``."""

    key: _Key
    listener: Listener
    audience: tuple[str, ...]
    note: str
    limited: bool = False


def decide(
    recognition: Recognition,
    policy: Policy,
    peers: tuple[Network, ...],
    guards: Guards = NO_GUARDS,
    silent: Collection[int] = (),
    *,
    pause: Callable[[], None] = lambda: None,
) -> Decision:
    """The walls that admit every listener's audience and no other source.

    In the ``silent`` namespaces no wall sends resets for ports without a listener. ``pause`` is
    called every few steps.
    """
    skipped: set[Skipped] = set()
    claims: dict[_Key, list[_Claim]] = {}
    for workload in recognition.workloads:
        for labelled in workload.listeners:
            pause()
            reason = _why_no_rule(labelled.listener, policy)
            if reason is not None:
                skipped.add(Skipped(labelled.listener, reason))
                continue
            for claim in _claims(workload, labelled, policy):
                claims.setdefault(claim.key, []).append(claim)
    others = _others(recognition.unclaimed)
    for key in [key for key in claims if _hits_another_user(key, claims[key], others)]:
        skipped.update(Skipped(claim.listener, SHARED) for claim in claims.pop(key))
    networks = {**_networks_of(policy, peers), **networks_of(recognition.workloads)}
    entries = []
    for those in claims.values():
        pause()
        entries.append(_strictest(those, networks))
    walls = {
        namespace: replace(wall, answering=_answers(wall) and namespace not in silent)
        for namespace, wall in _walls(entries, guards, networks, policy).items()
    }
    return Decision(walls, tuple(sorted(skipped, key=repr)))


def bare_wall(namespace: int, policy: Policy, peers: tuple[Network, ...]) -> Wall:
    """The wall of a namespace without a workload."""
    return _wall(namespace, frozenset(), frozenset(), _networks_of(policy, peers), policy)


def audience_at(
    listener: Listener, role: Role, policy: Policy, workload: Workload | None = None
) -> tuple[str, ...]:
    """The audience that the policy gives a listener, for people: on loopback it is this host.
    ``workload``: with the hosts that it adopted."""
    if listener.is_loopback:
        return (NODE,)
    groups = groups_of(workload, role, policy) if workload else ()
    return (*policy.audience_of(role), *([ADOPTED] if groups else ()))


def _why_no_rule(listener: Listener, policy: Policy) -> str | None:
    if listener.proto is Proto.UNIX:
        return UNIX
    if listener.address is None or not 1 <= listener.port <= 65535:
        return NOWHERE
    if (listener.proto, listener.port) in policy.failsafe:
        return FAILSAFE
    return None


def _claims(workload: Workload, labelled: LabelledListener, policy: Policy) -> Iterator[_Claim]:
    role = labelled.label.role
    listener = labelled.listener
    audience = (NODE,) if listener.is_loopback else _audience(role, policy)
    if not listener.is_loopback:
        audience = tuple(sorted({*audience, *groups_of(workload, role, policy)}))
    note = _note(role, workload.name)
    can_be_limited = role is Role.API and audience == (PUBLIC,) and policy.limits is not None
    for key in _keys(listener):
        limited = can_be_limited and key.proto is Proto.TCP
        yield _Claim(key, listener, audience, note, limited)


def _keys(listener: Listener) -> Iterator[_Key]:
    for to in listener.bound_to:
        yield _Key(listener.namespace, to.family, listener.proto, listener.port, to.address)


def _audience(role: Role, policy: Policy) -> tuple[str, ...]:
    """The known names, or ``public`` alone. If none is left: this host only."""
    names = set(policy.audience_of(role))
    if role is not Role.API and role not in policy.audiences and PUBLIC in names:
        names = (names - {PUBLIC}) or {PEERS}  # a default opens nothing
    if PUBLIC in names:
        return (PUBLIC,)
    return tuple(sorted(names & {PEERS, NODE, *policy.groups})) or (NODE,)


def _others(unclaimed: Iterable[Listener]) -> dict[tuple[int, int, Proto, int], list[_Other]]:
    """Reachable sockets that belong to no workload, by all fields of a key but the address."""
    found: dict[tuple[int, int, Proto, int], list[_Other]] = {}
    for listener in unclaimed:
        for key in _keys(listener):
            found.setdefault(_place(key), []).append(_Other(key.address, listener.uid))
    return found


@dataclass(frozen=True)
class _Other:
    """A socket of no workload."""

    address: Address | None
    uid: int


def _place(key: _Key) -> tuple[int, int, Proto, int]:
    return key.namespace, key.family, key.proto, key.port


def _hits_another_user(
    key: _Key,
    claims: list[_Claim],
    others: Mapping[tuple[int, int, Proto, int], list[_Other]],
) -> bool:
    """Whether a rule under ``key`` would drop packets of another user's ordinary socket.

    A wildcard rule hits every address of the port; an exact one only its own, where a wildcard
    socket beside it gets nothing. Seen on kernel 6.18: a TCP port cannot be listened on by two
    users (EADDRINUSE, with SO_REUSEADDR and SO_REUSEPORT too, and for root) unless each socket
    is bound to an interface of its own (SO_BINDTODEVICE); UDP lets two users share it when
    both set SO_REUSEADDR. So a listener that gets no rule here has agreed to share.
    """
    uids = {claim.listener.uid for claim in claims}
    return any(
        other.uid not in uids and _is_hit(other.address, key.address)
        for other in others.get(_place(key), ())
    )


def _is_hit(address: Address | None, by: Address | None) -> bool:
    """Whether a rule for an address drops packets to another one. Over lo nothing is dropped, so
    a wildcard rule costs a socket on loopback nothing."""
    return by == address or (by is None and not (address is not None and address.is_loopback))


def _networks_of(policy: Policy, peers: tuple[Network, ...]) -> Mapping[str, tuple[Network, ...]]:
    named = {**policy.groups, PEERS: peers}
    return {name: _merged(nets) for name, nets in named.items() if name not in (PUBLIC, NODE)}


# Merging a hundred networks takes longer than a whole pass should; they seldom change.
@lru_cache(maxsize=64)
def _merged(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    return merged(networks)


def _strictest(claims: list[_Claim], networks: Mapping[str, tuple[Network, ...]]) -> _Claim:
    """The claim with the narrowest audience, if several listeners share one key.

    (SO_REUSEPORT: the kernel spreads connections over the sockets, so an API and an internal
    listener that share a port are both reached through it.) Public is the widest; of two others
    it is the one whose audience covers fewer addresses of the key's family, `node` covering
    none; after that, the order of the alphabet. Workloads of two users are treated alike here:
    the laxer rule would open one of them.
    """

    def width(claim: _Claim) -> tuple[bool, int, tuple[str, ...], str]:
        covered = merged(
            network
            for name in claim.audience
            for network in networks.get(name, ())
            if network.version == claim.key.family
        )
        addresses = sum(network.num_addresses for network in covered)
        return claim.audience == (PUBLIC,), addresses, claim.audience, claim.note

    return min(claims, key=width) if len(claims) > 1 else claims[0]


def _walls(
    claims: Iterable[_Claim],
    guards: Guards,
    networks: Mapping[str, tuple[Network, ...]],
    policy: Policy,
) -> dict[int, Wall]:
    entries: dict[int, set[WallEntry]] = {namespace: set() for namespace in guards}
    for claim in claims:
        entries.setdefault(claim.key.namespace, set()).add(_entry(claim))
    return {
        namespace: _wall(
            namespace, frozenset(its), guards.get(namespace, frozenset()), networks, policy
        )
        for namespace, its in sorted(entries.items())
    }


def _wall(
    namespace: int,
    entries: frozenset[WallEntry],
    guards: frozenset[Guard],
    networks: Mapping[str, tuple[Network, ...]],
    policy: Policy,
) -> Wall:
    guarding = _guard_audience(policy)
    named = {PEERS, *guarding, *(name for entry in entries for name in entry.audience)}
    return Wall(
        namespace,
        entries,
        {name: networks[name] for name in sorted(named & networks.keys())},
        policy.mode,
        guards,
        guarding,
        _failsafe(policy, Proto.TCP),
        failsafe_udp=_failsafe(policy, Proto.UDP),
        limits=policy.limits,
        log=policy.log,
    )


def _failsafe(policy: Policy, wanted: Proto) -> frozenset[int]:
    return frozenset(port for proto, port in policy.failsafe if proto is wanted)


def _answers(wall: Wall) -> bool:
    return bool(wall.guards) and wall.mode is Mode.ENFORCE


def _guard_audience(policy: Policy) -> tuple[str, ...]:
    """The default audience: before a listener exists its role is not known."""
    return _audience(Role.UNKNOWN, replace(policy, audiences={}))


def _entry(claim: _Claim) -> WallEntry:
    key = claim.key
    return WallEntry(
        key.family, key.proto, key.port, claim.audience, key.address, claim.note, claim.limited
    )


def _note(role: Role, name: str) -> str:
    """Role and workload, in letters that have no meaning in an nft script: users choose names."""
    return _UNSAFE.sub("_", f"{role.value} {name}")[:_LONGEST_NOTE].strip()
