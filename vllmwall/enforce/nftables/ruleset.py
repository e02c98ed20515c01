"""A wall as nft text: the table, and the script that puts it in place at once. Pure.

The text is spelled as ``nft -s list table`` prints it, so `listing` reads both with the same
eyes, and where they differ somebody changed something.

Why the table looks as it does (DESIGN §7):

- Chains and rules are static; ports and networks live in maps and sets. The number of rules
  grows with the number of distinct audiences only.
- Two steps: a port in a ``walled`` set is closed, whatever comes; the maps say whom to let in
  all the same. The kernel commits a transaction at once, but a packet that is on its way just
  then can find the elements of the one state and the rules of the other. When one map did both,
  four changes in a hundred let a packet of a flood through (kernel 6.18; none of ten thousand
  since). A walled element stays while audience and note change; what is missing then, drops.
- For the same reason `replacing` puts a second base chain behind the old table's: the packet
  that meets the new table too early and the old one too late meets that. `settling` removes it.
  (Without it, and with 1,500 rules of another program between the two: one change in two.)
- Where every audience has peers in it, as by default, they are ``trusted`` and pass before ports
  are looked up: what a job says to itself is nearly all that comes to these ports. It halves what
  the wall costs it.
- By family, and the exact address before the wildcard, as the kernel finds its listener: a
  rule for ``[::]`` with v6only never touches another process's IPv4 socket of the same port.
- No conntrack: each packet is judged, so an established stranger is cut too.
- A later fragment has no port (``th dport`` does not match) and passes. IPv4 is whole again
  before this hook. An IPv6 datagram whose first fragment was dropped is never completed, and
  the kernel refuses a first fragment without all its headers (RFC 7112, since Linux 5.10).
- Remembering a source stands in rules of its own: a full set ends its rule (NFT_BREAK), and
  that must not be the rule that drops.
- Networks are merged here and the sets have no ``auto-merge``: so their elements in the kernel
  are exactly ours, and one can be added or deleted without reading the others.
- Elements have no counters: one would cost every packet of a workload's own traffic.
- A guard looks the listening socket up itself, and matches where that was made in a guarded
  cgroup, at whatever port. It sees SYNs only: answers to what the workload itself opened pass.
  There is a set and a rule for every depth, used or not, so that arming a guard adds elements
  and touches no rule. The maps come first there too, so that a public listener is reached.
- Where guards stand, a SYN that finds no socket at all is answered here, with the reset that TCP
  would send. TCP looks for a listener once more after us, and when listen() returns in between,
  it finds one that no guard has seen: one stranger in 30 to 125 listens under a hammer of 50,000
  SYNs a second, none since. In this order: a socket that the first rule finds, the next ones
  find too. Not where the kernel delivers to no local socket (IPVS), nor through a VRF, whose
  sockets this lookup does not find. ``answering`` is a set, so that no rule has to change.
- One SYN no guard sees: one whose four numbers are those of a connection that this host closed in
  the last minute. The lookup finds what is left of that (TIME_WAIT), which has no cgroup
  (nft_socket_eval, net/netfilter/nft_socket.c). Refusing those would hurt busy servers that are
  no workloads. The listener's own rule, half a millisecond later, refuses its packets.
- What an operator orders beside that (bans, lockdown, limits, the log) is in `orders`. A change of
  bans is one of elements; the rest comes from the configuration, and a change of that replaces
  the table, since it changes rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from vllmwall import __version__
from vllmwall.enforce.nftables import operator_rules, syntax
from vllmwall.enforce.nftables.names import (
    ABSENT,
    CGROUPS,
    GUARDED,
    STRANGERS,
    UNLISTED,
    WALLED,
    Audience,
    Networks,
    chain_name,
    check,
    has_chain,
    set_name,
    verdict,
    verdict_of,
)
from vllmwall.enforce.nftables.operator_rules import FAILSAFE, network_elements
from vllmwall.enforce.nftables.syntax import DESTINATION, LOOKUP, PORT, SOURCE, block, filled
from vllmwall.model import NODE, PEERS, PUBLIC, Guard, KernelLog, Mode, Network, Wall, WallEntry

TABLE = "inet vllmwall"
MAPS = syntax.MAPS
SYN = syntax.SYN
elements = syntax.elements
MEMORIES = ("refused4", "refused6")
LEVELS = range(1, 9)  # depths of cgroups that have a set; a pod's container lies at 4
ANSWERING = "answering"
LAST_RULE = {Mode.ENFORCE: "counter drop", Mode.AUDIT: "counter accept"}

REMEMBERED = 4096  # sources and ports by family: about 1 MB at most
REMEMBERED_SECONDS = 3600  # after the last packet
_LATE = "late"
_GUARD_RULES = re.compile(r"^\t\t(?:socket|meta sdif) .*\n", re.MULTILINE)


Cgroups = Mapping[Guard, str]
"""How nft shall find the cgroup of each guard. A guard that is not in it is left out."""

NO_CGROUPS: Cgroups = MappingProxyType({})


def replacing(wall: Wall, cgroups: Cgroups = NO_CGROUPS) -> str:
    """The script that puts ``wall`` in the place of whatever stands; `settling` comes after.

    Raises EnforceError for a wall that `names.check` refuses.
    """
    late = in_table([block("chain", _LATE, _base_chain("filter - 9", wall))])
    return f"add table {TABLE}\ndelete table {TABLE}\n{table(wall, cgroups)}\n{late}"


def settling() -> str:
    """The script that takes away what only the change needed."""
    return f"delete chain {TABLE} {_LATE}\n"


def table(wall: Wall, cgroups: Cgroups = NO_CGROUPS) -> str:
    """The whole table. Raises EnforceError for a wall that `names.check` refuses."""
    check(wall.networks, wall.entries, wall.guard_audience)
    operator_rules.check(wall)
    return in_table(
        [
            f'\tcomment "vllmwall {__version__} {wall.mode.value}"\n',
            *network_sets(wall.networks),
            *(_memory(family) for family in (4, 6)),
            *(_walled(name, wall.entries) for name in MAPS),
            *(_map(name, wall.entries) for name in MAPS),
            *(_guarded_set(level, cgroups) for level in LEVELS),
            block("set", ANSWERING, ["type inet_proto", *filled(answering_elements(wall))]),
            *(_trusted(family, wall) for family in (4, 6)),
            *operator_rules.sets(wall),
            block("chain", "input", _base_chain("filter - 10", wall)),
            block("chain", WALLED, _walled_rules()),
            block("chain", GUARDED, _guarded_rules(wall)),
            block("chain", CGROUPS, _cgroup_rules()),
            block("chain", ABSENT, ["reject with tcp reset"]),
            block("chain", UNLISTED, _unlisted_rules(wall.guard_audience)),
            *audience_chains(audiences_of(wall)),
            *operator_rules.chains(wall),
            block("chain", STRANGERS, _strangers(wall.mode, wall.log)),
        ]
    )


def unguarded(script: str) -> str:
    """A script of ours without the rules that a kernel without nft_socket does not take.

    One of them would cost the whole table. The sets stay, and hold nothing there.
    """
    return _GUARD_RULES.sub("", script)


def audiences_of(wall: Wall) -> list[Audience]:
    """The distinct audiences that need a chain."""
    audiences = {wall.guard_audience, *(entry.audience for entry in wall.entries)}
    return sorted(filter(has_chain, audiences))


def in_table(blocks: Iterable[str]) -> str:
    """Blocks as part of our table: what is new is added, what is there already stays."""
    return f"table {TABLE} {{\n" + "\n".join(blocks) + "}\n"


def network_sets(networks: Networks) -> list[str]:
    """Two sets, one a family, for each audience name."""
    return [
        block("set", set_name(name, family), _network_set(networks[name], family))
        for name in sorted(networks)
        for family in (4, 6)
    ]


def audience_chains(audiences: Iterable[Audience]) -> list[str]:
    """A chain for each audience: its networks pass, all others are strangers."""
    return [block("chain", chain_name(each), _audience_rules(each)) for each in audiences]


def trusted_set(family: int) -> str:
    """The set of sources that reach whatever is closed here."""
    return f"trusted{family}"


def trusted(wall: Wall) -> tuple[Network, ...]:
    """Sources whose packets pass before their port is looked up: the peers, or nobody."""
    audiences = {wall.guard_audience, *(entry.audience for entry in wall.entries)}
    everywhere = all(PEERS in one or PUBLIC in one for one in audiences)
    return tuple(wall.networks[PEERS]) if everywhere and not wall.lockdown else ()


def walled_set(name: str) -> str:
    """The set of closed ports beside a map."""
    return f"walled_{name}"


def is_walled(entry: WallEntry) -> bool:
    """Whether the port is closed to anybody."""
    return entry.audience != (PUBLIC,)


def guarded_set(level: int) -> str:
    """The set of guarded cgroups of one depth."""
    return f"guarded_{level}"


def guard_elements(level: int, cgroups: Cgroups) -> list[str]:
    """The guards of one depth as elements, by what nft finds them by."""
    guards = sorted((guard for guard in cgroups if guard.level == level), key=lambda one: one.id)
    return [cgroups[guard] for guard in guards]


def answering_elements(wall: Wall) -> list[str]:
    """The protocols whose callers are answered where nobody listens."""
    return ["tcp"] if wall.answering else []


def map_of(entry: WallEntry) -> str:
    """The map that an entry belongs in."""
    return f"{'any' if entry.address is None else 'addr'}{entry.family}"


def key(entry: WallEntry) -> str:
    """What a packet must be to meet this entry."""
    port = f"{entry.proto.value} . {entry.port}"
    return port if entry.address is None else f"{entry.address} . {port}"


def mapping(entry: WallEntry) -> str:
    """An entry as an element of its map."""
    comment = f' comment "{entry.note}"' if entry.note else ""
    return f"{key(entry)}{comment} : {verdict_of(entry)}"


def in_order(entries: Iterable[WallEntry]) -> list[WallEntry]:
    """Entries by port, for people who read the script."""
    return sorted(entries, key=lambda entry: (entry.port, entry.proto.value, str(entry.address)))


def _network_set(networks: Iterable[Network], family: int) -> Iterator[str]:
    yield f"type ipv{family}_addr"
    yield "flags interval"
    yield from filled(network_elements(networks, family))


def _trusted(family: int, wall: Wall) -> str:
    return block("set", trusted_set(family), _network_set(trusted(wall), family))


def _walled(name: str, entries: Iterable[WallEntry]) -> str:
    ours = in_order(entry for entry in entries if map_of(entry) == name and is_walled(entry))
    return block("set", walled_set(name), [f"typeof {_typed(name)}", *filled(map(key, ours))])


def _map(name: str, entries: Iterable[WallEntry]) -> str:
    ours = in_order(entry for entry in entries if map_of(entry) == name)
    lines = [f"typeof {_typed(name)} : verdict", *filled(map(mapping, ours))]
    return block("map", name, lines)


def _guarded_set(level: int, cgroups: Cgroups) -> str:
    return block(
        "set", guarded_set(level), ["type cgroupsv2", *filled(guard_elements(level, cgroups))]
    )


def _typed(name: str) -> str:
    family = int(name[-1])
    return f"{DESTINATION[family]} . {PORT}" if name.startswith("addr") else PORT


def _base_chain(priority: str, wall: Wall) -> Iterator[str]:
    yield f"type filter hook input priority {priority}; policy accept;"
    yield 'iif "lo" accept'
    yield from operator_rules.ban_rules()
    for family, source in SOURCE.items():
        yield f"{source} @{trusted_set(family)} accept"
    for name, lookup in LOOKUP.items():
        yield f"{lookup} @{walled_set(name)} goto {WALLED}"
    yield f"{SYN} {'jump' if wall.lockdown else 'goto'} {GUARDED}"
    if wall.lockdown:
        yield from operator_rules.lockdown_rules()


def _walled_rules() -> Iterator[str]:
    yield from syntax.verdicts()
    yield f"goto {STRANGERS}"


def _guarded_rules(wall: Wall) -> Iterator[str]:
    yield f"tcp dport @{FAILSAFE} accept"
    if wall.limits is not None:  # else a public port is open to all and need not be looked up
        yield from syntax.verdicts()
    yield f"socket transparent {{ 0, 1 }} goto {CGROUPS}"
    yield f"meta sdif 0 meta l4proto @{ANSWERING} goto {ABSENT}"


def _cgroup_rules() -> Iterator[str]:
    for level in LEVELS:
        yield f"socket cgroupv2 level {level} @{guarded_set(level)} goto {UNLISTED}"


def _unlisted_rules(audience: Audience) -> Iterator[str]:
    yield from syntax.verdicts()
    if has_chain(audience):
        yield verdict(audience)
    yield f"goto {STRANGERS}"


def _memory(family: int) -> str:
    lines = [f"typeof {SOURCE[family]} . {PORT}", f"size {REMEMBERED}"]
    return block("set", f"refused{family}", [*lines, "flags dynamic,timeout", "timeout 1h"])


def _audience_rules(audience: Audience) -> Iterator[str]:
    for name in audience:
        if name != NODE:
            yield f"ip saddr @{set_name(name, 4)} accept"
            yield f"ip6 saddr @{set_name(name, 6)} accept"
    yield f"goto {STRANGERS}"


def _strangers(mode: Mode, log: KernelLog | None) -> Iterator[str]:
    for family, source in SOURCE.items():
        yield f"update @refused{family} {{ {source} . {PORT} counter }}"
    yield from operator_rules.log_rules(log)
    yield LAST_RULE[mode]
