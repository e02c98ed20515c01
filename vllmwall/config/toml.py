"""Reading TOML with the standard library, or tomli before Python 3.11; writing single values."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:  # pragma: no cover (Python 3.10)
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "loads", "toml_value"]


def toml_value(value: object) -> str:
    """``value`` as TOML on one line. Other types are written as strings."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value))  # JSON's escapes are TOML's
