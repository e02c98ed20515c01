"""Private instances of the kernel's tracing, and the removal of those whose daemon was killed.

Each has buffers of its own, one for each CPU, and ends with its last reader's `close`. An
instance of which somebody holds a file open cannot be removed (EBUSY, instance_rmdir in
kernel/trace/trace.c), so removing is also the test whether its daemon still runs, in whatever
pid namespace that is. Sources: Documentation/trace/ftrace.rst (instances, per_cpu).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vllmwall.linux.trace_ring import PageFormat

MOUNTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8  # linux/mount.h
_OURS = re.compile(r"vllmwall(-[0-9a-f]{8})?(\.\d+)?")  # also those of older versions
_DAEMONS = 64  # on one machine: its own, and those of its containers
_TRIES = 3
_REMOVED = (errno.ENOENT, errno.ENODEV)  # by another daemon that starts, before it was opened
_PAGES = 128  # read at a time: a storm of events must not keep the loop from its other work
_DROPPED = re.compile(r"^(?:overrun|dropped events): (\d+)$", re.MULTILINE)


class Instance:
    """A new instance ``name``, or ``name.2`` and so on where others live. It records nothing yet.

    Raises OSError, and UnknownFormatError where the pages have a layout that is not known.
    """

    def __init__(self, name: str) -> None:
        remove_abandoned()
        self._epoll = select.epoll()
        self._cpus: dict[int, Path] = {}
        self.folder, self._pipe = _opened(mounted() / "instances" / name)
        try:
            self.pages = PageFormat(
                self.text("events/header_page"), self.text("events/header_event")
            )
            # Wake at the first record, not at half a buffer: before epoll chooses its wait queue.
            self.write("buffer_percent", "0")
            self._epoll.register(self._pipe, select.EPOLLIN)
            self._open_cpus()
        except Exception:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Remove the instance."""
        for descriptor in (self._pipe, *self._cpus):
            os.close(descriptor)
        self._epoll.close()
        with suppress(OSError):
            self.folder.rmdir()

    def text(self, name: str) -> str:
        """A file of the instance."""
        return (self.folder / name).read_text()

    def write(self, name: str, value: str) -> None:
        """Write a file of the instance."""
        with (self.folder / name).open("w") as file:
            file.write(value)

    def read(self) -> Iterator[bytes]:
        """Pages with records, from each CPU in turn, a bounded number. Does not wait."""
        left = _PAGES
        while left > 0:
            ready = [one for one, _ in self._epoll.poll(0)]
            if ready == [self._pipe] and not self._open_cpus():
                return  # it became readable between the two looks
            found = [page for one in ready if (page := self._page(one))]
            if not found:
                return
            left -= len(found)
            yield from found

    def lost(self) -> int:
        """How many records the kernel had to drop since the instance was made."""
        total = 0
        for stats in self.folder.glob("per_cpu/cpu*/stats"):
            with suppress(OSError):
                total += sum(map(int, _DROPPED.findall(stats.read_text())))
        return total

    def _page(self, descriptor: int) -> bytes:
        if descriptor in self._cpus:
            with suppress(BlockingIOError):
                return os.read(descriptor, self.pages.size)
        return b""

    def _open_cpus(self) -> bool:
        """Open the buffers of CPUs that have come; whether there are any."""
        known = set(self._cpus.values())
        for file in self.folder.glob("per_cpu/cpu*/trace_pipe_raw"):
            if file not in known:
                descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                if _is_broken(descriptor):  # a CPU that was never there has no buffer
                    os.close(descriptor)
                else:
                    self._cpus[descriptor] = file
                    self._epoll.register(descriptor, select.EPOLLIN)
        return len(self._cpus) > len(known)


def _is_broken(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _opened(folder: Path) -> tuple[Path, int]:
    """The first free name, and a descriptor that claims it and wakes at records of every CPU."""
    for number in range(1, _DAEMONS + 1):
        made = folder if number == 1 else folder.with_name(f"{folder.name}.{number}")
        for _ in range(_TRIES):
            try:
                made.mkdir()
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                return made, os.open(made / "trace_pipe", flags)
            except FileExistsError:
                break
            except OSError as error:
                if error.errno not in _REMOVED:
                    raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))


def remove_abandoned() -> None:
    """Remove the instances of daemons that were killed, whatever their runtime folder."""
    for mount in MOUNTS:
        with suppress(OSError):
            for one in os.scandir(mount / "instances"):
                if _OURS.fullmatch(one.name):
                    with suppress(OSError):  # it is in use, or another daemon was faster
                        os.rmdir(one.path)  # noqa: PTH106


def mounted() -> Path:
    """Where tracefs is mounted. Mounts it if the kernel has it and it is not mounted yet.

    Raises OSError.
    """
    for mount in MOUNTS:
        if (mount / "instances").is_dir():
            return mount
    place = MOUNTS[0]
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(b"nodev", os.fsencode(place), b"tracefs", flags, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"tracefs cannot be mounted: {os.strerror(number)}", str(place))
    return place
