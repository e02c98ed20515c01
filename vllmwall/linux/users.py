"""Login names."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """The login name of a user; the number where none is known."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
