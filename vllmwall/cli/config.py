"""`vllmwall check` and `vllmwall config`: the configuration as it is written, no daemon needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from vllmwall.cli.command_line import Command, Group
from vllmwall.cli.drawing import Console
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.parameters import CONFIG
from vllmwall.cli.terminal import print_answer, print_json, problem_line
from vllmwall.engine.facts import ConfigProblem
from vllmwall.model import Network


@dataclass(frozen=True, kw_only=True)
class ConfigCheck:
    """The answer to `check`: the files that were read, or what is wrong in them. ``warnings`` are
    about this node: the configuration is valid, and may not be wise."""

    version: int = 1
    ok: bool
    files: tuple[str, ...]
    problems: tuple[ConfigProblem, ...]
    warnings: tuple[str, ...] = ()


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
    warnings: tuple[str, ...] = ()
    try:
        loaded = load(Path(path))
        files = tuple(map(str, loaded.files))
        warnings = tuple(_warnings(loaded.peers.cidrs))
    except ConfigError as error:
        problems = tuple(
            ConfigProblem(str(one.file), one.key, one.message, one.line) for one in error.problems
        )
    answer = ConfigCheck(ok=not problems, files=files, problems=problems, warnings=warnings)
    print_answer(answer, lambda out, found: _draw(out, found, path))
    sys.exit(Exit.OK if answer.ok else Exit.BAD_CONFIG)


def _warnings(peers: tuple[Network, ...]) -> Iterator[str]:
    from vllmwall.observe.addresses import bridge_addresses_here, shared_by_nat

    with suppress(OSError):
        for network, why in shared_by_nat(peers, bridge_addresses_here()):
            yield f"peers.cidrs: {network} is a risk: {why}. Name networks without that address."


def _draw(out: Console, answer: ConfigCheck, path: str) -> None:
    for one in answer.problems:
        out.print(problem_line(one), style="red")
    for warning in answer.warnings:
        out.print(f"! {warning}", style="yellow")
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
