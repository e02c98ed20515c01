"""The wall that a reboot leaves: a script that plain ``nft -f`` loads before any network is up.

Pure. The script makes the table that `ruleset` describes, with the same names, so that the first
look of the daemon sees an altered wall and its first transaction replaces it. It differs in
what a reboot changes:

- Guards are left out, rules and all: numbers of cgroups end with the kernel that gave them, and
  one rule that this kernel does not take (nft_socket) would cost the whole script.
- Internal entries in the ephemeral range are left out: those ports were drawn by chance, and
  another program may draw them next time.
- Entries outside it stay also while nothing listens there: jobs are stopped before a reboot, and
  a wall of the last second would be empty.
- In the place of guards there may be a fence: connections to the ephemeral range are for the
  audience of what nobody has recognized, except to failsafe ports and where an entry says
  otherwise. It sees SYNs only, so answers pass.
- Bans and lockdown stay. Limits and the log are left out: they close nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables import operator_rules, ruleset
from vllmwall.enforce.nftables.names import ABSENT, CGROUPS, GUARDED, UNLISTED
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.enforce.nftables.ruleset import TABLE
from vllmwall.enforce.nftables.syntax import block
from vllmwall.model import BUILT_IN_AUDIENCES, PUBLIC, Proto, Wall, WallEntry

Door = tuple[Proto, int]
"""A protocol and a port."""

_HEAD = """\
# Written by vllmwall, read by vllmwall-boot.service: what of the wall outlives a reboot. The
# daemon's first pass puts the whole wall in its place. Changes in here are overwritten.
"""
_NEEDLESS_CHAINS = re.compile(
    rf"^\tchain (?:{CGROUPS}|{ABSENT}) \{{\n.*?^\t\}}\n\n?", re.MULTILINE | re.DOTALL
)
_GUARDED_CHAIN = re.compile(rf"^\tchain {GUARDED} \{{\n.*?^\t\}}\n", re.MULTILINE | re.DOTALL)
_OFTEN_FIXED = range(1, 32768)  # below the kernel's own ephemeral range (ip-sysctl.rst)
_MOST_REMEMBERED = 1024


def boot_script(wall: Wall, *, fence: range | None = None) -> str:
    """The script for the host's own namespace. ``fence``: the ports that are fenced.

    Raises EnforceError for a wall that `names.check` refuses.
    """
    table = ruleset.table(_without_extras(wall))
    rules = [] if fence is None else _fence(fence)
    chain = block("chain", GUARDED, rules)
    table = _GUARDED_CHAIN.sub(lambda found: chain, _NEEDLESS_CHAINS.sub("", table), count=1)
    return f"{_HEAD}add table {TABLE}\ndelete table {TABLE}\n{table}"


def lasting(
    wall: Wall, remembered: Iterable[WallEntry], others: Collection[Door], ephemeral: range
) -> Wall:
    """What of a wall means something after a reboot.

    ``remembered`` are the entries of the last such wall: they stay until their port has another
    entry or ``others``, who are no workload's, listen there. Where the ephemeral range
    begins low, ports below the usual one are kept while they stand and not remembered.
    """
    usual = range(max(ephemeral.start, _OFTEN_FIXED.stop), ephemeral.stop)
    entries = {one for one in wall.entries if _outlives(one, wall, usual)}
    taken = {*others, *((one.proto, one.port) for one in wall.entries)}
    names = {*wall.networks, *BUILT_IN_AUDIENCES}
    for one in sorted(remembered, key=repr)[:_MOST_REMEMBERED]:
        is_free = (one.proto, one.port) not in taken
        if is_free and names.issuperset(one.audience) and _outlives(one, wall, ephemeral):
            entries.add(one)
    return replace(wall, entries=frozenset(entries), guards=frozenset())


def remembered_in(script: str) -> frozenset[WallEntry]:
    """The entries of a script of ours; of anything else, none."""
    try:
        return read_wall(script, 0).entries
    except (ValueError, EnforceError):
        return frozenset()


def _without_extras(wall: Wall) -> Wall:
    """Bans and lockdown stay; a rule for limits or the log could cost the whole script."""
    entries = frozenset(replace(one, limited=False) for one in wall.entries)
    return replace(
        wall, entries=entries, guards=frozenset(), answering=False, limits=None, log=None
    )


def _fence(ports: range) -> list[str]:
    """What stands where guards stood: the chain sees nothing but SYNs."""
    return [
        f"tcp dport @{operator_rules.FAILSAFE} accept",
        f"tcp dport {ports.start}-{ports.stop - 1} goto {UNLISTED}",
    ]


def _outlives(entry: WallEntry, wall: Wall, ephemeral: range) -> bool:
    if entry.proto is Proto.TCP and entry.port in wall.failsafe:
        return False
    return entry.audience == (PUBLIC,) or entry.port not in ephemeral
