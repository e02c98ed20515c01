"""The command line. Each command is one thin function that draws an answer."""

from __future__ import annotations

from typing import ClassVar

import click

from vllmwall import __version__
from vllmwall.cli.command_line import LazyGroup


class _Vllmwall(LazyGroup):
    """The program's commands."""

    titles: ClassVar = {
        "Look": ("status", "connections", "blocked", "events", "bans"),
        "Explain": (
            "explain",
            "plan",
            "doctor",
            "audit",
            "prove",
            "check",
            "config",
            "snapshot",
            "recognize",
        ),
        "Change": (
            "setup",
            "peers",
            "adopted",
            "api",
            "learn",
            "ban",
            "unban",
            "reload",
            "up",
            "down",
            "confirm",
        ),
        "Run": ("run", "daemon", "install-units", "completion"),
    }
    modules: ClassVar = {
        "ban": "bans",
        "unban": "bans",
        "check": "config",
        "recognize": "snapshot",
        "reload": "service",
        "up": "service",
        "down": "service",
        "daemon": "service",
        "rollback": "confirm",
    }


@click.group(cls=_Vllmwall, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="vllmwall")
def command() -> None:
    """Guard the ports of vLLM, torch, Ray, SGLang and LMDeploy on this node.

    The API stays public; every other port of a workload is open to trusted peers only.
    """
