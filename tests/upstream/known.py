"""What our tables know: the flags that recognition, redaction and audit read, and `known.toml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from vllmwall.config.toml import loads
from vllmwall.inspect.audit.rules import knobs
from vllmwall.model import Stack
from vllmwall.recognize.inputs import SAFE_FLAGS
from vllmwall.recognize.row_file import table

FILE = Path(__file__).with_name("known.toml")


class Judged(BaseModel):
    """The whole of known.toml, which explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connects: frozenset[str]
    elsewhere: frozenset[str]
    harmless: frozenset[str]
    routes: dict[str, frozenset[str]]


@cache
def judged() -> Judged:
    """Flags and routes that were judged by hand."""
    return Judged.model_validate(loads(FILE.read_text()))


def flags() -> frozenset[str]:
    """Every flag that some table knows."""
    read = {flag for stack in Stack for flag in knobs().flags_of(stack)}
    rules = [rule for row in table().programs for rule in row.ports]
    rows = {flag for one in (*rules, *table().web) for flag in one.flags}
    ours = judged()
    by_hand = ours.connects | ours.elsewhere | ours.harmless
    return frozenset(SAFE_FLAGS | read | rows | set(knobs().secret.flags) | by_hand)


def routes(package: str) -> frozenset[str]:
    """Every route of a package that some table knows."""
    endpoints = {path for one in knobs().endpoint for path in one.path.split(", ")}
    own = judged().routes.get(package.removesuffix("-cpu"), frozenset())
    return own | endpoints if package.startswith("vllm") else own
