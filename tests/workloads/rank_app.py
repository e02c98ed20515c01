"""A web app around a rank of real torch.distributed; imports nothing of ours.

`app` is what uvicorn, gunicorn, hypercorn and granian serve; as a script it serves itself with
uvicorn on ``--port``, as on rank 0 of torchrun. With ``--title`` it overwrites its command line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping

import torch.distributed as dist

Message = MutableMapping[str, object]


def join() -> None:
    """Open a store on every address and gloo's listener, on ports that nobody chose."""
    if "MASTER_ADDR" in os.environ and "RANK" in os.environ:
        dist.init_process_group("gloo")
    else:
        at = os.environ["STORE"]
        dist.init_process_group("gloo", f"tcp://{at}", rank=0, world_size=1)
    dist.barrier()


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Join when the server starts; answer nothing."""
    while scope["type"] == "lifespan":
        asked = (await receive())["type"]
        if asked == "lifespan.startup":
            join()
            print("joined", flush=True)
        await send({"type": f"{asked}.complete"})


def main() -> None:
    """Serve on the port of the command line."""
    import uvicorn

    port = int(sys.argv[sys.argv.index("--port") + 1])
    if "--title" in sys.argv:
        import setproctitle

        setproctitle.setproctitle(sys.argv[sys.argv.index("--title") + 1])
    uvicorn.run(app, host="0.0.0.0", port=port)


if __name__ == "__main__":
    main()
