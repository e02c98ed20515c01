"""The network devices of one network namespace, by rtnetlink: their kinds and their addresses.

Layouts: linux/if_link.h, linux/if_addr.h. Sockets are those of `netlink.opened`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from vllmwall.linux import netlink
from vllmwall.model import Address, Network

_GET_LINK, _NEW_LINK = 18, 16  # RTM_GETLINK, RTM_NEWLINK
_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg
_GET_ADDRESS, _NEW_ADDRESS = 22, 20  # RTM_GETADDR, RTM_NEWADDR
_ADDRESS_HEADER = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ADDRESS, _LOCAL = 1, 2  # IFA_ADDRESS, IFA_LOCAL
_NAME, _MASTER, _INFO = 3, 10, 18  # IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO
_INDEX = struct.Struct("=I")
_KIND, _DATA = 1, 2  # IFLA_INFO_KIND, IFLA_INFO_DATA
_IPVLAN_MODE = 1  # IFLA_IPVLAN_MODE
_L3S = 2  # IPVLAN_MODE_L3S


@dataclass(frozen=True)
class Link:
    """One device. ``kind`` is the kernel's word: ``vrf``, ``ipvlan``; empty: a real one. ``master``
    is the index of the bridge, bond or VRF that it belongs to; 0: none.

    ``is_l3s``: an ipvlan whose packets are filtered in the namespace of its master and in no
    other (mode l3s, ipvlan_l3s.c: ipvlan_nf_input hands them to the socket).
    """

    index: int
    name: str
    kind: str = ""
    is_l3s: bool = False
    master: int = 0


def links(route: socket.socket) -> list[Link]:
    """The devices of the socket's namespace. Raises OSError when the kernel refuses."""
    request = _HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    return [one for part in netlink.dumped(route, _GET_LINK, request) for one in decoded(part)]


def decoded(data: bytes) -> Iterator[Link]:
    """The devices in one datagram of the kernel's answer. Raises MalformedMessageError."""
    for start, end in netlink.messages(data, _NEW_LINK, _HEADER.size):
        index = _HEADER.unpack_from(data, start)[2]
        found = netlink.values(data, start + _HEADER.size, end)
        info = netlink.values(found.get(_INFO, b""))
        kind = _text(info.get(_KIND, b""))
        is_l3s = kind == "ipvlan" and _is_l3s(info)
        master = found.get(_MASTER, b"")
        number = _INDEX.unpack(master)[0] if len(master) == _INDEX.size else 0
        yield Link(index, _text(found.get(_NAME, b"")), kind, is_l3s, number)


def addresses(route: socket.socket) -> list[tuple[int, Address]]:
    """The addresses of the socket's namespace, each with the index of its device. Raises OSError
    when the kernel refuses."""
    return [(index, address) for index, address, _ in _every_address(route)]


def subnets(route: socket.socket) -> dict[Address, Network]:
    """The addresses of the socket's namespace, each with the subnet that its device is in. Raises
    OSError when the kernel refuses."""
    found = (ip_interface((address, length)) for _, address, length in _every_address(route))
    return {one.ip: one.network for one in found}


def _every_address(route: socket.socket) -> list[tuple[int, Address, int]]:
    request = _ADDRESS_HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    return [
        one
        for part in netlink.dumped(route, _GET_ADDRESS, request)
        for one in decoded_addresses(part)
    ]


def decoded_addresses(data: bytes) -> Iterator[tuple[int, Address, int]]:
    """The addresses in one datagram of the kernel's answer: index of the device, address and prefix
    length. Raises MalformedMessageError."""
    for start, end in netlink.messages(data, _NEW_ADDRESS, _ADDRESS_HEADER.size):
        _, length, _, _, index = _ADDRESS_HEADER.unpack_from(data, start)
        found = netlink.values(data, start + _ADDRESS_HEADER.size, end)
        packed = found.get(_LOCAL, found.get(_ADDRESS, b""))
        if len(packed) in (4, 16):
            address = ip_address(packed)
            yield index, address, min(length, address.max_prefixlen)


def _is_l3s(info: dict[int, bytes]) -> bool:
    mode = netlink.values(info.get(_DATA, b"")).get(_IPVLAN_MODE, b"")
    return int.from_bytes(mode[:2], "little" if struct.pack("=H", 1)[0] else "big") == _L3S


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
