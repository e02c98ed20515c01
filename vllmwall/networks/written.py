"""Replace a file in one step, so that a reader or a crash meets the old text or the new one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_text(path: Path, text: str, mode: int) -> None:
    """Make ``path`` hold ``text`` with the permissions ``mode``. Raises OSError.

    The directory is made when it is missing. The text is on the disk before it has the name.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
