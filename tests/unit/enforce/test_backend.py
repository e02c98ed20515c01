"""The difference between two walls, and errors for people."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from vllmwall.enforce.backend import AlteredWall, EnforceError, less
from vllmwall.model import Guard, Mode, Proto, Wall, WallEntry

OLD = WallEntry(4, Proto.TCP, 1, ("peers",))
KEPT = WallEntry(4, Proto.TCP, 2, ("peers",))
NEW = WallEntry(4, Proto.TCP, 1, ("node",))
A, B, C = (ip_network(f"10.0.{n}.0/24") for n in range(3))
STANDING = Wall(7, frozenset({OLD, KEPT}), {"peers": (A, B)}, Mode.AUDIT)


def test_the_difference_holds_what_comes_and_what_goes() -> None:
    """Nothing that stays is in it, except the names of networks."""
    wanted = Wall(7, frozenset({NEW, KEPT}), {"peers": (B, C), "monitoring": (A,)}, banned=(A, C))
    assert less(wanted, STANDING) == Wall(
        7, frozenset({NEW}), {"peers": (C,), "monitoring": (A,)}, banned=(A, C)
    )
    assert less(STANDING, wanted) == Wall(7, frozenset({OLD}), {"peers": (A,)}, Mode.AUDIT)


def test_a_wall_lacks_nothing_that_it_has() -> None:
    """The difference of a wall and itself has no elements."""
    whole = replace(STANDING, guards=frozenset({Guard(1, 2)}), answering=True, banned=(A,))
    assert less(whole, whole) == Wall(7, frozenset(), {"peers": ()}, Mode.AUDIT)
    assert less(whole, STANDING) == Wall(
        7,
        frozenset(),
        {"peers": ()},
        Mode.AUDIT,
        frozenset({Guard(1, 2)}),
        answering=True,
        banned=(A,),
    )


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
