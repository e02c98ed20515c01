"""The Debian package where things are not as they should be: chroots, interruptions, old files.

One node, in the order of its life: its image is made without a running systemd, with nftables'
own service masked. Each test leaves it guarding, but for the last one.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.building import NEW, OLD, built_package
from tests.support.lab import Lab
from tests.system import debian
from tests.system.box import box
from tests.system.installed import API, INTERNAL, Node, answers, while_hammered

pytestmark = pytest.mark.timeout(600)  # the first one makes a root and builds packages
SITE = "/usr/lib/vllmwall/site"
SCRIPT = "/var/lib/vllmwall/boot.nft"
# Nobody starts anything: what tools that make images put there.
POLICY = "/usr/sbin/policy-rc.d"
# As another version of ours might have written it: other chains, another priority for one that
# we have too, a rule that would shut the API out.
OF_ANOTHER_VERSION = """table inet vllmwall {
	comment "vllmwall 0.0.1 enforce"
	set doomed { type inet_service; elements = { 8000, 29600 } }
	chain entrance { tcp dport @doomed drop; }
	chain input {
		type filter hook input priority -200; policy accept;
		iif "lo" accept
		jump entrance
	}
}
"""
# What a newer python3-minimal is to dpkg: a package that unpacks /usr/bin/python3.
NEW_PYTHON = """
mkdir -p /srv/py/DEBIAN /srv/py/usr/bin
ln -sfn "$(readlink /usr/bin/python3)" /srv/py/usr/bin/python3
printf 'Package: newer-python\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\n%s' \\
    'Replaces: python3-minimal
Description: stand-in
' >/srv/py/DEBIAN/control
dpkg-deb --build /srv/py /srv/py.deb && dpkg --install /srv/py.deb
"""


@pytest.fixture(scope="module")
def image(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A system that has not booted, and where nothing may be started."""
    folder, root = tmp_path_factory.mktemp(suite), debian.root(suite)
    with Lab() as lab, box(folder, lab.stranger, root) as host:
        made = Node(lab, host)
        made.prepare()
        host.write(POLICY, "#!/bin/sh\nexit 101\n")
        (host.root / POLICY.lstrip("/")).chmod(0o755)
        offline(made, "systemctl", "mask", "nftables.service")
        yield made


@pytest.fixture
def node(image: Node) -> Iterator[Node]:
    """That system, booted; the next test finds it guarding."""
    yield image
    if image.box.run("dpkg", "-s", "vllmwall", check=False).returncode == 0:
        image.configure("")
        done = image.box.run(
            "systemctl", "enable", "--now", "vllmwall", "vllmwall-boot", check=False
        )
        assert 0 == done.returncode, done.stderr + image.box.journal()[-3000:]
        image.eventually(image.guards, "it guards again")


