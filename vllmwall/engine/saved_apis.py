"""The drop-in file that ``api add --save`` writes: conf.d/91-apis-saved.toml.

Promises valid TOML, replaced in one step, and the same bytes for the same ports. A file with any
other key in it is refused, so that no key is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vllmwall.config.toml import loads, toml_value
from vllmwall.decide.opened import OpenedApi
from vllmwall.linux.files import read_trusted, save_text

FILE_NAME = "91-apis-saved.toml"

_HEAD = """\
# Written by `vllmwall api add --save`; `vllmwall api remove --save` takes ports out.
# Both keep no comments; anything but these sections belongs into another file.
"""


class ApiError(Exception):
    """A port cannot be opened or closed; nothing was changed."""


def read_saved(path: Path) -> tuple[OpenedApi, ...]:
    """The ports in the drop-in file; none when it is not there. Raises ApiError."""
    try:
        content = read_trusted(path)
        if content.complaint is not None:
            raise ApiError(f"{path} {content.complaint}")
        return tuple(_opened(loads(content.text)))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise ApiError(
            f"{path} is not as vllmwall writes it ({error}); move what else is in it to another "
            "file, or delete it"
        ) from error
    except OSError as error:
        raise ApiError(f"{path} cannot be read: {error.strerror or error}") from error


def write_saved(path: Path, apis: Iterable[OpenedApi]) -> None:
    """Make the drop-in file hold these ports; without any, there is none. Raises ApiError."""
    sections = map(_section, sorted(apis, key=lambda one: (one.port, one.workload)))
    text = "".join(sections)
    try:
        if text:
            tuple(_opened(loads(text)))  # a name may hold what TOML cannot
            save_text(path, _HEAD + text, mode=0o644)
        else:
            path.unlink(missing_ok=True)
    except ValueError as error:
        raise ApiError(f"a name cannot be saved: {error}. Open it without --save") from error
    except OSError as error:
        raise ApiError(f"{path} cannot be written: {error.strerror or error}") from error


def _section(one: OpenedApi) -> str:
    force = "force = true\n" if one.force else ""
    return f"[[api]]\nport = {one.port}\nworkload = {toml_value(one.workload)}\n{force}"


def _opened(tree: Mapping[str, object]) -> Iterator[OpenedApi]:
    """Raises ValueError for anything but ``[[api]]``."""
    sections = tree.get("api")
    if set(tree) != {"api"} or not isinstance(sections, list):
        raise ValueError("it should hold [[api]] sections and nothing else")
    for one in sections:
        keys = dict(one) if isinstance(one, Mapping) else {}
        port, workload, force = keys.get("port"), keys.get("workload"), keys.get("force", False)
        if not keys.keys() <= {"port", "workload", "force"} or type(port) is not int:
            raise ValueError("an [[api]] section should hold port, workload and force only")
        if not isinstance(workload, str) or not isinstance(force, bool):
            raise ValueError("workload should be a name, and force true or false")
        yield OpenedApi(port, workload, force)
