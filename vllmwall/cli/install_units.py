"""`vllmwall install-units`: systemd units for an installation by pip or pipx."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Console
from vllmwall.cli.failures import fail
from vllmwall.cli.terminal import print_answer
from vllmwall.linux.places import RUNTIME_DIRECTORY, STATE_DIRECTORY

_DESTINATION = "/etc/systemd/system"
_PACKAGED = Path("/usr/lib/systemd/system/vllmwall.service")
_SOURCE = Path(__file__).parent / "units"
_UNITS = ("vllmwall.service", "vllmwall-boot.service", "vllmwall.slice")
# Written by the daemon; /etc/vllmwall is written by people and stays.
_WRITTEN = (RUNTIME_DIRECTORY, STATE_DIRECTORY)
_TRACES = Path("/sys/kernel/tracing/instances/vllmwall")
_SLICE = Path("/sys/fs/cgroup/vllmwall.slice/cgroup.events")


@click.command("install-units", cls=Command)
@click.option("--directory", default=_DESTINATION, show_default=True, help="Folder of the units.")
@click.option("--enable", is_flag=True, help="Also enable and start the units.")
@click.option("--remove", is_flag=True, help="Remove units, walls and state. /etc/vllmwall stays.")
def install_units(directory: str, enable: bool, remove: bool) -> None:
    """Install systemd units for a pip or pipx installation.

    The packages (deb, rpm) have units of their own.
    """
    folder = Path(directory)
    if _PACKAGED.exists():
        fail(f"a package is installed: its units are in {_PACKAGED.parent}")
    try:
        if remove:
            written = removed_from(folder)
        else:
            written = written_to(folder, program())
            if enable:
                _systemctl("daemon-reload")
                _systemctl("enable", "--now", *_UNITS)
    except PermissionError as error:
        fail(str(error), "denied", "Run this as root.")
    except (OSError, subprocess.CalledProcessError) as error:
        fail(str(error))
    answer = {"version": 1, "files": [str(one) for one in written], "removed": remove}
    print_answer(answer, partial(_draw, files=written, removed=remove, enabled=enable))


def _draw(out: Console, _: object, *, files: list[Path], removed: bool, enabled: bool) -> None:
    for one in files:
        out.print(f"{'Removed' if removed else 'Written'}: {one}")
    if not (removed or enabled):
        units = " ".join(_UNITS)
        out.print(f"Next: systemctl daemon-reload && systemctl enable --now {units}")


def written_to(folder: Path, command: str) -> list[Path]:
    """Write the units, with ``command`` in place of a package's. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _UNITS:
        text = (_SOURCE / name).read_text()
        (folder / name).write_text(re.sub(r"/usr/bin/vllmwall\b", lambda _: command, text))
    return [folder / name for name in _UNITS]


def removed_from(folder: Path) -> list[Path]:
    """Stop the service, remove walls and files. Raises OSError, CalledProcessError."""
    found = [folder / name for name in _UNITS if (folder / name).exists()]
    is_real = bool(found) and str(folder) == _DESTINATION
    if is_real:
        _systemctl("disable", "--now", *(one.name for one in found if one.suffix == ".service"))
        _systemctl("disable", *(one.name for one in found if one.suffix == ".slice"))
        subprocess.run([*_command(), "down"], check=True, timeout=60)
        _forget()
    for one in found:
        one.unlink()
    if is_real:
        _systemctl("daemon-reload")
    return found


def _forget() -> None:
    """Remove what the daemon wrote, and the slice if it has no job, which would end with it."""
    for folder in _WRITTEN:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _TRACES.rmdir()
    with suppress(OSError):
        if "populated 0" in _SLICE.read_text():
            _systemctl("stop", "vllmwall.slice")


def program() -> str:
    """The command of a unit that starts this installation, as systemd.service(5) reads it."""
    return " ".join(map(_quoted, _command()))


def _command() -> list[str]:
    """The script that runs now, else the module on this interpreter."""
    script = Path(sys.argv[0])
    if script.name == "vllmwall" and script.is_file():
        return [str(script.resolve())]
    return [sys.executable, "-m", "vllmwall"]


def _quoted(word: str) -> str:
    """With blanks quoted and systemd's own % and $ escaped."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if " " in plain else plain


def _systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", "--quiet", *arguments], check=True, timeout=120)
