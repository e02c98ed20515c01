"""`vllmwall blocked`: the sources that walls refused, and which of them may be forgotten peers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from vllmwall.api.blocked_answer import BlockedFacts, blocked_json, by_packets, by_time
from vllmwall.api.errors import Json
from vllmwall.cidr import NetworkSet
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.refused_by import OrdersOf
from vllmwall.enforce.nftables.ruleset import REMEMBERED
from vllmwall.engine.refusals import MOST, Purpose, Refused
from vllmwall.engine.state import State
from vllmwall.model import Proto

_SHOWN = 1000


def blocked(state: State, arguments: Json) -> Json:
    """The sources that were refused, with what they wanted.

    With ``all`` every one, which can take 0.3 s; with ``newest`` the last thousand.
    """
    order = by_time if arguments.get("newest") else by_packets
    return blocked_json(look(state), MOST if arguments.get("all") else _SHOWN, order)


def look(state: State) -> BlockedFacts:
    """Read what every wall counts, and note it: after each full pass too, so that little is lost.

    0.3 ms a namespace; 50 ms where the kernel's memory is full. Raises nothing: what cannot be
    read is said.
    """
    keeper, now = state.reconciler, time.time()
    ledger = state.refusals
    facts = BlockedFacts(
        now, keeper.down, ledger, {}, {}, {}, {}, REMEMBERED, NetworkSet(keeper.peers.networks())
    )
    purpose = _purposes(state)
    for inode in keeper.walls.spaces:
        facts.names[inode] = keeper.observer.namespaces.name(inode)
        standing = keeper.walls.actual(inode)
        mode = facts.modes[inode] = standing.mode if standing else keeper.policy.mode
        try:
            counters = keeper.backend.counters(keeper.observer.namespaces.path(inode))
        except (OSError, KeyError, EnforceError) as error:
            facts.errors[inode] = f"what was refused cannot be read: {error}"
            continue
        ledger.take((inode, mode), counters, now, partial(purpose, inode))
        families = Counter(one.source.version for one in counters.refusals)
        facts.remembered.update({(inode, family): n for family, n in families.items()})
    ledger.let_go(keeper.walls.spaces, now)
    return facts


def _purposes(state: State) -> Callable[[int, Refused], Purpose]:
    """What the ports of each namespace are for, by what listens there now; or ``ban``, ``limit``
    or ``lockdown`` where that is why a packet was refused."""
    policy = state.reconciler.policy
    known: dict[tuple[int, int, Proto, int], Purpose] = {}
    for workload in state.reconciler.recognition.workloads:
        for one in workload.listeners:
            role = one.label.role
            found = Purpose(role.value, workload.name, policy.audience_of(role))
            for to in one.listener.destinations:
                place = (one.listener.namespace, to.family, one.listener.proto, one.listener.port)
                known.setdefault(place, found)

    standing = state.reconciler.walls.actual
    orders = {
        inode: OrdersOf(wall)
        for inode in state.reconciler.walls.spaces
        if (wall := standing(inode)) is not None
    }

    def purpose(namespace: int, one: Refused) -> Purpose:
        found = known.get((namespace, one.source.version, one.proto, one.port), Purpose())
        ours = orders.get(namespace)
        order = ours.behind(one.source, one.proto, one.port) if ours else ""
        return Purpose(order, found.workload) if order else found

    return purpose
