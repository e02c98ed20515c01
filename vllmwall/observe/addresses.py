"""The addresses of the network namespace that we are in."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import psutil

from vllmwall.model import Address


def own_addresses() -> frozenset[Address]:
    """Every address of every interface. Raises OSError."""
    return frozenset(
        ip_address(one.address.partition("%")[0])
        for those in psutil.net_if_addrs().values()
        for one in those
        if one.family in (socket.AF_INET, socket.AF_INET6)
    )
