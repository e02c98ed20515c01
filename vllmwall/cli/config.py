"""`vllmwall check` and `vllmwall config`: the configuration as it is written, no daemon needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllmwall.api.change_shapes import CHANGES_VERSION
from vllmwall.cli.command_line import Command, Group
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.parameters import CONFIG
from vllmwall.cli.terminal import print_answer, print_json, problem_line

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.change_shapes import CheckJson
    from vllmwall.api.shapes import ConfigProblemJson


@click.command(cls=Command)
@click.argument("path", default=CONFIG)
def check(path: str) -> None:
    """Validate the configuration without applying it.

    PATH is the main file; the files in conf.d beside it are included. Exits with 2 when the
    configuration is invalid; every problem is listed.
    """
    from vllmwall.config import ConfigError, load

    files: list[str] = []
    problems: list[ConfigProblemJson] = []
    try:
        files = [str(file) for file in load(Path(path)).files]
    except ConfigError as error:
        problems = [
            {"file": one.file, "line": one.line, "key": one.key, "message": one.message}
            for one in error.problems
        ]
    answer: CheckJson = {
        "version": CHANGES_VERSION,
        "ok": not problems,
        "files": files,
        "problems": problems,
    }
    print_answer(answer, lambda out, found: _draw(out, found, path))
    sys.exit(Exit.OK if answer["ok"] else Exit.BAD_CONFIG)


def _draw(out: Console, answer: CheckJson, path: str) -> None:
    for one in answer["problems"]:
        out.print(problem_line(one), style="red")
    if answer["ok"]:
        files = ", ".join(answer["files"])
        out.print(f"Valid: {files}" if files else f"Valid: {path} does not exist; defaults apply")


@click.group(cls=Group)
def config() -> None:
    """Print the JSON schema of vllmwall.toml."""


@config.command()
def schema() -> None:
    """Print the JSON schema of vllmwall.toml, for editors."""
    from vllmwall.config.schema import json_schema

    print_json(json_schema())
