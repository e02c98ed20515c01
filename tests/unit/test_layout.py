"""The layout that a newcomer finds: few rooms, few loose modules, and files that fit a head."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "vllmwall"
MOST_LINES, MOST_ROOMS, MOST_LOOSE = 400, 12, 4


def test_no_file_is_longer_than_400_lines() -> None:
    """What grows beyond that is two things."""
    lengths = {
        str(path.relative_to(PACKAGE)): path.read_text().count("\n")
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_hall_is_small() -> None:
    """A newcomer reads it at one glance. The room `gate` is not counted: it comes later."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"gate"}
    loose = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert (len(rooms) <= MOST_ROOMS, len(loose) <= MOST_LOOSE) == (True, True)
