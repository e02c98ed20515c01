"""`vllmwall run`: a job in a guarded scope of its own."""

from __future__ import annotations

import click

from vllmwall.cli.command_line import Command, common
from vllmwall.cli.failures import fail
from vllmwall.cli.jobs import NAME, NotGuardedError, become, enter_guarded, program
from vllmwall.cli.terminal import printable

_ANYWAY = "To start it without a guard: vllmwall run --anyway"


def _named(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not NAME.fullmatch(value):
        raise click.BadParameter("only letters, digits and _ . : - are allowed, at most 100")
    return value


@click.command(cls=Command, context_settings={"allow_interspersed_args": False})
@click.option("--name", default="", callback=_named, help="Name of the systemd scope: run-NAME.")
@click.option("--anyway", is_flag=True, help="Start COMMAND even if it cannot be guarded.")
@click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGS]..."
)
def run(name: str, anyway: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND with its ports closed before they exist.

    The job gets a systemd scope below vllmwall.slice (a plain cgroup where systemd does not run)
    and the daemon guards it. Then COMMAND replaces this process, so that its pid, terminal, signals
    and exit status are its own. If the job cannot be guarded, it is not started.
    """
    try:
        file = program(command[0])
        try:
            enter_guarded(name, common().socket)
        except NotGuardedError as error:
            _report(error, anyway=anyway)
        become(file, command)
    except FileNotFoundError as error:
        fail(str(error), "no-such-command")
    except OSError as error:
        fail(f"{command[0]} cannot be run: {error}", "not-executable")


def _report(error: NotGuardedError, *, anyway: bool) -> None:
    message, hint = str(printable(error.message)), str(printable(error.hint))
    if not anyway:
        reason = f"the job was not started, because it cannot be guarded: {message}"
        fail(reason, "not-guarded", f"{hint} {_ANYWAY}".lstrip())
    click.echo(f"vllmwall: warning: untrusted sources can reach the job: {message}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)
