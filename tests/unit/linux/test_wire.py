"""Dataclasses as JSON and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from typing import Literal

import pytest

from vllmwall.linux.wire import Fit, decode, encode
from vllmwall.model import Address, Network


class Colour(Enum):
    """Something with a value."""

    RED = "red"


@dataclass(frozen=True)
class Inner:
    """Nested."""

    network: Network
    address: Address | None = None


@dataclass(frozen=True)
class Outer:
    """One of each kind."""

    name: str
    number: int
    seconds: float
    is_good: bool
    colour: Colour
    mode: Literal["a", "b"]
    inner: tuple[Inner, ...] = ()


VALUE = Outer(
    "x",
    3,
    1.5,
    True,
    Colour.RED,
    "a",
    (Inner(ip_network("2001:db8::/32"), ip_address("192.0.2.1")), Inner(ip_network("10.0.0.0/8"))),
)
JSON: dict[str, object] = {
    "name": "x",
    "number": 3,
    "seconds": 1.5,
    "is_good": True,
    "colour": "red",
    "mode": "a",
    "inner": [
        {"network": "2001:db8::/32", "address": "192.0.2.1"},
        {"network": "10.0.0.0/8", "address": None},
    ],
}


def test_a_value_comes_back_as_it_was() -> None:
    """Enums, addresses and networks keep their types."""
    assert JSON == encode(VALUE)
    found = decode(Outer, JSON, Fit.REQUEST)
    assert VALUE == found
    assert isinstance(found.inner[0].network, IPv6Network)
    assert isinstance(found.inner[0].address, IPv4Address)


def test_what_may_be_missing_takes_its_default() -> None:
    """A field without a default may not be missing, and the message names it."""
    assert () == decode(Outer, {key: JSON[key] for key in JSON if key != "inner"}).inner
    with pytest.raises(ValueError, match="colour: a value is needed"):
        decode(Outer, {key: JSON[key] for key in JSON if key != "colour"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "name: a text is needed"),
        ({"number": True}, "number: a whole number is needed"),
        ({"number": "5"}, "number: a whole number is needed"),
        ({"seconds": "soon"}, "seconds: a number is needed"),
        ({"is_good": 1}, "is_good: true or false is needed"),
        ({"colour": "blue"}, "colour: 'blue' is not a valid Colour"),
        ({"mode": "c"}, "mode: one of a, b is needed"),
        ({"inner": {}}, "inner: a list is needed"),
        ({"inner": [{"network": "nonsense"}]}, r"inner\[0\].network: .*'nonsense'"),
        ({"inner": [[]]}, r"inner\[0\]: an object is needed"),
    ],
)
def test_a_value_of_another_kind_is_refused(change: dict[str, object], message: str) -> None:
    """With the place of it."""
    with pytest.raises(ValueError, match=message):
        decode(Outer, {**JSON, **change})


def test_an_unknown_field_is_refused_in_a_request_only() -> None:
    """A daemon must not ignore what it was asked; a reader may ignore what it was told."""
    assert VALUE == decode(Outer, {**JSON, "more": 1})
    with pytest.raises(ValueError, match="more: there is no such field"):
        decode(Outer, {**JSON, "more": 1}, Fit.REQUEST)
