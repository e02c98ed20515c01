"""The documentation as tests read it: pages, links, fenced blocks and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(vllmwall [^`\n]+)`(?!`)")
_PROMPT = re.compile(r"[$#] ")
_HEREDOC = re.compile(r"<<'?(\w+)'?")
_SEPARATORS = {";", "&&", "||", "|", "&", "(", ")", "--", "exec", "do", "then", "!"}
_PROGRAM = "vllmwall"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its first line, its language."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command that a page tells its reader to run.

    ``text`` is shell, perhaps over several lines. ``sample`` is the output that the page shows.
    """

    page: str
    line: int
    text: str
    sample: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """README, CONTRIBUTING, SECURITY, CHANGELOG and every page below docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order, without the indentation of the fence."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        indent, language, inside = found.groups()
        line = text.count("\n", 0, found.start(3)) + 1
        lines = [one.removeprefix(indent) for one in inside.splitlines()]
        yield Block(str(page.relative_to(ROOT)), line, language, "\n".join(lines))


def commands(page: Path) -> Iterator[Command]:
    """Everything that the page's ``sh`` and ``console`` blocks tell the reader to run."""
    for block in blocks(page):
        if block.language == "sh":
            yield from _script(block)
        elif block.language == "console":
            yield from _session(block)


def inline_commands(page: Path) -> Iterator[str]:
    """Calls of vllmwall in running text: `vllmwall …` in backquotes."""
    yield from _INLINE.findall(_FENCE.sub("", page.read_text()))


def calls(shell: str) -> Iterator[list[str]]:
    """The arguments of each call of vllmwall in a piece of shell."""
    lexer = shlex.shlex(shell, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    start, arguments = True, None
    for word in [*lexer, ";"]:
        if arguments is not None and word in _SEPARATORS - {"--", "do", "then", "!"}:
            yield _without_redirections(arguments)
            arguments = None
        if arguments is not None:
            arguments.append(word)
        elif start and word.rpartition("/")[2] == _PROGRAM:
            arguments = []
        start = word in _SEPARATORS or ("=" in word and start)


def _without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and not set(word) <= {">", "<", "&"}:
            kept.append(word)
        skip = not skip and bool(set(word) & {">", "<"}) and set(word) <= {">", "<", "&"}
    return kept


def _script(block: Block) -> Iterator[Command]:
    """A command a line; continued lines, here-documents and loops are one."""
    waiting: list[str] = []
    end = ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        if not waiting and (not line.strip() or line.startswith("#")):
            continue
        waiting.append(line)
        if heredoc := _HEREDOC.search(line):
            end = heredoc.group(1)
        if (end and line != end) or line.endswith("\\"):
            continue
        end = ""
        yield Command(block.page, number - len(waiting) + 1, "\n".join(waiting))
        waiting = []
    assert not waiting, f"{block.page}:{block.line}: a command that does not end"


def _session(block: Block) -> Iterator[Command]:
    """A command after each prompt, and the output below it."""
    entries: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if _PROMPT.match(line):
            entries.append((number, line[2:], []))
        else:
            assert entries, f"{block.page}:{number}: output before the first prompt"
            entries[-1][2].append(line)
    for number, text, output in entries:
        yield Command(block.page, number, text, "\n".join(output))


@dataclass(frozen=True)
class NotRun:
    """A row of docs/reference/commands-not-run.md: commands that begin like this."""

    beginning: str
    reason: str
    tested_by: str

    def covers(self, command: str) -> bool:
        """Whether the command begins with these words."""
        words = self.beginning.split()
        return command.split()[: len(words)] == words


def not_run() -> list[NotRun]:
    """What no test runs, as a reader of the documentation sees it."""
    text = (ROOT / "docs/reference/commands-not-run.md").read_text()
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [NotRun(*row) for row in rows]
