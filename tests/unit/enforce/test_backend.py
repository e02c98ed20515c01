"""The difference between two walls, and errors for people."""

from __future__ import annotations

from ipaddress import ip_network

from vllmwall.enforce.backend import AlteredWall, Changes, EnforceError, changes
from vllmwall.model import Mode, Proto, Wall, WallEntry

OLD = WallEntry(4, Proto.TCP, 1, ("peers",))
KEPT = WallEntry(4, Proto.TCP, 2, ("peers",))
NEW = WallEntry(4, Proto.TCP, 1, ("node",))
A, B, C = (ip_network(f"10.0.{n}.0/24") for n in range(3))
STANDING = Wall(7, frozenset({OLD, KEPT}), {"peers": (A, B)}, Mode.AUDIT)


def test_the_difference_holds_what_comes_and_what_goes() -> None:
    """Nothing that stays is in it."""
    wanted = Wall(7, frozenset({NEW, KEPT}), {"peers": (B, C), "monitoring": (A,)})
    assert changes(STANDING, wanted) == Changes(
        removed=frozenset({OLD}),
        added=frozenset({NEW}),
        networks_removed={"peers": (A,)},
        networks_added={"peers": (C,), "monitoring": (A,)},
        mode_before=Mode.AUDIT,
        mode=Mode.ENFORCE,
    )


def test_from_nothing_everything_comes() -> None:
    """A namespace without a wall gets all of it."""
    found = changes(None, STANDING)
    assert (found.added, found.removed) == (STANDING.entries, frozenset())
    assert found.networks_added == STANDING.networks
    assert found.mode_before is None
    assert not found.is_empty


def test_no_difference_is_empty() -> None:
    """A wall differs from itself in nothing; a mode alone is a difference."""
    assert changes(STANDING, STANDING).is_empty
    assert not changes(STANDING, Wall(7, STANDING.entries, STANDING.networks)).is_empty


def test_an_altered_wall_equals_no_wall() -> None:
    """However much of it is as wanted."""
    altered = AlteredWall(7, STANDING.entries, STANDING.networks, Mode.AUDIT)
    assert altered != STANDING
    assert STANDING != altered


def test_an_error_shows_the_lines_around_the_one_that_is_named() -> None:
    """With their numbers; the whole script is there too."""
    script = "\n".join(f"command {n}" for n in range(1, 10))
    error = EnforceError("line 5: Error: no", script)
    assert str(error).splitlines() == [
        "line 5: Error: no",
        "The script:",
        *(f"    {n}  command {n}" for n in range(3, 8)),
    ]
    assert error.script.count("\n") == 8


def test_an_error_without_a_line_is_its_words() -> None:
    """Some refusals name no line."""
    assert str(EnforceError("Error: no\n", "a\nb")) == "Error: no"
