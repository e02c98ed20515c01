"""The list of CIDRs in a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vllmwall.api.errors import ControlError
from vllmwall.cidr import Network, parse_network


@dataclass(frozen=True)
class NetworksRequest:
    """Networks as people write them: CIDRs or addresses."""

    networks: tuple[str, ...]


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks in a request. Raises ControlError."""
    try:
        found = tuple(map(parse_network, texts))
    except ValueError as error:
        raise ControlError("failed", str(error)) from error
    if not found:
        raise ControlError("bad-request", "networks: a list of CIDRs is needed")
    return found
