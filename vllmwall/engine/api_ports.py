"""The ports that the operator opened as APIs: by command, saved by one, or in the configuration.

Promises: they outlive the daemon, saved ones a reboot; a damaged file is moved aside and reported,
never a crash, and opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from vllmwall.decide.opened import OpenedApi
from vllmwall.engine.saved_apis import FILE_NAME, ApiError, read_saved, write_saved
from vllmwall.linux.files import save_text
from vllmwall.networks.records import VersionedFile, load, parsed, text_of

STATE_NAME = "apis.json"
Origin = Literal["runtime", "saved", "configuration"]


@dataclass(frozen=True, kw_only=True)
class _File(VersionedFile):
    apis: tuple[OpenedApi, ...] = ()


class ApiPorts:
    """The opened ports of this node. ``runtime_dir`` has those of commands, ``conf_d`` the file
    of saved ones; None: nothing is read or kept."""

    def __init__(self, runtime_dir: Path | None = None, conf_d: Path | None = None) -> None:
        self._state = runtime_dir and runtime_dir / STATE_NAME
        self.saved_path = conf_d and conf_d / FILE_NAME
        self._lost = self._unread = ""
        self._configured: tuple[OpenedApi, ...] = ()
        self._saved: tuple[OpenedApi, ...] = ()
        self._runtime = self._load()

    def configure(self, configured: Iterable[OpenedApi]) -> None:
        """Take over a configuration, in which those of the saved file are too."""
        try:
            self._saved = read_saved(self.saved_path) if self.saved_path else ()
            self._unread = ""
        except ApiError as error:
            self._unread = str(error)
        self._configured = tuple(one for one in configured if one not in self._saved)

    @property
    def problems(self) -> tuple[str, ...]:
        """The files that could not be read."""
        return tuple(filter(None, (self._lost, self._unread)))

    def opened(self) -> tuple[OpenedApi, ...]:
        """Those in force."""
        return (*self._configured, *self._saved, *self._runtime)

    def planned(self, configured: Iterable[OpenedApi]) -> tuple[OpenedApi, ...]:
        """Those that would be in force with this configuration."""
        return (*configured, *self._runtime)

    def origins(self) -> dict[tuple[int, str], Origin]:
        """Where each port and workload comes from."""
        parts: tuple[tuple[Origin, tuple[OpenedApi, ...]], ...] = (
            ("runtime", self._runtime),
            ("saved", self._saved),
            ("configuration", self._configured),
        )
        return {(one.port, one.workload): origin for origin, part in parts for one in part}

    def add(self, one: OpenedApi, *, save: bool) -> None:
        """Open one more. Of the same port and workload the last counts. Raises ApiError."""
        if save:
            self._save((*_without(self._saved, one), replace(one, root=None)))
        self._keep((*_without(self._runtime, one), one))

    def remove(self, one: OpenedApi, *, save: bool) -> None:
        """Take back what `add` added. Raises ApiError, which says where else it comes from;
        nothing was changed then."""
        key = (one.port, one.workload)
        found = self.origins().get(key)
        if found is None:
            raise ApiError(f"port {one.port} of {one.workload} was not opened by a command")
        if found == "configuration":
            raise ApiError(
                f"port {one.port} of {one.workload} is opened by an [[api]] section of the "
                "configuration. Remove it there, then run `vllmwall reload`"
            )
        if found == "saved" and not save:
            raise ApiError(
                f"port {one.port} of {one.workload} is saved in {self.saved_path}. Use `vllmwall "
                f"api remove {one.port} --save`"
            )
        if save:
            self._save(_without(self._saved, one))
        self._keep(_without(self._runtime, one))

    def _save(self, saved: tuple[OpenedApi, ...]) -> None:
        if self.saved_path is not None:
            read_saved(self.saved_path)  # a file with other keys in it is refused, not replaced
            write_saved(self.saved_path, saved)
        self._saved = saved

    def _keep(self, runtime: tuple[OpenedApi, ...]) -> None:
        if self._state is not None and runtime != self._runtime:
            try:
                save_text(self._state, text_of(_File(apis=runtime)), mode=0o600)
            except OSError as error:
                raise ApiError(
                    f"{self._state} cannot be written: {error.strerror or error}"
                ) from error
        self._runtime = runtime

    def _load(self) -> tuple[OpenedApi, ...]:
        if self._state is None:
            return ()
        parse: Callable[[str], _File] = partial(parsed, _File)
        try:
            found, problem = load(self._state, parse)
        except FileNotFoundError:
            return ()
        if found is None:
            self._lost = f"{problem}. The ports in it must be opened again"
            return ()
        return found.apis


def _without(apis: Iterable[OpenedApi], one: OpenedApi) -> tuple[OpenedApi, ...]:
    key = (one.port, one.workload)
    return tuple(each for each in apis if (each.port, each.workload) != key)
