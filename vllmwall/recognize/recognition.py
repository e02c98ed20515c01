"""The steps of a recognition: claim processes, group them, assign listeners, label them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from vllmwall.model import Listener, Node, Process, Recognition
from vllmwall.recognize.claims import (
    Known,
    claim_of_owner,
    claims_by_listeners,
    claims_of,
    defined_in,
    drop_guesses,
)
from vllmwall.recognize.description import View, describe
from vllmwall.recognize.forwarders import with_forwarded
from vllmwall.recognize.left_out import with_left_out
from vllmwall.recognize.memo import Memo
from vllmwall.recognize.ownership import owned_by
from vllmwall.recognize.process_tree import front_ends, group, masters, parents_of
from vllmwall.recognize.relays import with_relays
from vllmwall.recognize.rows import ports_in
from vllmwall.recognize.stack_rules import Claim


def recognize_node(node: Node, known: Known, memo: Memo) -> Recognition:
    """Recognize a node by what is known."""
    memo.begin()
    stacks = known.stacks
    parents = parents_of(node.processes)
    defined = defined_in(node.processes, known.definitions)
    problems: list[str] = []
    claims = claims_of(node.processes, defined, known, problems, memo)
    caps = _queue_caps(node.listeners)
    drop_guesses(claims, node)
    claims.update(front_ends(node.processes, parents, claims))
    claims.update(masters(node, parents, claims))
    judge = partial(claim_of_owner, stacks, caps, memo)
    claims.update(claims_by_listeners(node, parents, claims, judge))
    members = group(node, parents, claims, memo)
    owned = owned_by(node, parents, members, memo.pause)
    rules = {one.stack: one for one in stacks}
    routed = _routed(node.processes, claims)
    view = View(node, parents, claims, defined, rules, caps, routed, known.table, memo, problems)
    found = with_left_out(describe(view, members, owned), node.left_out)
    found = with_relays(with_forwarded(found, node.processes, defined), node)
    return replace(found, problems=tuple(dict.fromkeys(problems)))


def _queue_caps(listeners: Iterable[Listener]) -> dict[int, int]:
    caps: dict[int, int] = {}
    for one in listeners:
        caps[one.namespace] = max(caps.get(one.namespace, 0), one.queue_limit or 0)
    return caps


def _routed(
    processes: Mapping[int, Process], claims: Mapping[int, Claim]
) -> Mapping[int, frozenset[int]]:
    """The ports of the servers that the command lines of each user's routers name."""
    found: dict[int, frozenset[int]] = {}
    for pid, claim in claims.items():
        if claim.part == "router":
            process = processes[pid]
            ports = (
                port for word in process.started_as if "://" in word for port in ports_in(word)
            )
            found[process.uid] = found.get(process.uid, frozenset()).union(ports)
    return found
