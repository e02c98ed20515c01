"""One rank of torch.distributed, alone in its group: ``python rank.py nccl|gloo``.

Says ``group`` when the group is made and ``reduced`` after a reduction, and waits for a line in
between. Imports nothing of ours.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist


def main(transport: str) -> None:
    """Make a group of one, and reduce a tensor where the transport wants it."""
    device = "cuda" if transport == "nccl" else "cpu"
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
    dist.init_process_group(transport, store=store, rank=0, world_size=1)
    print("group", flush=True)
    sys.stdin.readline()
    tensor = torch.ones(4, device=device)
    dist.all_reduce(tensor)
    print(f"reduced {float(tensor.sum())}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
