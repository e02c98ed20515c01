"""The contents of files that processes name: the loop never waits for one.

Files are asked for in one pass and known in a later one. Processes of ours read them
(`vllmwall.observe.files`), one for each user at a time, and end. A user whose files do not answer
waits longer each time, and delays no other user.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vllmwall.linux.helper_process import HelperError, HelperProcess
from vllmwall.observe.files import MOST_HUNG, Wanted, start_reading
from vllmwall.observe.proc import read_stat

_MOST_READERS = 3
_MOST_AT_ONCE = 16  # files that one process reads
_MOST_EACH = 256  # files of one user that are remembered
_AGAIN_SECONDS = 60.0  # after a file that did not answer; doubled each time
_LONGEST_SECONDS = 3600.0
_NOT_YET = "it has not been read yet"
_TOO_MANY = f"this user names more than {_MOST_EACH} files"


@dataclass
class _File:
    """``unread`` is why its content is not known; empty: ``found`` is all that there is to know.
    ``due`` is when it is read (again), in monotonic seconds."""

    wanted: Wanted
    uid: int
    every: float
    found: Mapping[str, object] = field(default_factory=dict)
    unread: str = _NOT_YET
    due: float = 0.0
    silences: int = 0


@dataclass
class _Reader:
    process: HelperProcess
    files: list[_File]
    answered: int = 0


class UserFiles:
    """Reads files for the loop, which polls `filenos` and calls `advance`."""

    def __init__(self) -> None:
        self._files: dict[Wanted, _File] = {}
        self._count: dict[int, int] = {}
        self._readers: dict[int, _Reader] = {}
        self._served: dict[int, float] = {}
        self._hung: dict[int, dict[int, int]] = {}

    def content(
        self, wanted: Wanted, uid: int, every: float = math.inf
    ) -> tuple[Mapping[str, object], str]:
        """What is in a file that a process of this user names, and why that is not known.

        The reason is empty where it is known. A file that may not be read holds nothing. It is
        read again after ``every`` seconds, and its old content holds meanwhile.
        """
        file = self._files.get(wanted)
        if file is None:
            if self._count.get(uid, 0) >= _MOST_EACH:
                return {}, _TOO_MANY
            file = self._files[wanted] = _File(wanted, uid, every)
            self._count[uid] = self._count.get(uid, 0) + 1
        file.every = every
        return file.found, file.unread

    def forget_ended(self, living: Mapping[int, int]) -> None:
        """Forget the files of all processes but these (pid → start time)."""
        for one in list(self._files):
            if living.get(one.pid) != one.start_time:
                uid = self._files.pop(one).uid
                self._count[uid] -= 1
                if not self._count[uid]:
                    del self._count[uid]

    @property
    def filenos(self) -> tuple[int, ...]:
        """The descriptors to poll for input."""
        return tuple(one.process.fileno() for one in self._readers.values())

    @property
    def deadline(self) -> float:
        """When `advance` must be called at the latest (monotonic seconds); infinite: never."""
        ends = [one.process.deadline for one in self._readers.values()]
        if len(self._readers) < _MOST_READERS:
            ends += [one.due for one in self._files.values() if self._may_start(one.uid)]
        return min(ends, default=math.inf)

    def advance(self) -> bool:
        """Take what was read, and start to read what is due; whether anything is new."""
        is_news = False
        for uid, reader in list(self._readers.items()):
            is_news |= self._take(uid, reader)
        now = time.monotonic()
        due = [one for one in self._files.values() if one.due <= now]
        for uid in sorted({one.uid for one in due}, key=lambda uid: self._served.get(uid, 0.0)):
            if len(self._readers) < _MOST_READERS and self._may_start(uid):
                self._start(uid, [one for one in due if one.uid == uid][:_MOST_AT_ONCE])
        return is_news

    def wait(self, seconds: float) -> bool:
        """Read what is due, for at most so long; whether anything is new."""
        ends = time.monotonic() + seconds
        is_news = self.advance()
        while self._readers and (left := ends - time.monotonic()) > 0:
            poll = select.poll()
            for one in self.filenos:
                poll.register(one, select.POLLIN)
            poll.poll(left * 1000)
            is_news |= self.advance()
        return is_news

    def unanswered(self) -> Iterator[tuple[int, int, str]]:
        """The files that did not answer: user, process, reason."""
        for one in self._files.values():
            if one.unread and one.unread != _NOT_YET:
                yield one.uid, one.wanted.pid, one.unread

    def close(self) -> None:
        """End the processes."""
        for reader in self._readers.values():
            reader.process.kill()
        self._readers.clear()

    def _may_start(self, uid: int) -> bool:
        if uid in self._readers:
            return False
        hung = self._hung.get(uid, {})
        for pid, start_time in list(hung.items()):
            stat = read_stat(pid)
            if stat is None or stat.start_time != start_time:
                del hung[pid]
        return len(hung) < MOST_HUNG

    def _start(self, uid: int, files: list[_File]) -> None:
        self._served.pop(uid, None)
        self._served[uid] = time.monotonic()
        while len(self._served) > 1024:
            del self._served[next(iter(self._served))]
        for one in files:
            one.due = math.inf
        try:
            process = start_reading([one.wanted for one in files])
        except HelperError as error:
            for one in files:
                _note_silence(one, str(error))
            return
        self._readers[uid] = _Reader(process, files)

    def _take(self, uid: int, reader: _Reader) -> bool:
        """Note the new answers of a process; whether there are some."""
        before, ended, why = reader.answered, True, "others of this user did not answer"
        try:
            ended = reader.process.ended()
            for answer in reader.process.lines():
                if isinstance(answer, dict) and reader.answered < len(reader.files):
                    self._note(uid, reader.files[reader.answered], answer)
                    reader.answered += 1
        except HelperError as error:
            ended, why = True, str(error)
        if not ended:
            return reader.answered > before
        reader.process.kill()
        del self._readers[uid]
        for one in reader.files[reader.answered :]:
            _note_silence(one, why)
        return True

    def _note(self, uid: int, file: _File, answer: Mapping[str, object]) -> None:
        if "silent" in answer:
            _note_silence(file, str(answer["silent"]))
            pid = answer.get("hung")
            if isinstance(pid, int) and (stat := read_stat(pid)) is not None:
                self._hung.setdefault(uid, {})[pid] = stat.start_time
            return
        found = answer.get("found")
        file.found = found if isinstance(found, dict) else {}
        file.unread, file.silences = "", 0
        file.due = time.monotonic() + file.every


def _note_silence(file: _File, why: str) -> None:
    file.found, file.unread = {}, why
    again = min(_AGAIN_SECONDS * 2**file.silences, _LONGEST_SECONDS)
    file.silences = min(file.silences + 1, 10)
    file.due = time.monotonic() + again
