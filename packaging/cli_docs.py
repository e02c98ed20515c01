"""The command line's reference page and the JSON schemas of its answers: ``python
packaging/cli_docs.py``.

Writes docs/reference/cli.md from the commands' own help, and docs/reference/schemas with one schema
(draft 2020-12) a command; a test fails when they are out of date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from vllmwall.api.apis import OpenedApis
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
from vllmwall.cli import command
from vllmwall.cli.blocked import NewlyBlocked
from vllmwall.cli.config import ConfigCheck
from vllmwall.cli.exit_codes import ERRORS, Exit
from vllmwall.cli.failures import ErrorAnswer
from vllmwall.cli.setup import SetupAnswer
from vllmwall.inspect.audit.types import AuditAnswer
from vllmwall.inspect.doctor import Examination
from vllmwall.inspect.learn.proposal import Proposal
from vllmwall.inspect.prove import Proof

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
_WIDTH = 78  # of a help page on a terminal of 80 columns
MEANINGS = {
    Exit.OK: "done; `status`: every wall is active as wanted; `explain`: everything is open",
    Exit.FAILED: "the command failed; the message says why",
    Exit.BAD_CONFIG: "the command line or the configuration is invalid",
    Exit.NOT_RUNNING: "no daemon answers",
    Exit.DENIED: "permission denied; run the command as root",
    Exit.NOT_SAFE: "`status`, `up`, `reload`: a wall is not active as wanted, is unknown, or drops "
    "nothing; `doctor`: a check failed",
    Exit.FINDINGS: "`audit`: a finding has the severity of `--fail-on` or a higher one",
    Exit.DISPROVED: "`prove`: a probe had an unexpected or inconclusive result",
    Exit.CLOSED: "`explain`: a port that was asked about is closed",
    Exit.UNDECIDED: "`explain`: a limit decides, or the rules were not understood",
    Exit.OPEN: "`run`: the job cannot be guarded, so it was not started",
    Exit.NOT_EXECUTABLE: "`run`: the command cannot be executed",
    Exit.NO_SUCH_COMMAND: "`run`: the command does not exist; otherwise `run` ends with the "
    "status of the command",
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BASE = "urn:vllmwall:schema:"
SHAPES: Mapping[str, type] = {
    "api": OpenedApis,
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
    "setup": SetupAnswer,
    "status": Status,
}
"""By the command whose ``--json`` has that shape; ``error`` is that of every failure. `reload` and
`up` answer with a status, `ban` and `unban` with the bans, all of `peers` with the peers."""


class _Complete(GenerateJsonSchema):
    """Answers always hold all their fields, those with a default too."""

    def field_is_required(self, field: object, total: bool) -> bool:
        return True


def schema_of(name: str) -> str:
    """The JSON schema of a command's answer."""
    made = TypeAdapter(SHAPES[name]).json_schema(mode="serialization", schema_generator=_Complete)
    schema = {"$schema": _DIALECT, "$id": f"{_BASE}{name}", **made}
    return json.dumps(schema, indent=2) + "\n"


def reference_markdown() -> str:
    """docs/reference/cli.md."""
    settings = {**command.context_settings, "terminal_width": _WIDTH}
    lines = [
        "# Command line",
        "",
        "Generated from the commands themselves by `make docs`; do not edit.",
        "",
        *_sections(click.Context(command, info_name="vllmwall", **settings)),
        "## Exit statuses",
        "",
        "| status | meaning |",
        "|---|---|",
        *(f"| {status.value} | {meaning} |" for status, meaning in MEANINGS.items()),
        "",
        "## Errors under `--json`",
        "",
        "With `--json`, a command that fails prints one object in a line on stdout, as in",
        "[error.json](schemas/error.json): `code` for programs, `message` and `hint` for",
        "people. The exit status is the same as without `--json`.",
        "",
        "| code | status |",
        "|---|---|",
        *(f"| `{code}` | {status.value} |" for code, status in ERRORS.items()),
        "",
    ]
    return "\n".join(lines)


def _sections(context: click.Context) -> Iterator[str]:
    yield f"## `{context.command_path}`"
    yield ""
    yield "```"
    yield context.command.get_help(context)
    yield "```"
    yield ""
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            found = context.command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _sections(click.Context(found, context, info_name=name))


if __name__ == "__main__":
    (REFERENCE / "cli.md").write_text(reference_markdown())
    for name in SHAPES:
        (REFERENCE / "schemas" / f"{name}.json").write_text(schema_of(name))
