"""The daemon's log: events with fields, to the journal, as JSON lines, or for a person.

Nothing here may carry a command line or an environment: they hold API keys. Callers pass
names, numbers and addresses. A log that cannot be written (a full disk, a reader that ended)
costs the lines, never the daemon.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from io import TextIOBase
from types import ModuleType
from typing import TextIO, cast

from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.event_log import as_text
from vllmwall.linux.systemd import send


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Make imports of these modules fail in this block, unless they were imported before."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent, cast("ModuleType", None)))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


# structlog imports rich and, through asyncio, ssl where it finds them: 9 MB for a daemon's life.
with hidden("rich", "ssl"):
    import structlog

KINDS = ("auto", "journal", "json", "console")
LEVELS = ("debug", "info", "warning", "error")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)

_Record = MutableMapping[str, object]
Keep = Callable[[EventKey, Mapping[str, object]], None]


class Logger:
    """Logs the events of the table, each at its level; ``keep`` gets every one."""

    def __init__(self, out: structlog.typing.FilteringBoundLogger, keep: Keep) -> None:
        self._out = out
        self._keep = keep

    def __call__(self, key: EventKey, *, exc_info: bool = False, **fields: object) -> None:
        """Log one event; with ``exc_info`` the exception that is handled now, and its stack."""
        self._keep(key, fields)
        more = {"exc_info": True} if exc_info else {}
        number = getattr(logging, key.level.upper())
        self._out.log(number, key.key, message=key.words, **fields, **more)


def configure(
    kind: str = "auto", level: str = "info", keep: Keep = lambda key, fields: None
) -> Logger:
    """A logger. ``kind`` is one of `KINDS`; ``keep`` gets every event, whatever the level."""
    out = structlog.wrap_logger(
        structlog.PrintLogger(cast("TextIO", _StandardError())),
        processors=[structlog.processors.add_log_level, *_outputs(_resolve(kind))],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )
    return Logger(out, keep)


class _StandardError(TextIOBase):
    """Standard error without a buffer; a text that cannot be written is lost without an error."""

    def write(self, text: str) -> int:
        """Write all of it, or as much as the kernel takes."""
        with suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return len(text)


def _resolve(kind: str) -> str:
    if kind != "auto":
        return kind
    if _stderr_is_journal():
        return "journal"
    return "console" if sys.stderr.isatty() else "json"


def _stderr_is_journal() -> bool:
    """Systemd names the device and inode of the journal's stream (systemd.exec(5))."""
    found = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _outputs(kind: str) -> list[structlog.typing.Processor]:
    exceptions = structlog.processors.format_exc_info
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if kind == "journal":
        return [exceptions, _send_to_journal]
    if kind == "json":
        return [stamp, exceptions, structlog.processors.JSONRenderer(default=str)]
    return [stamp, _in_words, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _in_words(_logger: object, _name: str, record: _Record) -> _Record:
    """The words in the place of the key, for a person."""
    fields = {name: value for name, value in record.items() if name != "message"}
    return {**fields, "event": record["message"]}


def _send_to_journal(_logger: object, _name: str, record: _Record) -> str:
    """Fields become journal fields (``VLLMWALL_PORT=29500``); the text is complete without them."""
    message, level = str(record.pop("message")), str(record.pop("level"))
    texts = {name: as_text(value) for name, value in record.items()}
    fields = {f"VLLMWALL_{name.upper()}": text for name, text in texts.items()}
    line = " ".join(
        [message, *(f"{name}={text}" for name, text in texts.items() if name != "event")]
    )
    send(line, PRIORITY=_PRIORITIES[level], SYSLOG_IDENTIFIER="vllmwall", **fields)
    raise structlog.DropEvent
