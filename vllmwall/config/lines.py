"""The lines of keys in a TOML text, which tomllib does not provide.

Promises a line for every key and list item of a text that tomllib has accepted. It does not check
syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vllmwall.config.problems import KeyPath
from vllmwall.config.toml import loads

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*)
    | (?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
    | (?P<newline>\n)
    | (?P<mark>[\[\]{}=,.])
    | (?P<bare>[^\s\[\]{}=,.\#"']+)""",
    re.VERBOSE | re.DOTALL,
)
_END_OF_VALUE = ("\n", ",", "]", "}", "")


@dataclass(frozen=True)
class _Token:
    text: str
    line: int


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line of every key path in ``text``, from 1. ``text`` must be valid TOML."""
    return _Scan(text).lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of ``path``, or of the innermost part of it that the text has."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


class _Scan:
    """One pass over the tokens; every method leaves ``_at`` behind what it has read."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._tokens = _tokens(text)
        self._at = 0
        self._counts: dict[KeyPath, int] = {}
        table: KeyPath = ()
        while self._peek():
            if self._peek() == "\n":
                self._at += 1
            elif self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> str:
        return self._tokens[self._at].text

    def _header(self) -> KeyPath:
        """``[a.b]`` or ``[[a.b]]``: the path of the following pairs."""
        brackets = 2 if self._tokens[self._at + 1].text == "[" else 1
        self._at += brackets
        path: KeyPath = ()
        line = self._tokens[self._at].line
        for key in self._keys():
            path = (*self._inside(path), key)
        self._at += brackets
        if brackets == 2:
            self._counts[path] = self._counts.get(path, 0) + 1
        path = self._inside(path)
        self._note(path, line)
        return path

    def _inside(self, path: KeyPath) -> KeyPath:
        """The last table so far where ``path`` is a list of tables."""
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _pair(self, table: KeyPath) -> None:
        line = self._tokens[self._at].line
        path = (*table, *self._keys())
        self._at += 1  # =
        self._note(path, line)
        self._value(path)

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self._peek() == ".":
            self._at += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        text = self._peek()
        self._at += 1
        return str(loads(f"key = {text}")["key"]) if text[0] in "\"'" else text

    def _value(self, path: KeyPath) -> None:
        if self._peek() == "[":
            self._list(path)
        elif self._peek() == "{":
            self._inline_table(path)
        while self._peek() not in _END_OF_VALUE:
            self._at += 1

    def _list(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._peek() != "]":
            if self._peek() in ("\n", ","):
                self._at += 1
                continue
            self._note((*path, index), self._tokens[self._at].line)
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._peek() != "}":
            if self._peek() in ("\n", ","):
                self._at += 1
            else:
                self._pair(path)
        self._at += 1

    def _note(self, path: KeyPath, line: int) -> None:
        """Record the line of a path, and of the tables around it where they are new."""
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)


def _tokens(text: str) -> list[_Token]:
    found, line = [], 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "skip":
            found.append(_Token(match.group(), line))
        line += match.group().count("\n")
    return [*found, _Token("", line)]
