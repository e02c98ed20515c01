"""The files of a configuration: finding, reading and merging them.

Every file is read once, and its owner and mode are checked. A file that cannot be read becomes a
problem, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vllmwall.cidr import parse_network
from vllmwall.config.lines import line_of, lines_of
from vllmwall.config.problems import KeyPath, Problem, key_text
from vllmwall.config.toml import TOMLDecodeError, loads
from vllmwall.linux.files import directory_complaint, read_trusted
from vllmwall.model import Network

Tree = Mapping[str, object]
# An audience is one value even if it is a list: a later file replaces it, so that it can also
# restrict it.
_ONE_VALUE = ("policy",)


@dataclass(frozen=True)
class TomlFile:
    """One file: its values, and their lines."""

    path: Path
    tree: Tree
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def problem(self, key: KeyPath, message: str) -> Problem:
        """A problem with the value at ``key``."""
        return Problem(str(self.path), line_of(self.lines, key), key_text(key), message)

    def place(self, key: KeyPath) -> str:
        """``file:line`` of a key."""
        line = line_of(self.lines, key)
        return f"{self.path}:{line}" if line else str(self.path)

    def at(self, key: KeyPath) -> object:
        """The value of a key; None: the file has no such key."""
        found: object = self.tree
        for part in key:
            found = found.get(str(part)) if isinstance(found, Mapping) else None
        return found

    def networks(self, key: KeyPath) -> Iterator[tuple[KeyPath, Network]]:
        """The valid networks of a list, each with its own key."""
        listed = self.at(key)
        for index, item in enumerate(listed if isinstance(listed, list) else ()):
            with suppress(ValueError, AttributeError):  # reported by its own validator
                yield (*key, index), parse_network(item)


@dataclass
class FilesRead:
    """The files that could be read, in the order of merging, and all problems."""

    files: list[TomlFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Read one more file. A missing one is skipped."""
        try:
            content = read_trusted(path)
            self.files.append(TomlFile(path, loads(content.text), lines_of(content.text)))
        except FileNotFoundError:
            return
        except TOMLDecodeError as error:
            self.problems.append(_syntax_problem(path, str(error), content.text))
        except UnicodeDecodeError as error:
            message = f"is not UTF-8 text (byte {error.start})"
            self.problems.append(Problem(str(path), None, "", message))
            return
        except OSError as error:
            self.problems.append(Problem(str(path), None, "", _reason(error)))
            return
        if content.complaint is not None:
            self.problems.append(Problem(str(path), None, "", content.complaint))


def read_files(path: Path, conf_d: Path) -> FilesRead:
    """``path``, then ``conf_d/*.toml`` in the order of their names. Missing files are skipped."""
    reading = FilesRead()
    for directory in dict.fromkeys((path.parent, conf_d)):
        complaint = directory_complaint(directory)
        if complaint is not None:
            reading.problems.append(Problem(str(directory), None, "", complaint))
    for file in (path, *_drop_ins(conf_d, reading)):
        reading.add(file)
    return reading


def merge(files: list[TomlFile]) -> Tree:
    """One tree of all files: tables merge, lists concatenate, other values are replaced."""
    tree: Tree = {}
    for file in files:
        tree = _merged_tables(tree, file.tree, ())
    return tree


def _drop_ins(conf_d: Path, reading: FilesRead) -> list[Path]:
    try:
        names = sorted(path.name for path in conf_d.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        reading.problems.append(Problem(str(conf_d), None, "", _reason(error)))
        return []
    return [conf_d / name for name in names if name.endswith(".toml") and name[0] != "."]


def _syntax_problem(path: Path, message: str, text: str) -> Problem:
    """tomllib ends its messages with ``(at line 3, column 5)`` or ``(at end of document)``."""
    found = re.search(r"\(at line (\d+), column \d+\)$", message)
    line = int(found.group(1)) if found else len(text.splitlines())
    return Problem(str(path), line, "", f"is not valid TOML: {message}")


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _merged_tables(first: Tree, later: Tree, path: KeyPath) -> Tree:
    merged = dict(first)
    for key, value in later.items():
        merged[key] = _merged_values(merged.get(key), value, (*path, key))
    return merged


def _merged_values(first: object, later: object, path: KeyPath) -> object:
    if isinstance(first, Mapping) and isinstance(later, Mapping):
        return _merged_tables(first, later, path)
    if isinstance(first, list) and isinstance(later, list) and path[:1] != _ONE_VALUE:
        return [*first, *later]
    return later
