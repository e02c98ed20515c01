"""Make the kernel equal the wall: the only part of vllmwall that writes to the kernel.

`backend` says what any backend promises, `nftables` is the one there is. No module here may
import from observe, recognize, decide, report or peers.
"""
