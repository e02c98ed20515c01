"""`vllmwall run`: a job in a guarded scope of its own."""

from __future__ import annotations

from pathlib import Path

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.jobs import NAME, NotGuardedError, become, enter_guarded, program
from vllmwall.cli.terminal import fail, printable

_ANYWAY = "To start it all the same: vllmwall run --anyway"


def _named(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not NAME.fullmatch(value):
        raise click.BadParameter("letters, digits and _ . : - only, at most 100 of them")
    return value


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--name", default="", callback=_named, help="What systemd calls it: run-NAME.scope.")
@click.option("--anyway", is_flag=True, help="Start it also where it cannot be guarded.")
@click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGS]..."
)
def run(name: str, anyway: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND with its ports closed to strangers before they exist.

    The job gets a systemd scope below vllmwall.slice (a plain cgroup where there is no systemd)
    and the daemon guards it; then COMMAND takes the place of this process, so that its pid,
    terminal, signals and exit status are its own. Unless it can be guarded, it is not started.
    """
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        file = program(command[0])
        try:
            enter_guarded(name, socket_path)
        except NotGuardedError as error:
            _unguarded(str(printable(str(error))), anyway=anyway)
        become(file, command)
    except FileNotFoundError as error:
        fail(str(error), Exit.NO_SUCH_COMMAND)
    except OSError as error:
        fail(f"{command[0]} cannot be run: {error}", Exit.NOT_EXECUTABLE)


def _unguarded(why: str, *, anyway: bool) -> None:
    if not anyway:
        fail(f"the job was not started, strangers could reach it: {why}. {_ANYWAY}", Exit.OPEN)
    click.echo(f"vllmwall: warning: strangers can reach the job: {why}", err=True)
