"""Our own rows, in `stacks.toml`, and a row from its table in TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from vllmwall.model import Role, Stack
from vllmwall.recognize.definitions import Match
from vllmwall.recognize.rows import Names, PortRule, Row, Table, WebServer

if sys.version_info >= (3, 11):
    from tomllib import loads
else:  # pragma: no cover (Python 3.10)
    from tomli import loads


@lru_cache(maxsize=4)
def table(configured: tuple[Row, ...] = ()) -> Table:
    """The rows of the configuration, then those of `stacks.toml`."""
    ours = _ours()
    return replace(ours, programs=(*configured, *ours.programs)) if configured else ours


@cache
def _ours() -> Table:
    content = loads(Path(__file__).with_name("stacks.toml").read_text("utf-8"))
    return Table(
        programs=tuple(map(row_of, content["program"])),
        web=tuple(map(_web_server, content["web"])),
        companions=tuple(map(_names, content["companion"])),
        stores=tuple(map(_names, content["store"])),
    )


def row_of(content: Mapping[str, Any], place: str = "") -> Row:
    """A row from its table in TOML. ``place``: where the operator wrote it."""
    match = content.get("match")
    return Row(
        stack=Stack(content["stack"]),
        part=content["part"],
        names=_names(content),
        words=frozenset(content.get("words", ())),
        ports=tuple(map(_port_rule, content.get("ports", ()))),
        rest=Role(content["rest"]) if "rest" in content else None,
        beside=content.get("beside", False),
        unless=frozenset(content.get("unless", ())),
        why=content.get("why", ""),
        source=content.get("source", ""),
        match=Match(**match) if match else None,
        place=place,
    )


def _words(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: tuple(content.get(key, ())) for key in keys}


def _names(content: Mapping[str, Any]) -> Names:
    return Names(**_words(content, "programs", "modules", "titles"))


def _port_rule(content: Mapping[str, Any]) -> PortRule:
    return PortRule(
        role=Role(content["role"]),
        ports=tuple(content.get("ports", ())),
        backlog=tuple(content.get("backlog", ())),
        wide=content.get("wide"),
        shared=content.get("shared", False),
        **_words(content, "flags", "short", "env"),
    )


def _web_server(content: Mapping[str, Any]) -> WebServer:
    return WebServer(
        _names(content), content.get("default", 0), **_words(content, "flags", "short", "env")
    )
