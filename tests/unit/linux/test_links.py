"""Network devices, from bytes that kernels sent and from this one."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from vllmwall.linux import netlink
from vllmwall.linux.links import Link, decoded, links
from vllmwall.linux.netlink import MalformedMessageError, attribute, message, nested


def new_link(index: int, name: str, kind: str, data: bytes = b"") -> bytes:
    """RTM_NEWLINK as rtnl_fill_ifinfo writes it, with what we read and some of what we do not."""
    head = bytes([socket.AF_UNSPEC, 0]) + (1).to_bytes(2, "little") + index.to_bytes(4, "little")
    body = head + bytes(8) + attribute(3, name.encode() + b"\0") + attribute(4, bytes(4))
    info = attribute(1, kind.encode() + b"\0") + (nested(2, data) if data else b"")
    return message(16, 2, body + (nested(18, info) if kind else b""))


def ipvlan(mode: int) -> bytes:
    """ipvlan_fill_info: IFLA_IPVLAN_MODE (1, two bytes) and IFLA_IPVLAN_FLAGS (2)."""
    return attribute(1, mode.to_bytes(2, "little")) + attribute(2, bytes(2))


@pytest.mark.parametrize(("mode", "is_l3s"), [(0, False), (1, False), (2, True)])
def test_the_mode_of_an_ipvlan_tells_where_its_packets_are_filtered(
    mode: int, is_l3s: bool
) -> None:
    """IPVLAN_MODE_L2, _L3 and _L3S of linux/if_link.h."""
    data = new_link(7, "eth0", "ipvlan", ipvlan(mode)) + new_link(1, "lo", "")
    assert [Link(7, "eth0", "ipvlan", is_l3s), Link(1, "lo")] == list(decoded(data))


def test_other_devices_have_no_such_mode() -> None:
    """A macvlan's first attribute is a mode too, of other numbers; a VRF's is its table."""
    data = new_link(2, "m", "macvlan", attribute(1, (2).to_bytes(4, "little")))
    data += new_link(3, "blue", "vrf", attribute(1, (2).to_bytes(4, "little")))
    assert [Link(2, "m", "macvlan"), Link(3, "blue", "vrf")] == list(decoded(data))


@pytest.mark.parametrize("cut", [17, 30, 50, 70])
def test_a_cut_message_ends_in_one_error(cut: int) -> None:
    """Its length says more than is there."""
    with pytest.raises(MalformedMessageError):
        list(decoded(new_link(7, "eth0", "ipvlan", ipvlan(2))[:cut]))


def test_this_kernel_s_own_answer_is_read() -> None:
    """As the file system names them."""
    with closing(netlink.opened(netlink.ROUTE)) as route:
        found = {one.name: one.index for one in links(route)}
    assert dict(socket.if_nameindex()[::-1]) == {index: name for name, index in found.items()}
