"""Make the kernel equal the wall: the only part of vllmwall that writes to the kernel.

`backend` is the protocol that any backend keeps; `nftables` implements it.
"""
