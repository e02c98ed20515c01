"""One question to the kernel's connection tracking: was this connection redirected?

Layouts: linux/netfilter/nfnetlink_conntrack.h. Sockets are those of `netlink.opened`.
"""

from __future__ import annotations

import socket
import struct

from vllmwall.linux import netlink
from vllmwall.linux.connections import Connection

_GET = 0x0101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_REPLY, _STATUS = 2, 3  # CTA_TUPLE_REPLY, CTA_STATUS
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_ADDRESSES = {4: (1, 2), 6: (3, 4)}  # CTA_IP_V4_SRC and _DST, CTA_IP_V6_SRC and _DST
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3  # CTA_PROTO_*
_DESTINATION_CHANGED = 1 << 5  # IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
_GENERIC_BYTES = 4  # struct nfgenmsg


def is_redirected(asked: socket.socket, connection: Connection) -> bool:
    """Whether NAT changed where the packets of a connection that came in go to.

    Raises OSError where it is not tracked, or the kernel does not say.
    """
    here, there = connection.local, connection.remote
    source, target = _ADDRESSES[here.version]
    addresses = netlink.attribute(source, here.packed) + netlink.attribute(target, there.packed)
    ports = netlink.attribute(_NUMBER, bytes([socket.IPPROTO_TCP]))
    ports += netlink.attribute(_SOURCE_PORT, struct.pack("!H", connection.local_port))
    ports += netlink.attribute(_TARGET_PORT, struct.pack("!H", connection.remote_port))
    answers = netlink.nested(_IP, addresses) + netlink.nested(_PROTO, ports)
    family = socket.AF_INET if here.version == 4 else socket.AF_INET6
    request = struct.pack("!BBH", family, 0, 0) + netlink.nested(_REPLY, answers)
    found = netlink.values(netlink.answered(asked, _GET, request, _GENERIC_BYTES), _GENERIC_BYTES)
    return bool(int.from_bytes(found.get(_STATUS, b""), "big") & _DESTINATION_CHANGED)
