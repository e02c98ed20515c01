"""The table of commands: what the daemon can be asked, who may ask it, and what answers.

Server, client, command line and the tests' fake daemon all use this table. A handler gets the
daemon's state and the request's arguments; the loop calls it, so it never waits. Its module is
imported by the first request for it: together they are a tenth of the daemon's start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from vllmwall.api.adopted_answer import AdoptedAnswer, AdoptedRequest
    from vllmwall.api.apis import AddApi, OpenedApis, RemoveApi
    from vllmwall.api.bans import BanRequest, Bans
    from vllmwall.api.blocked import Blocked, BlockedRequest
    from vllmwall.api.changes import (
        ChangeRequest,
        Confirmed,
        RemovedWalls,
        RollbackRequest,
        RolledBack,
    )
    from vllmwall.api.connections import Connections
    from vllmwall.api.errors import NoArguments
    from vllmwall.api.events import Events, EventsRequest
    from vllmwall.api.explain.answer import Explanation
    from vllmwall.api.explain.targets import Question
    from vllmwall.api.guard import Guarded, GuardRequest
    from vllmwall.api.later import Later
    from vllmwall.api.learn import LearnFacts
    from vllmwall.api.networks import NetworksRequest
    from vllmwall.api.peers import AcceptLossRequest, AddRequest, PeersAnswer, RemoveRequest
    from vllmwall.api.plan_answer import Plan, PlanRequest
    from vllmwall.api.snapshot import NodeSnapshot, SnapshotRequest
    from vllmwall.api.status_answer import Status
    from vllmwall.engine.state import State

Q = TypeVar("Q")
A = TypeVar("A")


class Access(Enum):
    """Who may ask: everyone who can open the socket (root and the control group), or root."""

    READER = "reader"
    ROOT = "root"


@dataclass(frozen=True)
class Command(Generic[Q, A]):
    """One row. The types of request and answer and the handler are ``module:name`` below
    `vllmwall.api`.

    ``about_asker``: the kernel's word on the asking process becomes the argument ``pid``.
    """

    name: str
    access: Access
    handler: str
    request: str
    answer: str
    about_asker: bool = False

    def load(self) -> Callable[[State, Q], A | Later[A]]:
        """The function that answers; imports its module."""
        return cast("Callable[[State, Q], A | Later[A]]", _named(self.handler))

    @property
    def request_type(self) -> type[Q]:
        """The type of the request; imports its module."""
        return cast("type[Q]", _named(self.request))

    @property
    def answer_type(self) -> type[A]:
        """The type of the answer; imports its module."""
        return cast("type[A]", _named(self.answer))


def _named(where: str) -> object:
    module, _, name = where.partition(":")
    return getattr(import_module(f"vllmwall.api.{module}"), name)


_NOTHING = "errors:NoArguments"
_READER, _ROOT = Access.READER, Access.ROOT

STATUS: Command[NoArguments, Status] = Command(
    "status", _READER, "status:status", _NOTHING, "status_answer:Status"
)
PLAN: Command[PlanRequest, Plan] = Command(
    "plan", _READER, "plan:plan", "plan_answer:PlanRequest", "plan_answer:Plan"
)
EXPLAIN: Command[Question, Explanation] = Command(
    "explain",
    _READER,
    "explain.question:explain",
    "explain.targets:Question",
    "explain.answer:Explanation",
)
LIST_PEERS: Command[NoArguments, PeersAnswer] = Command(
    "peers.list", _READER, "peers:show", _NOTHING, "peers:PeersAnswer"
)
ADD_PEERS: Command[AddRequest, PeersAnswer] = Command(
    "peers.add", _ROOT, "peers:add", "peers:AddRequest", "peers:PeersAnswer"
)
REMOVE_PEERS: Command[RemoveRequest, PeersAnswer] = Command(
    "peers.remove", _ROOT, "peers:remove", "peers:RemoveRequest", "peers:PeersAnswer"
)
ACCEPT_LOSS: Command[AcceptLossRequest, PeersAnswer] = Command(
    "peers.accept-loss",
    _ROOT,
    "peers:accept_loss",
    "peers:AcceptLossRequest",
    "peers:PeersAnswer",
)
LIST_APIS: Command[NoArguments, OpenedApis] = Command(
    "api.list", _READER, "apis:show", _NOTHING, "apis:OpenedApis"
)
ADD_API: Command[AddApi, OpenedApis] = Command(
    "api.add", _ROOT, "apis:add", "apis:AddApi", "apis:OpenedApis"
)
REMOVE_API: Command[RemoveApi, OpenedApis] = Command(
    "api.remove", _ROOT, "apis:remove", "apis:RemoveApi", "apis:OpenedApis"
)
LIST_ADOPTED: Command[NoArguments, AdoptedAnswer] = Command(
    "adopted.list", _READER, "adopted:show", _NOTHING, "adopted_answer:AdoptedAnswer"
)
KEEP_ADOPTED: Command[AdoptedRequest, AdoptedAnswer] = Command(
    "adopted.keep",
    _ROOT,
    "adopted:keep",
    "adopted_answer:AdoptedRequest",
    "adopted_answer:AdoptedAnswer",
)
DROP_ADOPTED: Command[AdoptedRequest, AdoptedAnswer] = Command(
    "adopted.drop",
    _ROOT,
    "adopted:drop",
    "adopted_answer:AdoptedRequest",
    "adopted_answer:AdoptedAnswer",
)
BLOCKED: Command[BlockedRequest, Blocked] = Command(
    "blocked", _READER, "blocked:blocked", "blocked:BlockedRequest", "blocked:Blocked"
)
CONNECTIONS: Command[NoArguments, Connections] = Command(
    "connections", _READER, "connections:connections", _NOTHING, "connections:Connections"
)
LEARN: Command[NoArguments, LearnFacts] = Command(
    "learn", _READER, "learn:learn", _NOTHING, "learn:LearnFacts"
)
EVENTS: Command[EventsRequest, Events] = Command(
    "events", _READER, "events:events", "events:EventsRequest", "events:Events"
)
LIST_BANS: Command[NoArguments, Bans] = Command(
    "bans.list", _READER, "bans:show", _NOTHING, "bans:Bans"
)
ADD_BANS: Command[BanRequest, Bans] = Command(
    "bans.add", _ROOT, "bans:ban", "bans:BanRequest", "bans:Bans"
)
REMOVE_BANS: Command[NetworksRequest, Bans] = Command(
    "bans.remove", _ROOT, "bans:unban", "networks:NetworksRequest", "bans:Bans"
)
RELOAD: Command[ChangeRequest, Status] = Command(
    "reload", _ROOT, "service:reload", "changes:ChangeRequest", "status_answer:Status"
)
UP: Command[ChangeRequest, Status] = Command(
    "up", _ROOT, "service:up", "changes:ChangeRequest", "status_answer:Status"
)
DOWN: Command[NoArguments, RemovedWalls] = Command(
    "down", _ROOT, "service:down", _NOTHING, "changes:RemovedWalls"
)
CONFIRM: Command[NoArguments, Confirmed] = Command(
    "confirm", _ROOT, "confirm:confirm", _NOTHING, "changes:Confirmed"
)
ROLLBACK: Command[RollbackRequest, RolledBack] = Command(
    "rollback", _ROOT, "confirm:rollback", "changes:RollbackRequest", "changes:RolledBack"
)
GUARD: Command[GuardRequest, Guarded] = Command(
    "guard", _READER, "guard:guard", "guard:GuardRequest", "guard:Guarded", about_asker=True
)
SNAPSHOT: Command[SnapshotRequest, NodeSnapshot] = Command(
    "snapshot",
    _READER,
    "snapshot:snapshot",
    "snapshot:SnapshotRequest",
    "snapshot:NodeSnapshot",
)

_ROWS = (
    *(STATUS, PLAN, EXPLAIN, LIST_PEERS, ADD_PEERS, REMOVE_PEERS, ACCEPT_LOSS),
    *(BLOCKED, CONNECTIONS, LEARN),
    *(EVENTS, LIST_BANS, ADD_BANS, REMOVE_BANS, RELOAD, UP, DOWN, CONFIRM, ROLLBACK, GUARD),
    *(SNAPSHOT, LIST_APIS, ADD_API, REMOVE_API, LIST_ADOPTED, KEEP_ADOPTED, DROP_ADOPTED),
)
COMMANDS: Mapping[str, Command[object, object]] = {
    row.name: cast("Command[object, object]", row) for row in _ROWS
}
