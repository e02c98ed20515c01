"""Elements of our sets and maps as netlink messages: for the moment when every part of a
millisecond counts.

libnftables asks the kernel for all tables, chains, sets and their elements before it sends one
line (0.6 ms for a small wall, more for a large one). An entry or a guard that is only added needs
none of that. What arrives is read back as what nft would have sent: a test compares them.
Layouts: linux/netfilter/nf_tables.h; the register a part of a key takes is a multiple of 4 bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator

from vllmwall.enforce.nftables import ownership, ruleset
from vllmwall.enforce.nftables.names import TABLE_NAME, guarded_set, verdict_of, walled_set
from vllmwall.linux import netlink
from vllmwall.model import Guard, Proto, WallEntry

_NEWSETELEM = 0x0A0C  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT, _KEY, _DATA, _USERDATA = 1, 1, 2, 6  # NFTA_LIST_ELEM, NFTA_SET_ELEM_*
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2  # NFTA_DATA_*, NFTA_VERDICT_*
_ACCEPT, _CODES = 1, {"jump": -3, "goto": -4}  # NF_ACCEPT, NFT_JUMP, NFT_GOTO
_COMMENT = 0  # NFTNL_UDATA_SET_ELEM_COMMENT, libnftnl/udata.h
_PROTOCOLS = {Proto.TCP: socket.IPPROTO_TCP, Proto.UDP: socket.IPPROTO_UDP}


def add(sender: socket.socket, entries: Collection[WallEntry], guards: Collection[Guard]) -> None:
    """Add these in one transaction. What is there already stays. Raises EnforceError."""
    ownership.commit(sender, [*_entry_messages(entries), *_guard_messages(guards)])


def _entry_messages(entries: Collection[WallEntry]) -> Iterator[bytes]:
    """The map first: a port that is walled and in no map would be closed to its peers."""
    for entry in entries:
        data = netlink.nested(_DATA, netlink.nested(_VERDICT, _verdict(verdict_of(entry))))
        yield _message(ruleset.map_of(entry), _key(entry) + data + _comment(entry.note))
    for entry in filter(ruleset.is_walled, entries):
        yield _message(walled_set(ruleset.map_of(entry)), _key(entry))


def _guard_messages(guards: Collection[Guard]) -> Iterator[bytes]:
    for guard in guards:
        value = struct.pack("=Q", guard.id)
        yield _message(
            guarded_set(guard.level), netlink.nested(_KEY, netlink.attribute(_VALUE, value))
        )


def _key(entry: WallEntry) -> bytes:
    address = b"" if entry.address is None else entry.address.packed
    value = address + struct.pack("!B3xH2x", _PROTOCOLS[entry.proto], entry.port)
    return netlink.nested(_KEY, netlink.attribute(_VALUE, value))


def _verdict(text: str) -> bytes:
    verb, _, chain = text.partition(" ")
    code = netlink.attribute(_CODE, struct.pack("!i", _CODES.get(verb, _ACCEPT)))
    return code + (netlink.text(_CHAIN, chain) if chain else b"")


def _comment(note: str) -> bytes:
    text = note.encode() + b"\0"
    return netlink.attribute(_USERDATA, bytes([_COMMENT, len(text)]) + text) if note else b""


def _message(name: str, element: bytes) -> bytes:
    body = netlink.text(_TABLE, TABLE_NAME) + netlink.text(_SET, name)
    elements = netlink.nested(_ELEMENTS, netlink.nested(_ELEMENT, element))
    return ownership.message(_NEWSETELEM, body + elements)
