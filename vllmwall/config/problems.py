"""The problems of a configuration, in words for the person who has to correct it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
_LONGEST_VALUE = 80


@dataclass(frozen=True, order=True)
class Problem:
    """One error to correct. ``line`` counts from 1; None: unknown.

    ``key`` is written ``peers.cidrs[1]`` (the first item of a list is ``[0]``); "" means
    the whole file.
    """

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(Exception):
    """The configuration is invalid. ``problems`` holds all errors."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=_reading_order))
        super().__init__("\n".join(map(str, self.problems)))


def _reading_order(problem: Problem) -> tuple[str, int, str, str]:
    return problem.file, problem.line or 0, problem.key, problem.message


def key_text(path: KeyPath) -> str:
    """``("workload", 0, "match")`` as ``workload[0].match``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: object) -> str:
    """A value as an error message shows it: as in TOML, and shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe if len(safe) <= _LONGEST_VALUE else safe[: _LONGEST_VALUE - 1] + "…"
