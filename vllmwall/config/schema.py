"""The JSON schema of vllmwall.toml, for editors: completion, descriptions and checks of keys.

Generated from the models. It rejects unknown keys and wrong types. `vllmwall check` checks more:
the format of values, and several keys together.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from vllmwall.config.models import Config

_ID = "urn:vllmwall:schema:vllmwall.toml"


def json_schema() -> Mapping[str, object]:
    """The schema (draft 2020-12) of one file of the configuration."""
    schema = Config.model_json_schema(schema_generator=_OfToml)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": _ID,
        **schema,
        "title": "vllmwall.toml",
    }


class _OfToml(GenerateJsonSchema):
    """TOML has no null: a key without a value is left out."""

    def nullable_schema(self, schema: NullableSchema) -> dict[str, object]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> dict[str, object]:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def encode_default(self, dft: object) -> object:
        """Ports are named tuples here and text in the file."""
        if isinstance(dft, tuple):
            return [str(one) for one in dft]
        return super().encode_default(dft)
