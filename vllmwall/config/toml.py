"""TOML in and out: the reader of the Python that runs us, and a writer for what we write.

Imports nothing of ours.
"""

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
    """``value`` as TOML on one line. What TOML has no word for is written as a string."""
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
