"""Configurations read in a process of its own, which the daemon's loop never waits for.

With what it imports pydantic is a third of the daemon's memory and of its start, and needed for a
moment.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vllmwall.config import ConfigError, Problem, load
from vllmwall.config.settings import Settings
from vllmwall.linux.helper_process import HelperError, HelperProcess, OtherVersionError, answer
from vllmwall.linux.wire import Fit, decode, encode

_CODE = "import sys\nfrom vllmwall.config import reading\nreading.answer_with(sys.argv[1])"
_RESTART = "Restart the daemon: systemctl restart vllmwall."
_AGAIN = "Try again; `vllmwall check` reads the same files."
_MOST_REQUESTS = 64


@dataclass(frozen=True)
class Reading:
    """A configuration that was read: its settings, or None and what is wrong with it."""

    settings: Settings | None
    problems: tuple[Problem, ...] = ()

    def usable(self) -> Settings:
        """The settings. Raises ConfigError with every problem found."""
        if self.settings is None:
            raise ConfigError(self.problems)
        return self.settings


@dataclass(frozen=True)
class ReadRequest:
    """One request for the configuration. ``is_wanted`` is called before a process is started."""

    done: Callable[[Reading], None]
    is_wanted: Callable[[], bool]


class ConfigReader:
    """Reads ``path`` for the loop, which polls `fileno` and calls `advance`.

    One process runs at a time. Requests that come meanwhile share the next one: what it reads is
    as new as each of them needs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: HelperProcess | None = None
        self._served: list[ReadRequest] = []
        self._waiting: list[ReadRequest] = []

    def request(
        self, done: Callable[[Reading], None], is_wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Have ``done`` called with the configuration. False: too many requests wait already."""
        if len(self._waiting) >= _MOST_REQUESTS:
            return False
        self._waiting.append(ReadRequest(done, is_wanted))
        if self._process is None:
            self._start()
        return True

    @property
    def fileno(self) -> int | None:
        """The descriptor to poll for input; None: no process runs."""
        return self._process.fileno() if self._process else None

    @property
    def deadline(self) -> float | None:
        """When `advance` must be called at the latest (monotonic seconds); None: no process."""
        return self._process.deadline if self._process else None

    def advance(self) -> None:
        """Read what the process has written, and serve the requests when it has ended."""
        if self._process is None:
            return
        try:
            if not self._process.ended():
                return
            found = decode(Reading, self._process.result(), Fit.WHOLE)
        except (HelperError, ValueError) as error:
            found = self._failure(error)
        self._finish(found)

    def close(self) -> None:
        """End the process; its requests are dropped."""
        if self._process is not None:
            self._process.kill()
        self._process, self._served, self._waiting = None, [], []

    def _start(self) -> None:
        self._served = [one for one in self._waiting if one.is_wanted()]
        self._waiting = []
        if not self._served:
            return
        try:
            self._process = HelperProcess(_CODE, str(self._path))
        except HelperError as error:
            self._finish(self._failure(error))

    def _finish(self, found: Reading) -> None:
        served, self._served, self._process = self._served, [], None
        for one in served:
            one.done(found)
        if self._process is None:  # no ``done`` has requested another one
            self._start()

    def _failure(self, error: Exception) -> Reading:
        hint = _RESTART if isinstance(error, OtherVersionError) else _AGAIN
        return Reading(
            None, (Problem(str(self._path), None, "", f"cannot be read: {error}. {hint}"),)
        )


def read(path: Path) -> Reading:
    """Read the configuration in this process: pydantic stays in its memory."""
    try:
        return Reading(load(path).settings())
    except ConfigError as error:
        return Reading(None, error.problems)


def answer_with(path: str) -> None:
    """The helper process: answer with the configuration in ``path``, and end."""
    gc.disable()  # it ends before there is anything to collect
    answer(encode(read(Path(path))))
