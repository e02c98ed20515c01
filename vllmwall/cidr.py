"""Addresses and networks: parsed from text, written, merged, and searched.

Promises that every network of ours is in one plain form (no host bits, ``::ffff:a.b.c.d/n``
written as the IPv4 network that it means), so that equal networks compare equal, and that an
error for a bad text says what was probably meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    get_mixed_type_key,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PRIVATE: tuple[Network, ...] = (
    *map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),  # RFC 1918
    IPv4Network("169.254.0.0/16"),  # RFC 3927
    IPv6Network("fc00::/7"),  # RFC 4193
    IPv6Network("fe80::/10"),  # RFC 4291
)
"""Networks whose addresses no host of the internet has."""

_MAPPED = IPv6Network("::ffff:0:0/96")


def host_port(address: object, port: object) -> str:
    """``10.0.0.1:80``, ``[fd00::1]:80``."""
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def without_zone(address: Address) -> Address:
    """The address without its scope (``%eth0``), which no packet carries."""
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


class NetworkTextError(ValueError):
    """The text is no network. The message names the text and what is allowed instead."""


def parse_network(text: str) -> Network:
    """The network that ``text`` means: ``10.0.0.0/24``, ``fd00::/64`` or one address.

    Raises NetworkTextError.
    """
    address, slash, length = text.strip().partition("/")
    if "%" in text:
        raise NetworkTextError(f'"{text}" has an interface in it; write the address alone')
    if slash and not length.isascii():
        raise NetworkTextError(_not_a_network(text))
    if slash and not length.isdigit():
        raise NetworkTextError(_with_mask(text))
    try:
        network = ip_network(f"{address}{slash}{length}", strict=False)
        given = ip_address(address)
    except ValueError:
        raise NetworkTextError(_not_a_network(text)) from None
    if given != network.network_address:
        one = f"{given}/{network.max_prefixlen}"
        raise NetworkTextError(f'"{text}" has host bits; did you mean {network} or {one}?')
    if given.is_unspecified and network.num_addresses == 1:
        raise NetworkTextError(f'"{text}" is nobody\'s address; everyone is {given}/0')
    return plain(network)


def plain(network: Network) -> Network:
    """The IPv4 network that an IPv4-mapped one means: packets carry it that way."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def merged(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The fewest networks with the same addresses: IPv4 first, each family in order."""
    fours, sixes = [], []
    for network in map(plain, networks):
        if isinstance(network, IPv4Network):
            fours.append(network)
        else:
            sixes.append(network)
    return (*collapse_addresses(fours), *collapse_addresses(sixes))


def distinct(networks: Iterable[Network]) -> tuple[Network, ...]:
    """These networks in order, each once: IPv4 first."""
    return tuple(sorted({plain(network) for network in networks}, key=get_mixed_type_key))


class NetworkSet:
    """Networks arranged for many lookups: one dictionary access for each prefix length in use."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._blocks: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            bits = network.max_prefixlen - network.prefixlen
            blocks = self._blocks.setdefault((network.version, bits), set())
            blocks.add(int(network.network_address) >> bits)

    def holding(self, address: Address) -> Network | None:
        """A network of the set that the address is in."""
        number = int(address)
        for (version, bits), blocks in self._blocks.items():
            if version == address.version and number >> bits in blocks:
                return ip_network((number >> bits << bits, address.max_prefixlen - bits))
        return None

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(
            version == address.version and number >> bits in blocks
            for (version, bits), blocks in self._blocks.items()
        )


def everyone_in(networks: Iterable[Network]) -> tuple[Network, ...]:
    """``0.0.0.0/0`` and ``::/0`` where these networks come to that, even in two halves."""
    return tuple(network for network in merged(networks) if network.prefixlen == 0)


def _with_mask(text: str) -> str:
    try:
        return f'"{text}": write the prefix length; did you mean {ip_network(text, strict=False)}?'
    except ValueError:
        return _not_a_network(text)


def _not_a_network(text: str) -> str:
    return f'"{text}" is no network; write one like 10.0.0.0/24, fd00:10::/64 or 10.0.0.5'
