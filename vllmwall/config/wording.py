"""Error messages for pydantic's errors: what is wrong with the value, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isclass
from typing import get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from vllmwall.config.models import Config
from vllmwall.config.problems import KeyPath, shown
from vllmwall.config.sections import Section
from vllmwall.config.values import suggestion

_KEY_MARK = "[key]"  # pydantic's mark for an error in a table's key rather than its value
_MUST_BE = {
    "tuple_type": "must be a list",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
}


def complaints(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    """The key path and the sentence of every single error."""
    for detail in error.errors():
        path = tuple(part for part in detail["loc"] if part != _KEY_MARK)
        yield path, _sentence(path, detail)


def keys_of(section: type[Section]) -> dict[str, str]:
    """The keys of a table, as they are written, and the field of each."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that is a table, or each of a list of tables; None: the key holds a value."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((one for one in kinds if isclass(one) and issubclass(one, Section)), None)


def _sentence(path: KeyPath, detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind in _MUST_BE:
        wanted = _MUST_BE[kind].format(**context).replace("'", '"')
        return f"{wanted}, not {shown(detail['input'])}"
    return f"{detail['msg']}, not {shown(detail['input'])}"


def _unknown_key(path: KeyPath) -> str:
    keys = tuple(keys_of(_section_at(path[:-1])))
    return f"unknown key{suggestion(str(path[-1]), keys)}; allowed here: {', '.join(keys)}"


def _section_at(path: KeyPath) -> type[Section]:
    section: type[Section] = Config
    for key in path:
        if isinstance(key, str):
            field = section.model_fields[keys_of(section)[key]]
            section = section_of(field) or section
    return section
