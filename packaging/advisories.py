"""Refuse a release whose table of known vulnerabilities is old: ``python packaging/advisories.py``.

A release is a version without ``.dev``. Other builds are not judged, so that no test of a branch
fails only because time passes.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta

from vllmwall import __version__
from vllmwall.inspect.audit.rules import advisories

OLDEST = timedelta(days=60)


def complaint(version: str, written: date, today: date) -> str:
    """The reason against a release of this version on a day; empty: none."""
    if ".dev" in version or today - written <= OLDEST:
        return ""
    return (
        f"vllmwall/inspect/audit/cves.toml: its rows are as of {written}, more than "
        f"{OLDEST.days} days ago. Hold them against the CVE list, and set its date, before "
        f"{version} is built."
    )


if __name__ == "__main__":
    sys.exit(complaint(__version__, advisories().date, date.today()) or None)
