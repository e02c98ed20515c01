"""Frozen dataclasses as JSON and back: between processes of ours, and in our files.

A value is encoded once, where it leaves the process. `Fit` says what `decode` accepts. Imports
nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_PLAIN = (str, int, float, bool, NoneType)
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


class Fit(Enum):
    """How closely an object must fit its dataclass.

    An answer may hold more, so that an older command line understands a newer daemon. In a
    request an unknown field is refused, because ignoring it could skip a check. What we wrote
    ourselves comes back whole: a default in the place of a field could open what was closed.
    """

    ANSWER = "unknown fields are ignored"
    REQUEST = "unknown fields are refused"
    WHOLE = "every field must be there, and no other"


def encode(value: object) -> object:
    """A value as JSON holds it: enums by value, sets sorted, addresses and networks as text."""
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(encode(key)): encode(one) for key, one in value.items()}
    if isinstance(value, Set):
        return sorted(map(encode, value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [encode(one) for one in value]
    return str(value)


def decode(kind: type[T], value: object, fit: Fit = Fit.ANSWER) -> T:
    """The dataclass that this JSON object stands for.

    Raises ValueError that names the field where the object does not fit.
    """
    return cast("T", _decode(kind, value, kind.__name__ if fit is Fit.WHOLE else "", fit))


@lru_cache(maxsize=256)
def _names(kind: type) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind))


@lru_cache(maxsize=256)
def _fields(kind: type) -> Mapping[str, tuple[object, bool]]:
    """By name: the type of a field, and whether it may be missing."""
    hints = get_type_hints(kind)
    return {one.name: (hints[one.name], _has_default(one)) for one in fields(kind)}


def _has_default(one: Field[object]) -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


def _decode(kind: object, value: object, where: str, fit: Fit) -> object:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _decode_union(inner, value, where, fit)
    if origin is Literal:
        if value not in inner:
            raise _needed(where, f"one of {', '.join(map(str, inner))}")
        return value
    if origin in (tuple, frozenset):
        return origin(_decode_items(inner, value, where, fit))
    if origin is not None or is_dataclass(kind):
        if not isinstance(value, dict):
            raise _needed(where, "an object")
        if origin is not None:
            places = ((key, one, f"{where}.{key}") for key, one in value.items())
            return {
                _decode(inner[0], key, at, fit): _decode(inner[1], one, at, fit)
                for key, one, at in places
            }
        return _decode_object(cast("type", kind), value, where, fit)
    return _decode_plain(cast("type", kind), value, where)


def _decode_items(
    inner: tuple[object, ...], value: object, where: str, fit: Fit
) -> Iterator[object]:
    if not isinstance(value, list):
        raise _needed(where, "a list")
    kinds = (inner[0],) * len(value) if len(inner) == 1 or inner[1] is ... else inner
    if len(kinds) != len(value):
        raise _needed(where, f"a list of {len(kinds)}")
    for at, (kind, one) in enumerate(zip(kinds, value, strict=True)):
        yield _decode(kind, one, f"{where}[{at}]", fit)


def _decode_object(kind: type, value: Mapping[str, object], where: str, fit: Fit) -> object:
    known = _fields(kind)
    if fit is not Fit.ANSWER and (unknown := sorted(value.keys() - known.keys())):
        raise ValueError(f"{_name(where, unknown[0])}: there is no such field")
    found: dict[str, object] = {}
    for name, (inner, may_be_missing) in known.items():
        if name in value:
            found[name] = _decode(inner, value[name], _name(where, name), fit)
        elif fit is Fit.WHOLE or not may_be_missing:
            raise _needed(_name(where, name), "a value")
    return kind(**found)


def _decode_union(kinds: tuple[object, ...], value: object, where: str, fit: Fit) -> object:
    if value is None and NoneType in kinds:
        return None
    problem = _needed(where, "a value")
    for kind in kinds:
        if kind is not NoneType:
            try:
                return _decode(kind, value, where, fit)
            except ValueError as error:
                problem = error
    raise problem


def _decode_plain(kind: type, value: object, where: str) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if kind is object:
        return value
    if kind in _WORDS:
        if type(value) is not kind:
            raise _needed(where, _WORDS[kind])
        return value
    if not isinstance(value, str):
        raise _needed(where, "a text")
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _name(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def _needed(where: str, what: str) -> ValueError:
    return ValueError(f"{where or 'the request'}: {what} is needed")
