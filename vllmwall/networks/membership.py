"""Networks arranged for many questions, so that a thousand peers cost as much as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vllmwall.model import Address, Network


class Networks:
    """A set of networks that says quickly whether it holds an address: one look a size."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._blocks: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            bits = network.max_prefixlen - network.prefixlen
            blocks = self._blocks.setdefault((network.version, bits), set())
            blocks.add(int(network.network_address) >> bits)

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(
            version == address.version and number >> bits in blocks
            for (version, bits), blocks in self._blocks.items()
        )
