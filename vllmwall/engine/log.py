"""The daemon's log: events with fields, to the journal, as JSON lines, or for a person.

Nothing here may carry a command line or an environment: they hold API keys. Callers pass
names, numbers and addresses. A log that cannot be written (a full disk, a reader that ended)
costs the lines, never the daemon.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from io import TextIOBase
from typing import TextIO, cast

from vllmwall.engine.hidden_imports import absent
from vllmwall.linux.systemd import send

# structlog imports rich and, through asyncio, ssl where it finds them: 9 MB for a daemon's life.
with absent("rich", "ssl"):
    import structlog

KINDS = ("auto", "journal", "json", "console")
LEVELS = ("debug", "info", "warning", "error")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)

Event = MutableMapping[str, object]
Logger = structlog.typing.FilteringBoundLogger


def configure(
    kind: str = "auto",
    level: str = "info",
    also: Callable[[Mapping[str, object]], None] = lambda record: None,
) -> Logger:
    """Set the log up and return the logger. ``kind`` is one of `KINDS`.

    ``also`` gets every record, whatever its level: its text is under ``event``.
    """

    def pass_on(_logger: object, _name: str, event: Event) -> Event:
        also(event)
        if getattr(logging, str(event["level"]).upper()) < getattr(logging, level.upper()):
            raise structlog.DropEvent
        return event

    structlog.configure(
        processors=[structlog.processors.add_log_level, pass_on, *_outputs(_resolve(kind))],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Errors())),
        cache_logger_on_first_use=True,
    )
    logger: Logger = structlog.get_logger()
    return logger


class _Errors(TextIOBase):
    """Standard error without a buffer: what it does not take is not kept, nor raised about."""

    def write(self, text: str) -> int:
        """All of it, or as much as goes."""
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
    if kind == "journal":
        return [structlog.processors.format_exc_info, _send_to_journal]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if kind == "json":
        return [
            stamp,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    return [stamp, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _send_to_journal(_logger: object, _name: str, event: Event) -> str:
    """Fields become journal fields (``VLLMWALL_PORT=29500``); the text stays readable alone."""
    message = str(event.pop("event"))
    level = str(event.pop("level"))
    fields = {f"VLLMWALL_{key.upper()}": str(value) for key, value in event.items()}
    text = " ".join([message, *(f"{key}={value}" for key, value in event.items())])
    send(text, PRIORITY=_PRIORITIES[level], SYSLOG_IDENTIFIER="vllmwall", **fields)
    raise structlog.DropEvent
