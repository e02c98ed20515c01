"""A real torch.distributed training job: DDP over gloo, on the CPU. Started by torchrun.

Prints one line a step (``step 3 loss 0.0421``) and ``trained`` at its end, which means that
every rank got the gradients of every other one. Runs in .venv-torch; imports nothing of ours.
"""

from __future__ import annotations

import argparse
import datetime
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def train(steps: int, pause: float) -> None:
    """Fit a small linear model, a step every ``pause`` seconds."""
    torch.manual_seed(dist.get_rank())
    model = DistributedDataParallel(torch.nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        inputs = torch.randn(32, 64)
        loss = torch.nn.functional.mse_loss(model(inputs), inputs.sum(dim=1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.4f}", flush=True)
        time.sleep(pause)


def main() -> None:
    """Join the others that torchrun told us of, train, leave."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between steps")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for others")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=arguments.timeout))
    train(arguments.steps, arguments.pause)
    dist.barrier()
    print("trained", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