def offline(node: Node, *argv: str) -> str:
    """Run a command in the image."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["chroot", str(node.box.root), "env", "-i", path, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def boot_hammered(node: Node, before: Callable[[], object] = bool) -> tuple[int, int]:
    """Reboot while a stranger tries: how often, and how often it got in. ``before``: while off."""
    node.box.power_off()
    before()
    booting = threading.Thread(target=node.box.boot)
    up = ("systemctl", "is-system-running", "--wait")
    return while_hammered(node, booting.start, booting.join, lambda: node.box.run(*up, check=False))


def ours(node: Node) -> str:
    """The active table."""
    return node.box.run("nft", "list", "table", "inet", "vllmwall", check=False).stdout


def test_an_image_is_made_without_systemd_and_guards_when_it_boots(image: Node) -> None:
    """In a chroot without /proc: installed, purged without a trace, installed again."""
    package = image.put(built_package("deb", OLD))
    assert "rror" not in offline(image, "dpkg", "--install", package)
    offline(image, "dpkg", "--purge", "vllmwall")
    found = offline(image, "find", "/etc", "/usr", "/var/lib", "-name", "*vllmwall*")
    assert {"/etc/vllmwall", "/var/lib/vllmwall"}.isdisjoint(found.split()), found
    image.configure("")
    offline(image, "dpkg", "--install", package)
    image.box.boot()
    image.eventually(image.guards, "it guards")
    (image.box.root / POLICY.lstrip("/")).unlink()


def test_without_us_strangers_come_in_while_it_boots(node: Node) -> None:
    """And with us none does, though the service of nftables is masked."""
    node.box.run("systemctl", "disable", "vllmwall", "vllmwall-boot")
    tried, opened = boot_hammered(node)
    assert opened > 100, tried
    node.box.run("systemctl", "enable", "vllmwall", "vllmwall-boot")
    tried, opened = boot_hammered(node)
    assert (True, 0) == (tried > 500, opened), tried


def test_a_saved_wall_of_another_version_is_replaced(node: Node) -> None:
    """It closes what it closes until the daemon is there, which leaves nothing of it."""
    tried, opened = boot_hammered(node, lambda: node.box.write(SCRIPT, OF_ANOTHER_VERSION))
    assert (True, 0) == (tried > 500, opened), tried
    node.eventually(node.guards, "it guards, and the API is open")
    assert "entrance" not in ours(node)
    assert f"vllmwall {OLD}" in ours(node)


@pytest.mark.parametrize("left_of_it", [0, 0.5])
def test_a_saved_wall_that_was_cut_short_is_written_again(node: Node, left_of_it: float) -> None:
    """As a full disk or a dead machine leaves it: the boot goes on, the daemon guards."""

    def cut() -> None:
        file = node.box.root / SCRIPT.lstrip("/")
        whole = file.read_text()
        file.write_text(whole[: int(len(whole) * left_of_it)])

    boot_hammered(node, cut)
    node.eventually(node.guards, "it guards")
    node.eventually(lambda: "}" in node.box.run("tail", "-1", SCRIPT).stdout, "it is written")
    node.box.run("unshare", "--net", "nft", "--file", SCRIPT)


def test_versions_come_and_go_without_a_gap(node: Node) -> None:
    """Up, down and up again, one right after the other, with a connection that lives on."""
    connection = node.talk()
    old, new = (built_package("deb", one) for one in (OLD, NEW))
    steps = [lambda file=file: node.install(file) for file in (new, old, new)]
    tried, opened = while_hammered(node, *steps)
    assert (True, 0) == (tried > 500, opened), tried
    with connection:
        assert answers(connection)
    node.eventually(lambda: node.status()["safe"], "it is ready")
    assert NEW == node.status()["daemon"]["version"]  # type: ignore[index]


def test_an_upgrade_that_is_cut_short_leaves_the_wall(node: Node) -> None:
    """Killed while it unpacks, with the daemon killed as well; then it is repaired."""
    old = node.put(built_package("deb", OLD))

    def cut_short() -> None:
        dpkg = node.box.start("sh", "-c", f"echo $$ >/run/dpkg.pid; exec dpkg --install {old}")
        unpacked = ("find", SITE, "-name", "*.dpkg-new")
        node.eventually(lambda: node.box.run(*unpacked).stdout, "it unpacks")
        node.box.run("sh", "-c", "kill -KILL $(cat /run/dpkg.pid)")
        dpkg.communicate()
        node.box.run("systemctl", "kill", "--signal=KILL", "vllmwall")

    tried, opened = while_hammered(node, cut_short)
    assert (True, 0) == (tried > 500, opened), tried
    assert "timeout" == node.reached(INTERNAL)
    node.box.run("dpkg", "--install", node.put(built_package("deb", NEW)))
    node.eventually(lambda: node.status()["safe"], "it is ready")


def test_an_upgrade_on_a_broken_configuration_is_done_and_opens_nothing(node: Node) -> None:
    """dpkg must not be stuck by it, nor the wall fall; the unit says what is wrong."""
    node.configure("[policy]\nnonsense = 5\n")
    tried, opened = while_hammered(node, lambda: node.install(built_package("deb", OLD)))
    assert (True, 0) == (tried > 500, opened), tried
    assert "install ok installed" in node.box.run("dpkg", "-s", "vllmwall").stdout
    node.eventually(lambda: "nonsense" in node.box.journal(), "the journal tells")


def test_a_new_python_has_the_modules_compiled_again(node: Node) -> None:
    """By a trigger of dpkg; starting would take twice as long otherwise."""
    compiled = ("find", f"{SITE}/vllmwall", "-name", "model.*.pyc")
    for found in node.box.run(*compiled).stdout.split():
        node.box.run("rm", found)
    node.box.run("sh", "-c", NEW_PYTHON)
    assert node.box.run(*compiled).stdout


def test_whatever_the_umask_of_who_installs(node: Node) -> None:
    """Members of the group can run it, and nobody but root can change it."""
    package = node.put(built_package("deb", NEW))
    node.box.run("sh", "-c", f"umask 077; dpkg --install {package}")
    unread = ("find", "/usr/lib/vllmwall", "/usr/bin/vllmwall", "!", "-perm", "-0444")
    assert "" == node.box.run(*unread).stdout
    places = ("/usr/lib/vllmwall", "/usr/bin/vllmwall", "/etc/vllmwall", "/var/lib/vllmwall")
    of_others = ("!", "-type", "l", "(", "-perm", "/022", "-o", "!", "-uid", "0", ")")
    assert "" == node.box.run("find", *places, *of_others).stdout
    assert "700" == node.box.run("stat", "--format=%a", "/var/lib/vllmwall").stdout.strip()
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert NEW in node.box.run(*nobody, "vllmwall", "--version").stdout


def test_what_root_masked_stays_masked(node: Node) -> None:
    """Over an upgrade, which starts nothing then."""
    node.box.run("systemctl", "mask", "--now", "vllmwall")
    node.install(built_package("deb", OLD))
    assert "masked" == node.box.run("systemctl", "is-enabled", "vllmwall", check=False).stdout[:6]
    assert 0 == node.daemon_pid()
    node.box.run("systemctl", "unmask", "vllmwall")


def test_a_python_that_is_too_old_is_refused_in_words(node: Node) -> None:
    """Debian 11 has 3.9: apt says what is missing before it changes anything."""
    known = (node.box.root / "var/lib/dpkg/status").read_text()
    name, version = "\nPackage: python3\n", "\nVersion: "
    before, _, rest = known.partition(name)
    head, _, tail = rest.partition(version)
    node.box.write(
        "/srv/status", before + name + head + version + "3.9.2-3" + tail[tail.index("\n") :]
    )
    package = node.put(built_package("deb", NEW))
    simulate = ("apt-get", "--simulate", "-o", "Dir::State::status=/srv/status", "install")
    done = node.box.run(*simulate, package, check=False)
    assert 0 != done.returncode
    assert "python3 (>= 3.10)" in done.stdout + done.stderr


def test_removed_it_keeps_its_configuration_and_comes_back_guarding(node: Node) -> None:
    """Without a wall, a unit that fails or a word at boot meanwhile."""
    config = node.box.root / "etc/vllmwall/vllmwall.toml"
    config.write_text(config.read_text() + "\n# edited\n")
    node.box.run("apt-get", "remove", "-y", "vllmwall")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    node.box.power_off()
    node.box.boot()
    node.eventually(lambda: node.reached(INTERNAL) == "open", "the job is there")
    assert "" == ours(node)
    assert "vllmwall" not in node.box.run("systemctl", "--failed", "--plain").stdout
    node.install(built_package("deb", NEW))
    assert node.guards()
    assert "# edited" in config.read_text()
    assert 0 != node.daemon_pid()


def test_purged_after_removal_it_leaves_nothing(node: Node) -> None:
    """Also where the daemon was dead, and its instance of tracefs left behind."""
    node.box.run("systemctl", "mask", "--runtime", "vllmwall")
    node.box.run("systemctl", "kill", "--signal=KILL", "vllmwall")
    assert "timeout" == node.reached(INTERNAL)
    node.box.run("apt-get", "remove", "-y", "vllmwall")
    node.box.run("apt-get", "purge", "-y", "vllmwall")
    node.box.run("systemctl", "unmask", "--runtime", "vllmwall")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    with contextlib.suppress(subprocess.CalledProcessError):
        node.box.run("systemctl", "reset-failed")
    assert [] == node.left()
