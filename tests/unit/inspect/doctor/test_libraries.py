"""What the doctor says about what runs us, and what is used where a library is missing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vllmwall.inspect.doctor.libraries import libraries, loaded, release_in

SAID = """
import sys
if len(sys.argv) > 1:
    sys.modules["systemd"] = None
from vllmwall.inspect.doctor.libraries import libraries
from vllmwall.linux.systemd import notify
for one in libraries():
    print(one.subject, one.state.value, one.seen, one.remedy, sep="|")
notify("READY=1")
"""


def said(*arguments: str, **environment: str) -> dict[str, list[str]]:
    """By another interpreter, of each subject: state, what was seen, remedy."""
    command = [sys.executable, "-c", SAID, *arguments]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}


def test_python_is_named() -> None:
    """With its version and where it is."""
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"{version} at {sys.executable}" == said()["Python"][1]


@pytest.mark.parametrize("without", [(), ("without",)], ids=["theirs", "ours"])
def test_the_bindings_in_use_are_named_and_work(tmp_path: Path, without: tuple[str, ...]) -> None:
    """Systemd's own where they are installed, else a stand-in, which says READY=1 as they do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        seen = said(*without, NOTIFY_SOCKET=str(tmp_path / "notify"))["systemd's bindings"][1]
        assert b"READY=1" == listening.recv(100)
    assert bool(without) == seen.startswith("a stand-in for systemd-python in ")
    assert seen.endswith("vllmwall/linux/systemd" if without else "site-packages/systemd"), seen


def test_the_version_of_libnftables_is_read_from_it() -> None:
    """As nft, which comes with it, says its own."""
    found = {one.subject: one.seen for one in libraries()}["libnftables"]
    file = loaded("libnftables")
    assert file is not None
    nft = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"v([\d.]+)", nft) == [release_in(file)]
    assert found.startswith(f"{release_in(file)} ({file})")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: hides a library")
def test_no_libnftables_is_something_to_mend() -> None:
    """With the package that brings it."""
    file = loaded("libnftables")
    assert file is not None
    hide = f'mount --bind /dev/null {file}; exec "$@"'
    command = [shutil.which("unshare") or "", "-m", "sh", "-c", hide, "sh", sys.executable]
    done = subprocess.run([*command, "-c", SAID], capture_output=True, text=True, check=True)
    assert "libnftables|fail|cannot be loaded" in done.stdout
    assert "apt install libnftables1" in done.stdout
