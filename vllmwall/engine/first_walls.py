"""The look of a pass at what runs already, before it puts walls up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vllmwall.decide.adopted import with_adopted
from vllmwall.decide.scope import within
from vllmwall.engine.adoption import FirstLook
from vllmwall.engine.contacts import read_contacts
from vllmwall.engine.wall_facts import WallFacts
from vllmwall.model import Node, Recognition

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler


def adopt(reconciler: Reconciler, found: Recognition, node: Node, *, is_whole: bool) -> Recognition:
    """The recognition with what was adopted: now, where a first wall goes up, or before.

    ``is_whole``: the pass has read the whole node. Nothing is adopted while we cannot see the
    processes of others.
    """
    facts = WallFacts(reconciler.backend, reconciler.walls, reconciler.observer.namespaces)
    look = FirstLook(
        policy=reconciler.policy,
        peers=reconciler.peers.networks(),
        read=partial(read_contacts, reconciler),
        is_walled=partial(facts.drops_something, reconciler.home),
        down=reconciler.down,
        is_whole=is_whole,
    )
    if not reconciler.blind:
        reconciler.adoption.look(within(found, node, reconciler.only), look)
    return with_adopted(found, reconciler.adoption.in_force(), reconciler.policy)
