"""Where the program begins. The daemon has its command line parsed, and its configuration read, in
another process: what does that is no use to it later and would stay in memory for its life."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from vllmwall.config.reading import Read
    from vllmwall.engine.options import Options

_CODE = "from vllmwall import __main__ as entry; entry.tell(sys.argv[1:])"


def main() -> None:
    """The console script."""
    if sys.argv[1:2] == ["daemon"]:
        _daemon()
    from vllmwall.cli import command

    command(prog_name="vllmwall")


def _daemon() -> None:
    """Run the daemon and end with it; return if there is more to say to its command line."""
    from vllmwall.linux.helper_process import Apart, OtherVersionError

    process = Apart(_CODE, *sys.argv[1:])
    from vllmwall.config.reading import usable  # while it reads
    from vllmwall.daemon.loop import run

    with suppress(OtherVersionError):
        if told := cast("tuple[Options, Read] | None", process.answer()):
            options, answer = told
            sys.exit(run(options, partial(usable, answer)))


def tell(arguments: list[str]) -> None:
    """What the other process does: say the daemon's options and settings, or nothing, where the
    command line is wrong or asks for help: then who asked parses it, and says so."""
    from click import ClickException

    from vllmwall.cli import command
    from vllmwall.cli.command_line import CommandLine
    from vllmwall.config.reading import read
    from vllmwall.linux.helper_process import say

    told: Options | None = None

    def begin(options: Options) -> None:
        nonlocal told
        told = options

    with redirect_stdout(StringIO()), suppress(ClickException):
        command(arguments, standalone_mode=False, obj=CommandLine(begin=begin))
    if told is None:
        sys.exit(1)
    say((told, read(told.config)))


if __name__ == "__main__":
    main()
