"""The files of a process by the names that it knows them by, read as root without being led out.

A symbolic link inside a container names a path of the container. The kernel, asked by us for
``/proc/PID/root/...``, would follow an absolute one into the host; so links are followed here,
step by step, below the process's root. Only names, modes and the contents of regular files are
read; nothing is opened that could act or wait.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import BinaryIO

_LINKS = 40  # as the kernel's own limit, include/linux/namei.h: MAXSYMLINKS


@dataclass(frozen=True)
class View:
    """The files of a process, below its root."""

    pid: int

    @property
    def root(self) -> str:
        """Where its root is for us."""
        return f"/proc/{self.pid}/root"

    def absolute(self, path: str) -> str:
        """A path with the process's working directory before it where it needs one."""
        if path.startswith("/"):
            return path
        try:
            here = os.readlink(f"/proc/{self.pid}/cwd")  # noqa: PTH115
        except OSError:
            here = "/"
        return f"{here}/{path}"

    def resolve(self, path: str) -> str | None:
        """The path without any link in it; None: it is not there, or leads in a circle."""
        todo = [part for part in reversed(self.absolute(path).split("/")) if part]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in (".", ".."):
                del done[len(done) - (part == "..") :]
                continue
            status = self._status([*done, part])
            if status is None:
                return None
            if not stat.S_ISLNK(status.st_mode):
                done.append(part)
                continue
            links += 1
            target = self._target([*done, part])
            if target is None or links > _LINKS:
                return None
            if target.startswith("/"):
                done = []
            todo.extend(one for one in reversed(target.split("/")) if one)
        return "/" + "/".join(done)

    def status(self, path: str) -> os.stat_result | None:
        """The status of the file at the path; None: there is none."""
        real = self.resolve(path)
        return None if real is None else self._status(real.split("/"))

    def is_directory(self, path: str) -> bool:
        """The path leads to a directory."""
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none where it may not be read."""
        real = self.resolve(path)
        if real is None:
            return []
        try:
            return sorted(os.listdir(self.root + real))  # noqa: PTH208
        except OSError:
            return []

    def open(self, path: str) -> BinaryIO | None:
        """A regular file for reading; None: there is none."""
        real = self.resolve(path)
        if real is None:
            return None
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            if not stat.S_ISREG(os.lstat(self.root + real).st_mode):
                return None
            file = os.fdopen(os.open(self.root + real, flags), "rb")
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        return None

    def _status(self, parts: list[str]) -> os.stat_result | None:
        try:
            return os.lstat("/".join((self.root, *parts)))
        except (OSError, ValueError):
            return None

    def _target(self, parts: list[str]) -> str | None:
        try:
            return os.readlink("/".join((self.root, *parts)))  # noqa: PTH115
        except OSError:
            return None
