"""``install-units``: systemd's units for who installed us with pip or pipx, not from a package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.terminal import console, fail, print_json

_DESTINATION = "/etc/systemd/system"
_PACKAGED = Path("/usr/lib/systemd/system/vllmwall.service")
_SOURCE = Path(__file__).parent / "units"
_UNITS = ("vllmwall.service", "vllmwall-boot.service", "vllmwall.slice")
# What the daemon wrote; what people wrote, in /etc/vllmwall, is theirs.
_WRITTEN = ("/run/vllmwall", "/var/lib/vllmwall")
_TRACES = Path("/sys/kernel/tracing/instances/vllmwall")
_SLICE = Path("/sys/fs/cgroup/vllmwall.slice/cgroup.events")


@click.command("install-units")
@click.option("--directory", default=_DESTINATION, show_default=True, help="Where units go.")
@click.option("--enable", is_flag=True, help="Enable and start them, too.")
@click.option("--remove", is_flag=True, help="Remove them, the wall, and all but /etc/vllmwall.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def install_units(directory: str, enable: bool, remove: bool, as_json: bool) -> None:
    """Write systemd's units for this installation (pip, pipx); packages bring their own."""
    folder = Path(directory)
    if _PACKAGED.exists():
        fail(f"{_PACKAGED} is there: a package is installed, and that one's units are used")
    try:
        if remove:
            written = taken_away(folder)
        else:
            written = written_to(folder, program())
            if enable:
                _systemctl("daemon-reload")
                _systemctl("enable", "--now", *_UNITS)
    except PermissionError as error:
        fail(f"{error}: only root may do this", Exit.DENIED)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(str(error))
    if as_json:
        print_json({"version": 1, "files": [str(one) for one in written], "removed": remove})
        return
    for one in written:
        console().print(f"{'Removed' if remove else 'Written'}: {one}", highlight=False)
    if not (remove or enable):
        units = " ".join(_UNITS)
        console().print(f"Next: systemctl daemon-reload && systemctl enable --now {units}")


def written_to(folder: Path, command: str) -> list[Path]:
    """Write the units, with ``command`` in place of a package's. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _UNITS:
        text = (_SOURCE / name).read_text()
        (folder / name).write_text(re.sub(r"/usr/bin/vllmwall\b", lambda _: command, text))
    return [folder / name for name in _UNITS]


def taken_away(folder: Path) -> list[Path]:
    """Stop what runs, take the walls down, remove the files. Raises OSError, CalledProcessError."""
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
    """Take away what the daemon wrote, and the slice where no job is in it that would end."""
    for folder in _WRITTEN:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _TRACES.rmdir()
    with suppress(OSError):
        if "populated 0" in _SLICE.read_text():
            _systemctl("stop", "vllmwall.slice")


def program() -> str:
    """How a unit starts us, as systemd.service(5) reads it."""
    return " ".join(map(_quoted, _command()))


def _command() -> list[str]:
    """The script that runs now, else the module on this interpreter."""
    script = Path(sys.argv[0])
    if script.name == "vllmwall" and script.is_file():
        return [str(script.resolve())]
    return [sys.executable, "-m", "vllmwall"]


def _quoted(word: str) -> str:
    """A home can have a blank in its name; % and $ mean something to systemd."""
    plain = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if " " in plain else plain


def _systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", "--quiet", *arguments], check=True, timeout=120)
