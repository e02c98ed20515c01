"""The cgroups that are guarded as soon as the kernel makes them, before a process is in them.

A guard matches a cgroup by its number, and a unit or container that restarts gets another one. So
the paths of those that were guarded last are remembered, in the runtime directory too, and guarded
again at `cgroup_mkdir`, also by the next daemon.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from fnmatch import translate
from pathlib import Path

from vllmwall.linux.cgroups import SLICE, comes_again
from vllmwall.linux.files import replace_file
from vllmwall.model import Guard
from vllmwall.recognize.definitions import WorkloadDefinition

_MOST = 512  # a pass looks for each of them
_MOST_OF_ONE = 64  # below one user's slice: he must not push out what others started


class Armed:
    """Paths and the network namespaces (inodes) in which they must be guarded.

    ``home`` are the namespaces of what was only configured and never seen; ``file`` keeps what
    was seen, None: nothing does.
    """

    def __init__(self, home: Iterable[int], file: Path | None = None) -> None:
        self._home = frozenset(home)
        self._file = file
        self._seen: dict[str, frozenset[int]] = _read(file) if file else {}
        self._globs: tuple[re.Pattern[str], ...] = ()

    def configure(self, units: Iterable[str], definitions: Iterable[WorkloadDefinition]) -> None:
        """Arm also what the configuration names: globs over units' names and cgroups' paths."""
        matches = [definition.match for definition in definitions]
        globs = [*units, *(one.unit for one in matches), *(one.cgroup for one in matches)]
        self._globs = tuple(re.compile(translate(glob)) for glob in globs if glob)

    def namespaces(self, path: str) -> frozenset[int]:
        """The namespaces in which a cgroup of this path must be guarded."""
        if path == SLICE or any(
            glob.match(name) for glob in self._globs for name in (path, path.rpartition("/")[2])
        ):
            return self._home | self._seen.get(path, frozenset())
        return self._seen.get(path, frozenset())

    def expected(self, paths: Iterable[str]) -> Mapping[str, frozenset[int]]:
        """Everything to be guarded: what was seen, the slice, and those of ``paths`` that the
        configuration names."""
        wanted = {path: self.namespaces(path) for path in (SLICE, *self._seen, *paths)}
        return {path: spaces for path, spaces in wanted.items() if spaces}

    def learn(self, guards: Mapping[int, frozenset[Guard]]) -> None:
        """Remember the active guards whose cgroups can be made again."""
        seen = dict(self._seen)
        for namespace, those in guards.items():
            for guard in those:
                if comes_again(guard.path):  # the newest are last
                    seen[guard.path] = seen.pop(guard.path, frozenset()) | {namespace}
        self._remember(seen)

    def expect(self, path: str, namespaces: Iterable[int]) -> None:
        """Remember a cgroup that was made and has no process yet."""
        seen = {**self._seen, path: self._seen.get(path, frozenset()).union(namespaces)}
        self._remember(seen)

    def drop_ended(self, existing: Container[str]) -> None:
        """Forget the cgroups that ended and whose path does not mean the same job again."""
        kept = {one: at for one, at in self._seen.items() if comes_again(one) or one in existing}
        self._remember(kept)

    def forget(self, living: Iterable[int]) -> None:
        """Drop the namespaces that ended: their numbers can be given again."""
        alive = self._home.union(living)
        self._seen = {path: left for path, those in self._seen.items() if (left := those & alive)}

    def _remember(self, seen: dict[str, frozenset[int]]) -> None:
        shares = Counter[str]()
        kept: dict[str, frozenset[int]] = {}
        for path, spaces in reversed(seen.items()):
            owner = "/".join(path.split("/", 3)[:3])
            shares[owner] += 1
            if shares[owner] <= _MOST_OF_ONE and len(kept) < _MOST:
                kept[path] = spaces
        before, self._seen = self._seen, dict(reversed(kept.items()))
        if self._seen != before:
            self._write()

    def _write(self) -> None:
        """A full disk costs what is remembered over a restart, and nothing else."""
        if self._file is None:
            return
        text = json.dumps({path: sorted(at) for path, at in self._seen.items()})
        with suppress(OSError):
            replace_file(self._file, text.encode(), 0o600, durable=False)


def _read(file: Path) -> dict[str, frozenset[int]]:
    """What an earlier daemon remembered; nothing where that cannot be read."""
    try:
        found = json.loads(file.read_text())
        return {str(path): frozenset(map(int, spaces)) for path, spaces in found.items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return {}
