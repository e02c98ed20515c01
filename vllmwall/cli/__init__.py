"""The command line. Each command is one thin function in a file of its own group.

Commands are imported when they are used, so that `vllmwall status` pays for nothing else. click
is used and not typer: it takes half the time to import.
"""

from __future__ import annotations

from importlib import import_module

import click

from vllmwall import __version__
from vllmwall.api.client import DEFAULT_SOCKET

_COMMANDS = {
    "status": "vllmwall.cli.status",
    "plan": "vllmwall.cli.plan",
    "explain": "vllmwall.cli.explain",
    "audit": "vllmwall.cli.audit",
    "peers": "vllmwall.cli.peers",
    "blocked": "vllmwall.cli.blocked",
    "connections": "vllmwall.cli.connections",
    "learn": "vllmwall.cli.learn",
    "events": "vllmwall.cli.events",
    "ban": "vllmwall.cli.bans",
    "unban": "vllmwall.cli.bans",
    "bans": "vllmwall.cli.bans",
    "check": "vllmwall.cli.service",
    "reload": "vllmwall.cli.service",
    "up": "vllmwall.cli.service",
    "down": "vllmwall.cli.service",
    "confirm": "vllmwall.cli.confirm",
    "rollback": "vllmwall.cli.confirm",
    "doctor": "vllmwall.cli.doctor",
    "prove": "vllmwall.cli.prove",
    "run": "vllmwall.cli.run",
    "daemon": "vllmwall.cli.service",
    "install-units": "vllmwall.cli.install_units",
    "snapshot": "vllmwall.cli.snapshot",
    "recognize": "vllmwall.cli.snapshot",
    "completion": "vllmwall.cli.completion",
}


class _LazyGroup(click.Group):
    """Finds a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    envvar="VLLMWALL_SOCKET",
    default=str(DEFAULT_SOCKET),
    show_default=True,
    help="The daemon's control socket.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours; auto: only on a terminal, and not when NO_COLOR is set.",
)
@click.version_option(__version__, prog_name="vllmwall")
def command(socket: str, color: str) -> None:
    """Guard the ports of vLLM, torch, Ray, SGLang and LMDeploy on this node.

    The API stays public; everything else is for your peers alone.
    """
