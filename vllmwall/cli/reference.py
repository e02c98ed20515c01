"""``python -m vllmwall.cli.reference``: the command line's reference page, from its own help."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vllmwall.cli import command
from vllmwall.cli.exit_codes import ERRORS, MEANINGS

_WIDTH = 78  # of a help page on a terminal of 80 columns


def reference_markdown() -> str:
    """The page docs/reference/cli.md."""
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
    click.echo(reference_markdown(), nl=False)
