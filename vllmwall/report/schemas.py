"""The published shapes of every answer: ``python -m vllmwall.report.schemas DIRECTORY``.

Writes one JSON schema (draft 2020-12) a command, as docs/reference/schemas has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from vllmwall.report.audit_shapes import AuditJson
from vllmwall.report.bans_shapes import BansJson
from vllmwall.report.blocked_shapes import BlockedJson, NewRefusalJson
from vllmwall.report.change_shapes import CheckJson, ConfirmJson, DownJson, PeersAnswerJson
from vllmwall.report.connections_shapes import ConnectionEventJson, ConnectionsJson
from vllmwall.report.doctor_shapes import DoctorJson
from vllmwall.report.events_shapes import EventJson
from vllmwall.report.explain_shapes import ExplainJson
from vllmwall.report.learn_shapes import LearnJson
from vllmwall.report.prove_shapes import ProveJson
from vllmwall.report.recognition import RecognitionOut
from vllmwall.report.shapes import PlanJson, StatusJson
from vllmwall.report.watch_shapes import WatchJson

SHAPES: Mapping[str, type] = {
    "audit": AuditJson,
    "bans": BansJson,
    "blocked": BlockedJson,
    "blocked-follow": NewRefusalJson,
    "check": CheckJson,
    "confirm": ConfirmJson,
    "connections": ConnectionsJson,
    "connections-follow": ConnectionEventJson,
    "doctor": DoctorJson,
    "down": DownJson,
    "events": EventJson,
    "explain": ExplainJson,
    "learn": LearnJson,
    "peers": PeersAnswerJson,
    "plan": PlanJson,
    "prove": ProveJson,
    "recognize": RecognitionOut,
    "status": StatusJson,
    "watch": WatchJson,
}
"""By the command whose ``--json`` has that shape. `reload` and `up` answer with a status, `ban` and
`unban` with the bans, all of `peers` with the peers."""


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
