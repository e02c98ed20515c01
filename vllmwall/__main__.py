"""The program's start.

The daemon's command line is parsed, and its configuration read, in another process: what that
imports is of no use to the daemon later and would stay in its memory.
"""

from __future__ import annotations

import gc
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmwall.engine.options import Options

_CODE = "import sys\nfrom vllmwall import __main__ as entry\nentry.answer_with(sys.argv[1:])"


def main() -> None:
    """The console script."""
    if sys.argv[1:2] == ["daemon"]:
        _daemon()
    gc.set_threshold(50_000)  # collections during imports are a tenth of the time of `status`
    from vllmwall.cli import command

    try:
        command(prog_name="vllmwall")
    finally:
        gc.freeze()  # no collection at the end, where all memory goes anyway


def _daemon() -> None:
    """Run the daemon and end with it. Return where the command line needs an answer in words, or
    the other process fails: then this one parses it."""
    from vllmwall.linux.helper_process import HelperError, HelperProcess
    from vllmwall.linux.wire import Fit, decode

    try:
        process = HelperProcess(_CODE, *sys.argv[1:])
        from vllmwall.daemon.loop import run  # while it reads
        from vllmwall.engine.options import Start

        start = decode(Start, process.wait(), Fit.WHOLE)
    except (HelperError, ValueError):
        return
    sys.exit(run(start.options, start.reading.usable))


def answer_with(arguments: list[str]) -> None:
    """The other process: answer with the daemon's options and settings; end with status 1 where
    the command line is wrong or asks for help."""
    from click import ClickException

    from vllmwall.cli import command
    from vllmwall.cli.command_line import CommandLine
    from vllmwall.config.reading import read
    from vllmwall.engine.options import Start
    from vllmwall.linux.helper_process import answer
    from vllmwall.linux.wire import encode

    found: Options | None = None

    def begin(options: Options) -> None:
        nonlocal found
        found = options

    with redirect_stdout(StringIO()), suppress(ClickException):
        command(arguments, standalone_mode=False, obj=CommandLine(begin=begin))
    if found is None:
        sys.exit(1)
    answer(encode(Start(found, read(found.config))))


if __name__ == "__main__":
    main()
