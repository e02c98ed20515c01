"""The bootstrap root of a real NCCL: ``python nccl_root.py LIBRARY``.

`ncclGetUniqueId` opens the socket at which all ranks meet, without a GPU and without CUDA. Says
``ready`` and stays until its input ends.
"""

from __future__ import annotations

import ctypes
import sys

_UNIQUE_ID_BYTES = 128  # nccl.h: NCCL_UNIQUE_ID_BYTES


def main(library: str) -> None:
    """Open the root and wait. Raises SystemExit where NCCL refuses."""
    nccl = ctypes.CDLL(library)
    status = nccl.ncclGetUniqueId(ctypes.create_string_buffer(_UNIQUE_ID_BYTES))
    if status:
        sys.exit(f"ncclGetUniqueId: error {status}")
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
