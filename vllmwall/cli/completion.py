"""`vllmwall completion`: shell completion scripts, made by click."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from vllmwall.cli.command_line import Command
from vllmwall.cli.failures import fail


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For bash: vllmwall completion bash > /etc/bash_completion.d/vllmwall
    """
    found = get_completion_class(shell)
    if found is None:
        fail(f"click has no completion for {shell}")
    root = ctx.find_root().command
    click.echo(found(root, {}, "vllmwall", "_VLLMWALL_COMPLETE").source())
