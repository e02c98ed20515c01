"""The table of a wall: every set, chain and rule, and the reasons for them (DESIGN §7). Pure.

Rules are spelled as ``nft -s list table`` prints them, so `readback` can compare what the kernel
lists with what is written here: where they differ, another program changed something.

- Chains and rules are static; ports and networks are elements of maps and sets. The number of
  rules grows with the number of distinct audiences only.
- Two steps: a port in a ``walled`` set is closed, whatever comes; the maps accept sources
  nevertheless. The kernel commits a transaction at once, but a packet on its way at that moment
  can find the elements of the one state and the rules of the other. When one map did both,
  four changes in a hundred let a packet of a flood through (kernel 6.18; none of ten thousand
  since). A walled element stays while audience and note change; a packet that finds no element
  of the map then is dropped.
- For the same reason `replacing` puts a second base chain behind that of the old table: a packet
  that meets the new table too early and the old one too late meets that chain. `settling` removes
  it. (Without it, and with 1,500 rules of another program between the two: one change in two.)
- Where every audience includes the peers, as by default, they are ``trusted`` and accepted before
  ports are looked up: nearly all packets at these ports are a job's own. It halves the cost of
  the wall for them.
- Packets to 127.0.0.0/8 from another interface (``route_localnet``, or NAT) come before the
  trusted: a listener there is for this host. A port of no workload has no element and goes on.
  To ::1 the kernel lets none in (ipv6_rcv_core), not by NAT either (tried on 6.18).
- By family, and the exact address before the wildcard, as the kernel finds its listener: a
  rule for ``[::]`` with v6only never affects another process's IPv4 socket of the same port.
- No conntrack: each packet is judged, so an established stranger is cut too.
- A later fragment has no port (``th dport`` does not match) and passes. IPv4 is reassembled
  before this hook. An IPv6 datagram whose first fragment was dropped is never completed.
- A packet whose transport header nft cannot find matches no rule about ports, so the last rules
  refuse it. The kernel refuses a first fragment without all its headers (RFC 7112), but takes a
  chain that is cut inside an extension header for whole (ipv6frag_thdr_truncated asks
  ipv6_skip_exthdr, whose -1 it reads as "complete") and reassembles it after this hook.
- Connection tracking, whatever program uses it, reassembles IPv6 before this hook, and leaves
  the transport header behind the place of the fragment header (nf_ct_frag6_reasm). Where others
  come before that one, the kernel then reads the next bytes as the first of them
  (ipv6_destopt_rcv), and finds another transport header than nft: a SYN to a walled port behind
  what looks like mobility, or like a port of nobody (6.18, found by generated packets). So such
  fragments are refused before they are reassembled. Nobody sends them: a fragment header behind
  another one is for routers on the way. The chain is there without conntrack too, which can begin
  at any time and tells nobody. It costs 1 % of the processor time of bulk over IPv4 and 2 % over
  IPv6, mostly for the hook: a table of IPv6 alone, or other tests before, gain half of that.
- The rules that remember a source are separate: a full set ends its rule (NFT_BREAK), which must
  not be the rule that drops.
- Networks are merged here and the sets have no ``auto-merge``: so their elements in the kernel
  are exactly ours, and one can be added or deleted without reading the others.
- Elements have no counters: one would cost every packet of a workload's own traffic.
- A guard looks the listening socket up itself, and matches where that was created in a guarded
  cgroup, at any port. It sees SYNs only: answers to connections of the workload itself pass.
  There is a set and a rule for every depth, used or not, so that arming a guard adds elements
  and changes no rule. The maps come first there too, so that a public listener is reached.
- Where guards are active, a SYN that finds no socket at all is answered here, with the reset that
  TCP would send. TCP looks for a listener once more after us, and when listen() returns in between,
  it finds one that no guard has seen: one stranger in 30 to 125 listens under a hammer of 50,000
  SYNs a second, none since. In this order: a socket that the first rule finds, the next ones
  find too. Not where the kernel delivers to no local socket (IPVS), nor through a VRF, whose
  sockets this lookup does not find. ``answering`` is a set, so that no rule has to change.
- One SYN no guard sees: one whose four numbers are those of a connection that this host closed in
  the last minute. The lookup finds what is left of that (TIME_WAIT), which has no cgroup
  (nft_socket_eval, net/netfilter/nft_socket.c). Refusing those would hurt busy servers that are
  no workloads. The listener's own rule, half a millisecond later, refuses its packets.
- Where NAT is, a packet can come by another port than it was sent to: a service mesh redirects
  every port of its pod to a proxy, which dials the first one over lo. So a base chain of its own
  judges by conntrack's first port what the others accept. It exists only beside a nat chain of
  another program: a rule with ``ct`` makes the kernel track connections.
- A packet of this host to itself that goes through a VRF comes in by the VRF and its member at
  once is that VRF too (vrf_local_xmit); one from outside has its interface there.
- Bans, lockdown, limits and the log are in `operator_rules`. A change of bans is one of elements;
  a change of the others changes rules, so it replaces the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from vllmwall import __version__
from vllmwall.enforce.nftables import operator_rules
from vllmwall.enforce.nftables.check import check_wall
from vllmwall.enforce.nftables.names import (
    ABSENT,
    ANSWERING,
    CGROUPS,
    FAILSAFE,
    GUARDED,
    LOOPBACK,
    MEMORIES,
    REDIRECTED,
    REDIRECTED_PORTS,
    REDIRECTED_WALLED,
    SHIFTED,
    STRANGERS,
    TABLE,
    UNLISTED,
    WALLED,
    Audience,
    chain_name,
    guarded_set,
    has_chain,
    set_name,
    trusted_set,
    verdict,
    verdict_of,
    walled_set,
)
from vllmwall.enforce.nftables.objects import Chain, Element, Map, Meaning, Rule, Set, Table
from vllmwall.enforce.nftables.operator_rules import network_set
from vllmwall.enforce.nftables.syntax import (
    DESTINATION,
    FIRST_LOOKUP,
    LOOKUP,
    MAPS,
    PORT,
    SHIFTED_FRAGMENT,
    SOURCE,
    SYN,
    map_lookups,
)
from vllmwall.model import NODE, PEERS, PUBLIC, Guard, KernelLog, Mode, Network, Wall, WallEntry

LEVELS = range(1, 9)  # depths of cgroups that have a set; a pod's container lies at 4
LAST_RULE = {Mode.ENFORCE: "counter drop", Mode.AUDIT: "counter accept"}

REMEMBERED = 4096  # sources and ports by family: about 1 MB at most
REMEMBERED_SECONDS = 3600  # after the last packet
INPUT = "input"
_PRIORITY, _LATER = "filter - 10", "filter - 9"
_AFTER = "filter - 8"  # behind _LATE: judges what the others accept
_LATE = "late"
_BEFORE_DEFRAGMENTATION = "-450"  # conntrack reassembles at -400

Cgroups = Mapping[Guard, str]
"""The text by which nft finds the cgroup of each guard. A guard that is not in it is left out."""

NO_CGROUPS: Cgroups = MappingProxyType({})


def replacing(table: Table) -> str:
    """The script that replaces the table in the kernel; `settling` comes after it."""
    late = replace(_base_chain(table), name=_LATE, priority=_LATER)
    both = replace(table, chains=(*table.chains, late))
    return f"add table {TABLE}\ndelete table {TABLE}\n{both.listing()}"


def settling() -> str:
    """The script that removes what only the replacement needed."""
    return f"delete chain {TABLE} {_LATE}\n"


def behind(table: Table, name: str) -> Table:
    """The same table under another name, with its base chain just behind that of ours."""
    base = replace(_base_chain(table), priority=_LATER)
    return replace(table, name=name, chains=_with_chain(table, base))


def table(wall: Wall, cgroups: Cgroups = NO_CGROUPS) -> Table:
    """The whole table. Raises EnforceError for a wall that `check_wall` refuses."""
    check_wall(wall)
    return Table(
        TABLE,
        sets=tuple(sets(wall, trusted(wall), cgroups)),
        chains=tuple(_chains(wall)),
        comment=f"vllmwall {__version__} {wall.mode.value}",
    )


def without_socket_rules(table: Table) -> Table:
    """The table without the rules that a kernel without nft_socket refuses.

    One of them would cost the whole table. The sets stay, and are empty there.
    """
    chains = (
        replace(chain, rules=tuple(rule for rule in chain.rules if not rule.needs_socket))
        for chain in table.chains
    )
    return replace(table, chains=tuple(chains))


def fenced(table: Table, ports: range | None) -> Table:
    """The table with a fence in the place of guards: only the audience of unrecognized listeners
    reaches these ports. The chain sees SYNs only, so answers pass."""
    rules: list[Rule] = []
    if ports is not None:
        rules.append(Rule(f"tcp dport @{FAILSAFE} accept", Meaning.FAILSAFE))
        span = f"tcp dport {ports.start}-{ports.stop - 1}"
        rules.append(Rule(f"{span} goto {UNLISTED}", Meaning.GUARD))
    chains = _with_chain(table, Chain(GUARDED, tuple(rules)))
    needed = tuple(chain for chain in chains if chain.name not in (CGROUPS, ABSENT))
    return replace(table, chains=needed)


def audiences_of(wall: Wall) -> list[Audience]:
    """The distinct audiences that need a chain."""
    return sorted(filter(has_chain, _all_audiences(wall)))


def sets(wall: Wall, trusted: Iterable[Network], cgroups: Cgroups) -> Iterator[Set]:
    """The sets and maps: what maps refer to before them, and ports are walled before their map."""
    for name in sorted(wall.networks):
        for family in (4, 6):
            yield network_set(set_name(name, family), family, wall.networks[name])
    yield from map(_memory, (4, 6))
    entries = sorted(wall.entries, key=lambda one: (one.port, one.proto.value, str(one.address)))
    for name in MAPS:
        keys = (_key(one) for one in entries if map_of(one) == name and is_walled(one))
        yield Set(walled_set(name), f"typeof {_typed(name)}", tuple(map(Element, keys)))
    for name in MAPS:
        ours = (one for one in entries if map_of(one) == name)
        mappings = tuple(Element(_key(one), one.note, verdict_of(one)) for one in ours)
        yield Map(name, f"typeof {_typed(name)}", mappings)
    for level in LEVELS:
        yield Set(guarded_set(level), "type cgroupsv2", guard_elements(level, cgroups))
    yield Set(ANSWERING, "type inet_proto", (Element("tcp"),) if wall.answering else ())
    for family in (4, 6):
        yield network_set(trusted_set(family), family, trusted)
    yield from operator_rules.sets(wall)


def audience_chains(audiences: Iterable[Audience]) -> Iterator[Chain]:
    """A chain for each audience: it accepts its networks and refuses all other sources."""
    for audience in audiences:
        yield Chain(chain_name(audience), tuple(_audience_rules(audience)))


def trusted(wall: Wall) -> tuple[Network, ...]:
    """Sources that are accepted before their port is looked up: the peers, or none."""
    beyond = (one.audience for one in wall.entries if not is_on_loopback(one))
    audiences = {wall.guard_audience, *beyond}
    everywhere = all(PEERS in one or PUBLIC in one for one in audiences)
    return tuple(wall.networks[PEERS]) if everywhere and not wall.lockdown else ()


def is_on_loopback(entry: WallEntry) -> bool:
    """Whether the port is on an address that packets reach over lo only, as a rule."""
    return entry.address is not None and entry.address.is_loopback


def is_walled(entry: WallEntry) -> bool:
    """Whether the port is closed to any source."""
    return entry.audience != (PUBLIC,)


def guard_elements(level: int, cgroups: Cgroups) -> tuple[Element, ...]:
    """The guards of one depth as elements, by the text that nft finds them by."""
    guards = sorted((guard for guard in cgroups if guard.level == level), key=lambda one: one.id)
    return tuple(Element(cgroups[guard]) for guard in guards)


def map_of(entry: WallEntry) -> str:
    """The map that an entry belongs in."""
    return f"{'any' if entry.address is None else 'addr'}{entry.family}"


def _key(entry: WallEntry) -> str:
    """The part of a packet that an entry matches."""
    port = f"{entry.proto.value} . {entry.port}"
    return port if entry.address is None else f"{entry.address} . {port}"


def _all_audiences(wall: Wall) -> set[Audience]:
    return {wall.guard_audience, *(entry.audience for entry in wall.entries)}


def _base_chain(table: Table) -> Chain:
    return next(chain for chain in table.chains if chain.name == INPUT)


def _with_chain(table: Table, new: Chain) -> tuple[Chain, ...]:
    """The chains with ``new`` in the place of the one of its name."""
    return tuple(new if chain.name == new.name else chain for chain in table.chains)


def _chains(wall: Wall) -> Iterator[Chain]:
    yield Chain(INPUT, tuple(_input_rules(wall)), _PRIORITY)
    yield Chain(LOOPBACK, (_walled("addr4"),))
    shifted = Rule(f"{SHIFTED_FRAGMENT} goto {STRANGERS}", Meaning.UNREADABLE)
    yield Chain(SHIFTED, (shifted,), _BEFORE_DEFRAGMENTATION, "prerouting")
    walled = (*map_lookups(), Rule(f"goto {STRANGERS}", Meaning.AUDIENCE))
    yield Chain(WALLED, walled)
    yield Chain(GUARDED, tuple(_guarded_rules(wall)))
    yield Chain(CGROUPS, tuple(_cgroup_rules()))
    yield Chain(ABSENT, (Rule("reject with tcp reset", Meaning.ABSENT),))
    yield Chain(UNLISTED, tuple(_unlisted_rules(wall.guard_audience)))
    yield from audience_chains(audiences_of(wall))
    yield from operator_rules.chains(wall)
    if wall.redirected:
        yield from _redirected()
    yield Chain(STRANGERS, tuple(_strangers(wall.mode, wall.log)))


def _memory(family: int) -> Set:
    flags = ("dynamic", "timeout")
    typed = f"typeof {SOURCE[family]} . {PORT}"
    return Set(MEMORIES[family], typed, size=REMEMBERED, flags=flags, timeout="1h")


def _typed(name: str) -> str:
    family = int(name[-1])
    return f"{DESTINATION[family]} . {PORT}" if name.startswith("addr") else PORT


def _input_rules(wall: Wall) -> Iterator[Rule]:
    yield from _own_packets(wall)
    yield from operator_rules.ban_rules()
    yield Rule(f"{DESTINATION[4]} 127.0.0.0/8 jump {LOOPBACK}")
    for family, source in SOURCE.items():
        yield Rule(f"{source} @{trusted_set(family)} accept", Meaning.TRUSTED)
    yield from map(_walled, MAPS)
    yield Rule(f"{SYN} {'jump' if wall.lockdown else 'goto'} {GUARDED}")
    if wall.lockdown:
        yield from operator_rules.lockdown_rules()
    else:
        yield Rule("meta l4proto 0-255 accept", Meaning.POLICY)
        yield Rule(f"goto {STRANGERS}", Meaning.UNREADABLE)


def _own_packets(wall: Wall) -> Iterator[Rule]:
    yield Rule('iif "lo" accept', Meaning.LOOPBACK)
    for name in sorted(wall.vrfs):
        yield Rule(f'iifname "{name}" meta sdifname "{name}" accept', Meaning.LOOPBACK)


def _redirected() -> Iterator[Chain]:
    first = f"ct status dnat ct direction original goto {REDIRECTED_PORTS}"
    base = (Rule('iif "lo" accept', Meaning.LOOPBACK), Rule(first))
    yield Chain(REDIRECTED, base, _AFTER)
    walled = (
        Rule(f"{lookup} @{walled_set(name)} goto {REDIRECTED_WALLED}", Meaning.AUDIENCE)
        for name, lookup in FIRST_LOOKUP
    )
    yield Chain(REDIRECTED_PORTS, tuple(walled))
    mapped = (Rule(f"{lookup} vmap @{name}", Meaning.AUDIENCE) for name, lookup in FIRST_LOOKUP)
    yield Chain(REDIRECTED_WALLED, (*mapped, Rule(f"goto {STRANGERS}", Meaning.AUDIENCE)))


def _walled(name: str) -> Rule:
    return Rule(f"{LOOKUP[name]} @{walled_set(name)} goto {WALLED}", Meaning.AUDIENCE)


def _guarded_rules(wall: Wall) -> Iterator[Rule]:
    yield Rule(f"tcp dport @{FAILSAFE} accept", Meaning.FAILSAFE)
    if wall.limits is not None:  # else a public port is open to all and need not be looked up
        yield from map_lookups()
    yield Rule(f"socket transparent {{ 0, 1 }} goto {CGROUPS}", needs_socket=True)
    absent = f"meta sdif 0 meta l4proto @{ANSWERING} goto {ABSENT}"
    yield Rule(absent, Meaning.ABSENT, needs_socket=True)  # every SYN, without the rule before it


def _cgroup_rules() -> Iterator[Rule]:
    for level in LEVELS:
        rule = f"socket cgroupv2 level {level} @{guarded_set(level)} goto {UNLISTED}"
        yield Rule(rule, Meaning.GUARD, needs_socket=True)


def _unlisted_rules(audience: Audience) -> Iterator[Rule]:
    yield from map_lookups()
    if has_chain(audience):
        yield Rule(verdict(audience), Meaning.GUARD)
    yield Rule(f"goto {STRANGERS}", Meaning.GUARD)


def _audience_rules(audience: Audience) -> Iterator[Rule]:
    for name in audience:
        if name != NODE:
            yield Rule(f"ip saddr @{set_name(name, 4)} accept", Meaning.AUDIENCE)
            yield Rule(f"ip6 saddr @{set_name(name, 6)} accept", Meaning.AUDIENCE)
    yield Rule(f"goto {STRANGERS}")


def _strangers(mode: Mode, log: KernelLog | None) -> Iterator[Rule]:
    for family, source in SOURCE.items():
        yield Rule(f"update @{MEMORIES[family]} {{ {source} . {PORT} counter }}")
    yield from operator_rules.log_rules(log)
    yield Rule(LAST_RULE[mode], Meaning.REFUSED)
