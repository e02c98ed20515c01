"""`vllmwall install-units`: units for who has us from pip or pipx."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.building import built_wheel

REPOSITORY = Path(__file__).parents[3]
RUN = [sys.executable, "-m", "vllmwall", "install-units", "--directory"]


def test_units_start_this_installation(tmp_path: Path) -> None:
    """Not /usr/bin/vllmwall, which only a package has; everything else is as packages have it."""
    done = subprocess.run([*RUN, str(tmp_path)], capture_output=True, text=True, check=False)
    if "a package is installed" in done.stderr:
        pytest.skip(done.stderr)
    assert 0 == done.returncode, done.stderr
    written = (tmp_path / "vllmwall.service").read_text()
    assert f"ExecStart={sys.executable} -m vllmwall daemon\n" in written
    assert f"ExecReload={sys.executable} -m vllmwall reload\n" in written
    original = (REPOSITORY / "systemd/vllmwall.service").read_text()
    assert written.count("\n") == original.count("\n")
    assert {"vllmwall.service", "vllmwall-boot.service", "vllmwall.slice"} == {
        one.name for one in tmp_path.iterdir()
    }
    subprocess.run([*RUN, str(tmp_path), "--remove"], check=True, capture_output=True)
    assert [] == list(tmp_path.iterdir())


def test_a_path_means_what_it_says(tmp_path: Path) -> None:
    """Systemd splits at blanks, and reads a meaning into % and $."""
    script = tmp_path / "a b%n" / "vllmwall"
    script.parent.mkdir()
    script.write_text("from vllmwall.__main__ import main\nmain()\n")
    command = [sys.executable, str(script), "install-units", "--directory", str(tmp_path / "to")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "a package is installed" in done.stderr:
        pytest.skip(done.stderr)
    written = (tmp_path / "to/vllmwall.service").read_text()
    assert f'ExecStart="{tmp_path}/a b%%n/vllmwall" daemon\n' in written


def test_a_wheel_has_the_units() -> None:
    """They lie outside the Python package in the repository."""
    with zipfile.ZipFile(built_wheel()) as archive:
        service = archive.read("vllmwall/cli/units/vllmwall.service")
    assert service == (REPOSITORY / "systemd/vllmwall.service").read_bytes()
