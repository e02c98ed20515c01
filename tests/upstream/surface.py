"""The routes and flags that a wheel's Python code names, read without importing it."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FLAG = re.compile(r"--[a-z][a-z0-9_-]*[a-z0-9]")
_ROUTE = re.compile(r"/[\w/{}:.-]*")
_METHODS = frozenset({"get", "post", "put", "patch", "delete", "api_route", "route", "websocket"})
_ADDING = frozenset({"add_api_route", "add_route"})
_SWITCHES = re.compile(r"(?:Frontend|Server|Router|Engine)Args")
_FIELDS = "sglang/srt/arg_groups/fields/"  # there every class is one of switches
# What a name of the network, or a secret, is made of.
_WORDS = frozenset(
    """port ports host hosts ip addr address addresses endpoint url urls uds bind listen token key
    keys secret password credential""".split()  # noqa: SIM905 (twenty quoted words read worse)
)


@dataclass(frozen=True)
class Surface:
    """``routes`` are paths as decorators write them; ``flags`` are without their dashes, and
    only those that name an address, a port or a secret."""

    routes: frozenset[str]
    flags: frozenset[str]


def surface(wheel: Path, parts: tuple[str, ...]) -> Surface:
    """Of the files of a wheel that lie under one of the ``parts``.

    Raises LookupError where a part holds no file: it moved.
    """
    routes: set[str] = set()
    flags: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
        for part in parts:
            found = [name for name in names if name.startswith(part)]
            if not found:
                raise LookupError(f"{wheel.name} has no {part}: it moved. Edit tests/upstream.")
            for name in found:
                tree = ast.parse(archive.read(name))
                routes.update(_routes(tree))
                flags.update(_flags(tree, every_class=name.startswith(_FIELDS)))
    if not flags:
        raise LookupError(f"{wheel.name}: no flag is found in {parts}. Edit tests/upstream.")
    return Surface(frozenset(routes), frozenset(filter(names_the_network, flags)))


def names_the_network(flag: str) -> bool:
    """One of its words is one of an address, a port or a secret."""
    return not _WORDS.isdisjoint(flag.split("-"))


def _routes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in _METHODS and _is_decorator(node, tree):
            yield from filter(_ROUTE.fullmatch, _texts(node.args[:1]))
        if node.func.attr in _ADDING:
            yield from filter(_ROUTE.fullmatch, _texts(node.args[:1]))


def _is_decorator(call: ast.Call, tree: ast.AST) -> bool:
    return any(
        call in node.decorator_list
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _flags(tree: ast.AST, *, every_class: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            values = [*node.args, *(one.value for one in node.keywords)]
            for text in filter(_FLAG.fullmatch, _texts(values)):
                yield text[2:].replace("_", "-")
        if isinstance(node, ast.ClassDef) and (every_class or _SWITCHES.search(node.name)):
            for line in node.body:  # a field of such a class is a flag
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id.replace("_", "-")


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
