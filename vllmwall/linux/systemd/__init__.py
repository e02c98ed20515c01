"""Systemd's Python bindings, with replacements for installations that lack them.

They have no wheels and are compiled for one interpreter, so not every installation has them. Ours
take plain sockets and no library: what is sent is documented at sd_notify(3) and
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType


def notify(text: str) -> None:
    """Notify the service manager (sd_notify(3)); without one nothing happens."""
    _module("sd_notify").notify(text)


def send(text: str, **fields: object) -> None:
    """One entry for the journal."""
    _module("journal").send(text, **fields)


def in_use() -> str:
    """Which of them speak to systemd, in words."""
    daemon = _module("sd_notify")
    folder = Path(str(daemon.__file__)).parent
    is_ours = daemon.__name__.startswith(__name__)
    return f"{'a stand-in for systemd-python' if is_ours else 'systemd-python'} in {folder}"


@lru_cache
def _module(name: str) -> ModuleType:
    try:
        return import_module({"sd_notify": "systemd.daemon", "journal": "systemd.journal"}[name])
    except ImportError:  # or compiled for another interpreter, or without its library
        return import_module(f"{__name__}.{name}")
