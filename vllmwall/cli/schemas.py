"""The published shapes of every answer: ``python -m vllmwall.cli.schemas DIRECTORY``.

Writes one JSON schema (draft 2020-12) a command, as docs/reference/schemas has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from vllmwall.api.bans_shapes import BansJson
from vllmwall.api.blocked_shapes import BlockedJson, NewRefusalJson
from vllmwall.api.change_shapes import CheckJson, ConfirmJson, DownJson, PeersAnswerJson
from vllmwall.api.connections_shapes import ConnectionsJson
from vllmwall.api.events_shapes import EventJson
from vllmwall.api.explain.answer import Explanation
from vllmwall.api.recognition import RecognitionOut
from vllmwall.api.shapes import PlanJson, StatusJson
from vllmwall.cli.failures import ErrorAnswer
from vllmwall.inspect.audit.types import AuditAnswer
from vllmwall.inspect.doctor import Examination
from vllmwall.inspect.learn.proposal import Proposal
from vllmwall.inspect.prove import Proof

SHAPES: Mapping[str, type] = {
    "audit": AuditAnswer,
    "bans": BansJson,
    "blocked": BlockedJson,
    "blocked-follow": NewRefusalJson,
    "check": CheckJson,
    "confirm": ConfirmJson,
    "connections": ConnectionsJson,
    "doctor": Examination,
    "down": DownJson,
    "error": ErrorAnswer,
    "events": EventJson,
    "explain": Explanation,
    "learn": Proposal,
    "peers": PeersAnswerJson,
    "plan": PlanJson,
    "prove": Proof,
    "recognize": RecognitionOut,
    "status": StatusJson,
}
"""By the command whose ``--json`` has that shape; ``error`` is that of every failure. `reload` and
`up` answer with a status, `ban` and `unban` with the bans, all of `peers` with the peers."""


def schema_of(command: str) -> str:
    """The JSON schema of a command's answer."""
    return json.dumps(TypeAdapter(SHAPES[command]).json_schema(), indent=2) + "\n"


def write(folder: Path) -> None:
    """One file a command. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in SHAPES:
        (folder / f"{command}.json").write_text(schema_of(command))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
