"""Which listener a packet finds: by address, family and kind."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vllmwall.enforce.evaluator.socket_lookup import reached
from vllmwall.model import Listener, Proto


def bound(address: str, port: int = 80, *, v6only: bool = False, inode: int = 1) -> Listener:
    """A TCP listener."""
    return Listener(1, Proto.TCP, port, ip_address(address), v6only=v6only, inode=inode)


@pytest.mark.parametrize(
    ("listener", "destination", "is_found"),
    [
        (bound("0.0.0.0"), "192.0.2.1", True),
        (bound("0.0.0.0"), "2001:db8::1", False),
        (bound("::"), "192.0.2.1", True),
        (bound("::", v6only=True), "192.0.2.1", False),
        (bound("192.0.2.1"), "192.0.2.1", True),
        (bound("192.0.2.1"), "192.0.2.2", False),
        (bound("::ffff:192.0.2.1"), "192.0.2.1", True),
        (bound("::ffff:0.0.0.0"), "192.0.2.1", True),
        (bound("::ffff:0.0.0.0"), "2001:db8::1", False),
        (bound("fe80::1%eth0"), "fe80::1", True),
    ],
)
def test_a_bind_takes_what_it_says(listener: Listener, destination: str, is_found: bool) -> None:
    """Both families where it is not v6only; the mapped address is the IPv4 one."""
    found = reached([listener], "tcp", ip_address(destination), 80)
    assert (listener if is_found else None) == found


def test_the_closer_bind_wins() -> None:
    """The exact address, then an IPv4 socket, then one of both families."""
    exact, four, both = bound("192.0.2.1"), bound("0.0.0.0"), bound("::")
    here = ip_address("192.0.2.1")
    assert exact == reached([both, four, exact], "tcp", here, 80)
    assert four == reached([both, four], "tcp", here, 80)
    assert reached([both], "tcp", here, 81) is None
    assert reached([both], "udp", here, 80) is None
