"""The answer of `vllmwall explain`: the verdict for one packet, and the reason for it."""
