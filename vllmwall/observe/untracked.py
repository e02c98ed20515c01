"""Rules of other programs that take packets out of connection tracking, in the thread's namespace.

Found in the kernel's own form, without a child, because the daemon asks at every `status`: the
expression ``notrack`` of nft, and iptables' target CT with its flag, of both kinds of iptables.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

from vllmwall.linux import netlink
from vllmwall.observe.other_firewalls import LEGACY, legacy_tables

_GET_RULE = 0x0A07  # linux/netfilter/nf_tables.h
_EVERY_FAMILY = struct.pack("!BBH", 0, 0, 0)  # struct nfgenmsg
_EXPRESSION = netlink.text(1, "notrack")  # NFTA_EXPR_NAME
# NFTA_TARGET_NAME, NFTA_TARGET_REV, and the head of NFTA_TARGET_INFO with its flags, of which
# XT_CT_NOTRACK is the lowest bit (linux/netfilter/xt_CT.h).
_TARGET = re.compile(re.escape(netlink.text(1, "CT")) + rb".{12}[\x01\x03].", re.DOTALL)
# struct xt_entry_target: a name of 29 bytes, the revision, then the same flags.
_LEGACY_TARGET = re.compile(rb"CT\0{27}.[\x01\x03].", re.DOTALL)
_SOCKET_OPTIONS = {  # by the keys of `LEGACY`; linux/netfilter_ipv4/ip_tables.h
    "ip_tables_names": (socket.AF_INET, socket.IPPROTO_IP),
    "ip6_tables_names": (socket.AF_INET6, socket.IPPROTO_IPV6),
}
_GET_INFO, _GET_ENTRIES = 64, 65
_NAME, _SIZE_AT, _ENTRIES_AT = 32, 80, 40  # in struct ipt_getinfo and struct ipt_get_entries
_RAW = b"raw".ljust(_NAME, b"\0")


def takes_out_of_tracking() -> bool:
    """Whether any such rule exists. Raises OSError."""
    return _in_nftables() or any(map(_in_legacy, _legacy_families()))


def _in_nftables() -> bool:
    with closing(netlink.opened(netlink.NETFILTER)) as asked:
        parts = netlink.dumped(asked, _GET_RULE, _EVERY_FAMILY)
        found = [_EXPRESSION in part or bool(_TARGET.search(part)) for part in parts]
    return any(found)  # every part was read


def _legacy_families() -> Iterator[tuple[int, int]]:
    for names, _ in LEGACY:
        if "raw" in legacy_tables(names):  # asking for a table that is not there would create it
            yield _SOCKET_OPTIONS[names]


def _in_legacy(family: tuple[int, int]) -> bool:
    domain, level = family
    with socket.socket(domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as asked:
        info = _option(asked, level, _GET_INFO, _RAW.ljust(_SIZE_AT + 4, b"\0"))
        size = struct.unpack_from("=I", info, _SIZE_AT)[0]
        head = (_RAW + struct.pack("=I", size)).ljust(_ENTRIES_AT + size, b"\0")
        return bool(_LEGACY_TARGET.search(_option(asked, level, _GET_ENTRIES, head)))


def _option(asked: socket.socket, level: int, number: int, request: bytes) -> bytes:
    """An option whose question is in the buffer of its answer, which Python's own call lacks."""
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint32(len(request))
    library = ctypes.CDLL(None, use_errno=True)
    if library.getsockopt(asked.fileno(), level, number, buffer, ctypes.byref(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, "the rules of iptables-legacy cannot be read")
    return buffer.raw
