"""One figure of the benchmark, its baseline and its goal. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Figure = Literal["value", "ratio"]


@dataclass(frozen=True)
class Goal:
    """The limit of a figure: ``of`` selects the value or its ratio."""

    word: Literal["≤", "≥"]
    limit: float
    of: Figure = "value"

    def __str__(self) -> str:
        subject = "ratio " if self.of == "ratio" else ""
        return f"{subject}{self.word} {number(self.limit)}"

    def is_met(self, figure: float) -> bool:
        """Whether a measured figure meets the goal."""
        return figure <= self.limit if self.word == "≤" else figure >= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``baseline`` is the figure of ``beside``, measured in the same run and in the same unit.
    ``ratio`` is value divided by baseline unless the part measured it pairwise, which is more
    exact. A value of None was not measured, and ``note`` has the reason.
    """

    part: str
    name: str
    value: float | None
    unit: str
    beside: str = ""
    baseline: float | None = None
    paired_ratio: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The value divided by the baseline; None without a baseline, or if it is 0."""
        if self.paired_ratio is not None:
            return self.paired_ratio
        if self.value is None or not self.baseline:
            return None
        return self.value / self.baseline

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None: no goal. A goal without a figure is missed."""
        if self.goal is None:
            return None
        figure = self.value if self.goal.of == "value" else self.ratio
        return figure is not None and self.goal.is_met(figure)

    def as_json(self) -> dict[str, object]:
        """The object in bench.json."""
        return {
            "name": f"{self.part}: {self.name}",
            "value": self.value,
            "unit": self.unit,
            "baseline": self.baseline,
            "ratio": self.ratio,
            "beside": self.beside,
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
            "note": self.note,
        }


def to_json(rows: Iterable[Row]) -> str:
    """All rows as a JSON list, one object per line."""
    objects = (json.dumps(row.as_json(), ensure_ascii=False) for row in rows)
    return "[\n" + ",\n".join(objects) + "\n]\n"


def percentile(figures: Sequence[float], percent: float) -> float:
    """The smallest figure that ``percent`` of all figures do not exceed (nearest rank).

    Raises ValueError when there are none.
    """
    if not figures:
        raise ValueError("no figures")
    rank = math.ceil(len(figures) * percent / 100)
    return sorted(figures)[max(rank, 1) - 1]


def number(figure: float) -> str:
    """Three significant digits, with thousands separators."""
    if figure and abs(figure) < 100:
        text = f"{figure:.3g}"
        return text if "e" not in text else f"{figure:.6f}".rstrip("0")
    return f"{figure:,.0f}"
