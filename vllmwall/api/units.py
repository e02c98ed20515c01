"""Numbers as people read them."""

from __future__ import annotations

_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_SECONDS = (("d", 86400), ("h", 3600), ("min", 60))


def how_much(number: int) -> str:
    """Bytes: ``812 B``, ``20 kB``, ``1.4 GB``."""
    for unit, size in _BYTES:
        if number >= size:
            digits = ".3g" if number < 999.5 * size else ".0f"
            return f"{number / size:{digits}} {unit}"
    return f"{number} B"


def how_long(seconds: float) -> str:
    """A time: ``4 s``, ``12 min``, ``3 h``, ``2 d``."""
    for unit, size in _SECONDS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def count(number: int, noun: str) -> str:
    """``1 packet``, ``2 packets``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
