"""The JSON schema of vllmwall.toml, for editors: completion, descriptions and checks of keys.

Generated from the models and `keys.toml`. It rejects unknown keys and wrong types. `vllmwall check`
checks more: the format of values, and several keys together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import NamedTuple

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from vllmwall.config.models import Config
from vllmwall.config.sections import Section
from vllmwall.config.toml import loads
from vllmwall.config.wording import keys_of, section_of

_ID = "urn:vllmwall:schema:vllmwall.toml"


class Words(NamedTuple):
    """A key in words: what to write, what it does, and an example; None: the default is one."""

    value: str
    meaning: str
    example: object = None


def words_of(table: str = "") -> dict[str, Words]:
    """The keys of a table by name, in the order of the models; ``workload.match`` is one too."""
    found = loads(files("vllmwall.config").joinpath("keys.toml").read_text(encoding="utf-8"))
    section: type[Section] = Config
    for part in filter(None, table.split(".")):
        found = found[part]
        section = section_of(section.model_fields[keys_of(section)[part]]) or section
    told = {key: found[key] for key in keys_of(section) if "meaning" in found.get(key, {})}
    return {
        key: Words(one["value"], one["meaning"], one.get("example")) for key, one in told.items()
    }


def json_schema() -> Mapping[str, object]:
    """The schema (draft 2020-12) of one file of the configuration."""
    schema = Config.model_json_schema(schema_generator=_OfToml)
    for table, name in _tables(Config):
        properties = schema["$defs"][name]["properties"] if table else schema["properties"]
        for key, words in words_of(table).items():
            properties[key] |= {"title": words.value, "description": words.meaning}
            if words.example is not None:
                properties[key]["examples"] = [words.example]
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": _ID,
        **schema,
        "title": "vllmwall.toml",
    }


def _tables(section: type[Section], above: str = "") -> Iterator[tuple[str, str]]:
    """Every table of the file, with the name of its model."""
    yield above, section.__name__
    for key, name in keys_of(section).items():
        if inner := section_of(section.model_fields[name]):
            yield from _tables(inner, f"{above}.{key}".lstrip("."))


class _OfToml(GenerateJsonSchema):
    """TOML has no null: a key without a value is left out. A table shows the defaults itself."""

    def nullable_schema(self, schema: NullableSchema) -> dict[str, object]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> dict[str, object]:
        if isinstance(schema.get("default", ...), Section | dict | None):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def encode_default(self, dft: object) -> object:
        """Ports are named tuples here and text in the file."""
        if isinstance(dft, tuple):
            return [str(one) for one in dft]
        return super().encode_default(dft)
