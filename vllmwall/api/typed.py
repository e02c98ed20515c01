"""TypedDict for the shapes of answers, from where pydantic can make a JSON schema of it.

pydantic refuses `typing.TypedDict` before Python 3.12, which does not know inherited keys.
"""

import sys

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:
    from typing_extensions import TypedDict

__all__ = ["TypedDict"]
