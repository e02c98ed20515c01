"""The libraries that the packages carry: ``python packaging/vendor.py fill FOLDER [ARCH]``.

One folder serves CPython 3.10 to 3.14, because compiled modules have the interpreter in their
names. Only wheels whose hashes are in vendored.txt and that need glibc 2.17 or older are used. None
of their code is run here. ``pin`` rewrites vendored.txt.
"""

from __future__ import annotations

import email.message
import email.parser
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

PINS = Path(__file__).with_name("vendored.txt")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# systemd-python is compiled against one distribution: see vllmwall.linux.systemd.
WANTED = (
    *("click", "pip-nftables", "prometheus-client", "psutil", "pydantic", "pyroute2", "pyyaml"),
    *("structlog", "tomli"),
)
_HEAD = f"""# What the packages carry, for CPython {PYTHONS[0]} to {PYTHONS[-1]} and glibc 2.17.
# Written by `python packaging/vendor.py pin`. `make packages` takes these wheels and no others.
"""
# Never imported, source of another language, or an optional accelerator: yaml's safe_load is Python
# anyway, and tomli is needed on 3.10 only.
_LEFT_OUT = re.compile(
    r"(^|/)(tests?|__pycache__)/|\.(c|pyx|pxd|h|pyc)$|^[^/]+\.data/|(^|/)_yaml\W.*\.so$"
    r"|^tomli/.*\.so$|__mypyc\W.*\.so$"
)
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|authors)", re.IGNORECASE)


def fill(folder: Path, arch: str, wheels: Path) -> None:
    """Unpack every wheel into ``folder``. Raises CalledProcessError, ValueError, OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    download(wheels, arch, ["--require-hashes", "--no-deps", "-r", str(PINS)])
    for wheel in sorted(wheels.glob("*.whl")):
        _check_age(wheel)
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if not name.endswith("/") and not _LEFT_OUT.search(name):
                    archive.extract(name, folder)
    for record in folder.glob("*.dist-info/RECORD"):
        record.unlink()  # lists files that were left out, and differs by interpreter


def download(wheels: Path, arch: str, wanted: list[str]) -> None:
    """Wheels for every interpreter. Raises CalledProcessError."""
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    pip += ["--dest", str(wheels), "--only-binary=:all:", "--implementation=cp"]
    pip += [f"--platform=manylinux2014_{MACHINES[arch]}"]
    for version in PYTHONS:
        command = [*pip, f"--python-version={version}", *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"no wheels for Python {version} on {arch}: {done.stderr.strip()}")


def metadata(folder: Path) -> Iterator[tuple[Path, email.message.Message]]:
    """The dist-info folder and METADATA of each library in a filled folder."""
    for file in sorted(folder.glob("*.dist-info/METADATA")):
        yield file.parent, email.parser.Parser().parsestr(file.read_text(encoding="utf-8"))


def licences(info: Path) -> list[Path]:
    """The licence files of a library."""
    return sorted(one for one in info.rglob("*") if one.is_file() and _LICENCE.search(one.name))


def pin() -> None:
    """Write the pins: the newest versions that fit every interpreter."""
    found: dict[str, set[str]] = {}
    for arch in MACHINES:
        wheels = Path("build/wheels-to-pin")
        download(wheels, arch, list(WANTED))
        for wheel in wheels.glob("*.whl"):
            name, version = wheel.name.split("-")[:2]
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            found.setdefault(f"{name.replace('_', '-')}=={version}", set()).add(digest)
    lines = [
        " \\\n    ".join([one, *(f"--hash=sha256:{digest}" for digest in sorted(found[one]))])
        for one in sorted(found)
    ]
    PINS.write_text(_HEAD + "\n".join(lines) + "\n")


def _check_age(wheel: Path) -> None:
    """Refuse a wheel that needs a newer glibc: manylinux tags are its versions (PEP 600)."""
    tags = re.findall(r"manylinux_2_(\d+)", wheel.name)
    if tags and min(map(int, tags)) > 17:
        raise ValueError(f"{wheel.name} needs glibc 2.{min(map(int, tags))}")


if __name__ == "__main__":
    if sys.argv[1:] == ["pin"]:
        pin()
    else:
        chosen = sys.argv[3] if len(sys.argv) > 3 else "amd64"
        fill(Path(sys.argv[2]), chosen, Path(sys.argv[2]).parent / f"wheels-{chosen}")
