"""Arguments and options that several commands share."""

from __future__ import annotations

import re

import click

from vllmwall.linux.places import CONFIGURATION

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

CONFIG = str(CONFIGURATION)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """``90s``, ``30m``, ``1h``, ``2d``, ``1h30m``: as seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds. Fails with the allowed forms."""
        text = str(value)
        parts = re.findall(r"(\d+)([smhdw])", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is not a duration; write 90s, 30m, 1h, 2d or 1h30m", param, ctx)
        return float(sum(int(number) * _UNITS[unit] for number, unit in parts))


cidrs_argument = click.argument("cidrs", nargs=-1, required=True)
config_option = click.option(
    "--config", default=CONFIG, show_default=True, help="Configuration file."
)
only_option = click.option(
    "--only-namespace",
    multiple=True,
    metavar="NAME",
    help="Only this network namespace (a name under /run/netns or a path); repeatable.",
)
confirm_option = click.option(
    "--confirm",
    type=Duration(),
    help="Undo the change after this time unless `vllmwall confirm` is run, e.g. 60s.",
)
force_option = click.option(
    "--force", is_flag=True, help="Apply even if this would cut your SSH connection."
)
