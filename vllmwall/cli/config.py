"""`vllmwall check` and `vllmwall config`: the configuration as it is written, no daemon needed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from vllmwall.cli.command_line import Command, Group
from vllmwall.cli.drawing import Console
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.parameters import CONFIG
from vllmwall.cli.terminal import print_answer, print_json, problem_line
from vllmwall.engine.facts import ConfigProblem


@dataclass(frozen=True, kw_only=True)
class ConfigCheck:
    """The answer to `check`: the files that were read, or what is wrong in them."""

    version: int = 1
    ok: bool
    files: tuple[str, ...]
    problems: tuple[ConfigProblem, ...]


@click.command(cls=Command)
@click.argument("path", default=CONFIG)
def check(path: str) -> None:
    """Validate the configuration without applying it.

    PATH is the main file; the files in conf.d beside it are included. Exits with 2 when the
    configuration is invalid; every problem is listed.
    """
    from vllmwall.config import ConfigError, load

    files: tuple[str, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()
    try:
        files = tuple(map(str, load(Path(path)).files))
    except ConfigError as error:
        problems = tuple(
            ConfigProblem(str(one.file), one.key, one.message, one.line) for one in error.problems
        )
    answer = ConfigCheck(ok=not problems, files=files, problems=problems)
    print_answer(answer, lambda out, found: _draw(out, found, path))
    sys.exit(Exit.OK if answer.ok else Exit.BAD_CONFIG)


def _draw(out: Console, answer: ConfigCheck, path: str) -> None:
    for one in answer.problems:
        out.print(problem_line(one), style="red")
    if answer.ok:
        files = ", ".join(answer.files)
        out.print(f"Valid: {files}" if files else f"Valid: {path} does not exist; defaults apply")


@click.group(cls=Group)
def config() -> None:
    """Print the JSON schema of vllmwall.toml."""


@config.command()
def schema() -> None:
    """Print the JSON schema of vllmwall.toml, for editors."""
    from vllmwall.config.schema import json_schema

    print_json(json_schema())
