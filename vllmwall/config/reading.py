"""Reads the configuration in a process of its own: pydantic is gone when that has ended.

With what it imports pydantic is a third of the daemon's memory and of its start, and needed for a
moment. Where the process cannot be had the configuration is read here, which costs the memory and
nothing else.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vllmwall.config import ConfigError, Problem, load
from vllmwall.linux.helper_process import Apart, OtherVersionError

if TYPE_CHECKING:
    from vllmwall.config.settings import Settings

    Read = Settings | tuple[Problem, ...]

_CODE = (
    "from vllmwall.linux import helper_process; from vllmwall.config import reading\n"
    "helper_process.say(reading.read(sys.argv[1]))"
)
_OTHER_VERSION = "cannot be read: another version of vllmwall is installed now; restart the daemon"


class Reading:
    """A configuration that is being read. Starts at once, so that others can begin meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = Apart(_CODE, str(path))

    def settings(self) -> Settings:
        """What it says. Waits; raises ConfigError with every problem found."""
        try:
            answer = cast("Read | None", self._process.answer())
        except OtherVersionError:
            raise ConfigError([Problem(str(self._path), None, "", _OTHER_VERSION)]) from None
        return load(self._path).settings() if answer is None else usable(answer)


def read(path: str | Path) -> Read:
    """The settings of a file, or what is wrong with it. For a process that ends soon."""
    gc.disable()  # before there is anything to collect
    try:
        return load(Path(path)).settings()
    except ConfigError as error:
        return error.problems


def usable(answer: Read) -> Settings:
    """Raises ConfigError where there were problems."""
    if isinstance(answer, tuple):
        raise ConfigError(answer)
    return answer
