"""The findings of lintian and rpmlint about the packages, and that two builds are one."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest

from tests.support.building import NEW, build_package, built_package
from tests.system.box import REPOSITORY

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("kind", "tool", "arguments"),
    [
        ("deb", "lintian", ["--fail-on=error,warning"]),
        ("rpm", "rpmlint", ["-c", str(REPOSITORY / "packaging/rpmlint.toml")]),
    ],
)
def test_nothing_that_matters_is_found(kind: str, tool: str, arguments: list[str]) -> None:
    """What does not matter is listed, with the reason."""
    if shutil.which(tool) is None:
        pytest.skip(f"THE .{kind} IS NOT CHECKED: {tool} is not installed (apt-get install {tool})")
    command = [tool, *arguments, str(built_package(kind, NEW))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if "E: " in line or "W: " in line]
    assert ([], 0) == (found, done.returncode), done.stdout + done.stderr


def test_two_builds_are_one() -> None:
    """Byte for byte, from the same commit."""
    first = hashlib.sha256(built_package("deb", NEW).read_bytes())
    build_package("deb", NEW)
    again = hashlib.sha256(built_package("deb", NEW).read_bytes())
    assert first.digest() == again.digest()


def test_the_bill_of_materials_names_all_that_is_vendored() -> None:
    """With versions and licences, in the order of the pins."""
    built_package("deb", NEW)
    (file,) = (REPOSITORY / "dist").glob(f"vllmwall_{NEW}_*.cdx.json")
    bill = json.loads(file.read_text())
    named = {
        f"{one['name'].lower().replace('_', '-')}=={one['version']}" for one in bill["components"]
    }
    pins = (REPOSITORY / "packaging/vendored.txt").read_text().splitlines()
    assert named == {line.split()[0] for line in pins if "==" in line}
    assert all(one["licenses"][0]["license"]["name"] for one in bill["components"])
