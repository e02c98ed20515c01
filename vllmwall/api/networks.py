"""The list of CIDRs in a request."""

from __future__ import annotations

from vllmwall.api.errors import ControlError, Json
from vllmwall.cidr import parse_network
from vllmwall.model import Network


def networks_of(arguments: Json) -> tuple[Network, ...]:
    """The ``networks`` of a request. Raises ControlError."""
    value = arguments.get("networks")
    if not isinstance(value, list) or not value:
        raise ControlError("bad-request", "networks: a list of CIDRs is needed")
    try:
        return tuple(parse_network(str(text)) for text in value)
    except ValueError as error:
        raise ControlError("failed", str(error)) from error
