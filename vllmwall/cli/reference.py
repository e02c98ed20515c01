"""``python -m vllmwall.cli.reference``: the command line's reference page, from its own help."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vllmwall.cli import command
from vllmwall.cli.exit_codes import MEANINGS


def reference_markdown() -> str:
    """The page docs/reference/cli.md."""
    lines = [
        "# Command line",
        "",
        "Generated from the commands themselves by `make docs`; do not edit.",
        "",
        *_sections(click.Context(command, info_name="vllmwall")),
        "## Exit statuses",
        "",
        "| status | meaning |",
        "|---|---|",
        *(f"| {status.value} | {meaning} |" for status, meaning in MEANINGS.items()),
        "",
    ]
    return "\n".join(lines)


def _sections(context: click.Context) -> Iterator[str]:
    yield f"## `{context.command_path}`"
    yield ""
    yield "```"
    context.max_content_width = 90
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
