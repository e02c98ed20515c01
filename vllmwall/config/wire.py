"""Frozen dataclasses as plain JSON, and back, strictly.

`decoded` accepts what `encoded` makes and nothing else: a missing or an additional field, or a
value of another type, raises ValueError with its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_AS_TEXT = (Path, IPv4Network, IPv6Network)


def encoded(value: object) -> object:
    """The value as JSON; a mapping as a list of pairs, since its keys can be anything."""
    if is_dataclass(value):
        return {one.name: encoded(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return [[encoded(key), encoded(item)] for key, item in value.items()]
    if isinstance(value, tuple | frozenset):
        return [encoded(one) for one in value]
    return str(value) if isinstance(value, _AS_TEXT) else value


def decoded(kind: type[_T], value: object) -> _T:
    """The value of type ``kind`` that JSON holds. Raises ValueError."""
    return cast("_T", _decoded(kind, value, kind.__name__))


def _decoded(kind: object, value: object, where: str) -> object:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(inner, value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin is tuple and inner[-1] is not ...:
        items = _items(value, where, len(inner))
        return tuple(_decoded(one, item, where) for one, item in zip(inner, items, strict=True))
    if origin in (tuple, frozenset):
        return origin(_decoded(inner[0], one, where) for one in _items(value, where))
    if origin is Mapping:
        return dict(_pairs(inner, value, where))
    return _scalar(kind, value, where)


def _one_of(kinds: tuple[object, ...], value: object, where: str) -> object:
    for kind in kinds:
        try:
            return _decoded(kind, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where}: {value!r:.80} fits no type")


def _dataclass(kind: type, value: object, where: str) -> object:
    hints = get_type_hints(kind)
    names = [one.name for one in fields(kind)]
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"{where}: not an object with {', '.join(names)}")
    return kind(**{name: _decoded(hints[name], value[name], f"{where}.{name}") for name in names})


def _items(value: object, where: str, length: int | None = None) -> list[object]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(f"{where}: not a list of the right length")
    return value


def _pairs(kinds: tuple[object, ...], value: object, where: str) -> Iterator[tuple[object, object]]:
    for pair in _items(value, where):
        key, item = _items(pair, where, 2)
        yield _decoded(kinds[0], key, where), _decoded(kinds[1], item, where)


def _scalar(kind: object, value: object, where: str) -> object:
    if kind is NoneType and value is None:
        return None
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if kind is float and type(value) is int:
        return value
    if kind in (str, int, float, bool) and type(value) is kind:
        return value
    if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, (*_AS_TEXT, Enum)):
        return kind(value)
    raise ValueError(f"{where}: {value!r:.80} is of another type")
