"""The published shapes of every answer: ``python -m vllmwall.cli.schemas DIRECTORY``.

Writes one JSON schema (draft 2020-12) a command, as docs/reference/schemas has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from vllmwall.api.bans import Bans
from vllmwall.api.blocked import Blocked
from vllmwall.api.changes import Confirmed, RemovedWalls
from vllmwall.api.connections import Connections
from vllmwall.api.events import Event
from vllmwall.api.explain.answer import Explanation
from vllmwall.api.peers import PeersAnswer
from vllmwall.api.plan_answer import Plan
from vllmwall.api.recognition import RecognitionAnswer
from vllmwall.api.status_answer import Status
from vllmwall.cli.blocked import NewlyBlocked
from vllmwall.cli.config import ConfigCheck
from vllmwall.cli.failures import ErrorAnswer
from vllmwall.inspect.audit.types import AuditAnswer
from vllmwall.inspect.doctor import Examination
from vllmwall.inspect.learn.proposal import Proposal
from vllmwall.inspect.prove import Proof

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BASE = "urn:vllmwall:schema:"
SHAPES: Mapping[str, type] = {
    "audit": AuditAnswer,
    "bans": Bans,
    "blocked": Blocked,
    "blocked-follow": NewlyBlocked,
    "check": ConfigCheck,
    "confirm": Confirmed,
    "connections": Connections,
    "doctor": Examination,
    "down": RemovedWalls,
    "error": ErrorAnswer,
    "events": Event,
    "explain": Explanation,
    "learn": Proposal,
    "peers": PeersAnswer,
    "plan": Plan,
    "prove": Proof,
    "recognize": RecognitionAnswer,
    "status": Status,
}
"""By the command whose ``--json`` has that shape; ``error`` is that of every failure. `reload` and
`up` answer with a status, `ban` and `unban` with the bans, all of `peers` with the peers."""


class _Complete(GenerateJsonSchema):
    """Answers always hold all their fields, those with a default too."""

    def field_is_required(self, field: object, total: bool) -> bool:
        return True


def schema_of(command: str) -> str:
    """The JSON schema of a command's answer."""
    made = TypeAdapter(SHAPES[command]).json_schema(
        mode="serialization", schema_generator=_Complete
    )
    schema = {"$schema": _DIALECT, "$id": f"{_BASE}{command}", **made}
    return json.dumps(schema, indent=2) + "\n"


def write(folder: Path) -> None:
    """One file a command. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in SHAPES:
        (folder / f"{command}.json").write_text(schema_of(command))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
