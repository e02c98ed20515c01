"""A stand-in for `vllm serve`: it opens the sockets that vLLM opens, and has no model.

Installed as a script called ``vllm`` and started like it. The root serves HTTP with uvicorn on
a socket of its own, as vLLM's API server does; its children are real torch.distributed ranks
that meet at a TCPStore on ``--master-port`` and talk over gloo, renamed as vLLM's workers are.
Runs in .venv-torch; imports nothing of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping

Message = MutableMapping[str, object]
ANSWER = {"object": "text_completion", "choices": [{"index": 0, "text": " (a stand-in's answer)"}]}


def work(rank: int, size: int, address: str, port: int, ready: Callable[[], object]) -> None:
    """One worker: joins the others and keeps exchanging tensors with them."""
    import setproctitle
    import torch
    import torch.distributed as dist

    setproctitle.setproctitle(f"VLLM::Worker_TP{rank}")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://{address}:{port}", rank=rank, world_size=size)
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == size
    ready()
    while True:
        dist.all_reduce(total)
        time.sleep(0.5)


async def application(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer every request with the same completion."""
    if scope["type"] != "http":
        return
    await receive()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(ANSWER).encode()})


def serve(listening: socket.socket) -> None:
    """Serve HTTP as vLLM does: uvicorn on a socket that was bound long before."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
    asyncio.run(server.serve(sockets=[listening]))


def parse() -> argparse.Namespace:
    """The part of vLLM's command line that we need."""
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--master-addr", default="127.0.0.1")
    parser.add_argument("--master-port", type=int, default=29501)
    return parser.parse_args()


def main() -> None:
    """Bind the API port, start the workers, and listen when they are ready."""
    arguments = parse()
    listening = socket.create_server((arguments.host, arguments.port), backlog=2048)
    listening.close()  # vLLM 0.32 binds early and listens last; a port in use fails here
    spawn = multiprocessing.get_context("spawn")
    size = arguments.tensor_parallel_size
    ready = spawn.Barrier(size + 1)
    meeting = (arguments.master_addr, arguments.master_port)
    for rank in range(size):
        spawn.Process(target=work, args=(rank, size, *meeting, ready.wait), daemon=True).start()
    ready.wait()
    listening = socket.create_server((arguments.host, arguments.port), backlog=2048)
    print("serving", flush=True)
    serve(listening)


if __name__ == "__main__":
    main()
