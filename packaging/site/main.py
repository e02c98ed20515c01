"""Starts vllmwall from a package, with the package's own libraries only.

Run as ``python -I -S main.py``: no site-packages, no PYTHONPATH, no current directory. Of the
distribution only systemd's bindings are used, if they fit this interpreter. Otherwise
`vllmwall.linux.systemd` speaks the same protocols.
"""

import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from os import F_OK, access

_SITE = "/usr/lib/vllmwall/site"
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
_DISTRIBUTIONS = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib64/python{_VERSION}/site-packages",
)


class _Systemd:
    """Finder for the package `systemd` and no other."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        if name != "systemd":
            return None
        for folder in _DISTRIBUTIONS:
            # Not every suffix: the last ones are for any interpreter, and no such build exists.
            if access(f"{folder}/systemd/_daemon{EXTENSION_SUFFIXES[0]}", F_OK):
                return PathFinder.find_spec(name, [folder])
        return None


sys.path.append(_SITE)
sys.meta_path.insert(0, _Systemd)  # type: ignore[arg-type]

from vllmwall.__main__ import main  # noqa: E402

main()
