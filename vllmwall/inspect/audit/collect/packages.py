"""Which versions of packages a process can import, from the names of ``*.dist-info``.

Nothing of the workload is run or imported, and no file is read: pip writes name and version
into the directory's name (PEP 427). Editable installs have such a directory too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from vllmwall.inspect.audit.collect.files import View
from vllmwall.model import Process
from vllmwall.observe.proc import read

_DIST_INFO = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)\.(?:dist|egg)-info")
_MAPPED = re.compile(rb" (/[^\n]*?/(?:site|dist)-packages)/")
_INTERPRETER = re.compile(r"(?P<prefix>.*)/bin/[^/]+")
_LIBRARIES = re.compile(r"python\d\.\d+")
_MAPS_LIMIT = 16 << 20


def versions(process: Process, wanted: Collection[str]) -> Mapping[str, str]:
    """The version of each wanted package that is installed where the process imports from."""
    view, found = View(process.pid), dict[str, str]()
    for folder in dict.fromkeys(_folders(process, view)):
        for entry in view.names(folder):
            match = _DIST_INFO.fullmatch(entry)
            if match and (name := _normal(match["name"])) in wanted:
                found.setdefault(name, match["version"])
    return found


def _folders(process: Process, view: View) -> Iterator[str]:
    """Mapped files come first, then the environment of the script, then the interpreter's."""
    maps = read(f"/proc/{process.pid}/maps", _MAPS_LIMIT)
    for path in dict.fromkeys(_MAPPED.findall(maps)):
        yield path.decode(errors="replace")
    for program in (*process.started_as[:2], process.exe):
        match = _INTERPRETER.fullmatch(program)
        if match is None:
            continue
        for library in ("lib", "lib64", "local/lib"):
            base = f"{match['prefix']}/{library}"
            for name in view.names(base):
                if _LIBRARIES.fullmatch(name) or name == "python3":
                    yield f"{base}/{name}/site-packages"
                    yield f"{base}/{name}/dist-packages"


def _normal(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()
