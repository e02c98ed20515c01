"""Answers of the daemon as JSON, as a client of the control socket gets them."""

from __future__ import annotations

from typing import Any, cast

from vllmwall.api.status import status_of
from vllmwall.engine.status_facts import StatusFacts
from vllmwall.linux.wire import encode

Json = dict[str, Any]


def as_json(answer: object) -> Json:
    """A dataclass as the socket carries it."""
    return cast("Json", encode(answer))


def status_json(facts: StatusFacts) -> Json:
    """The answer to `status` that these facts make."""
    return as_json(status_of(facts))
