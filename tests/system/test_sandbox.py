"""The daemon's work from inside the sandbox of its unit, in a real Debian.

Each test needs something that a line too many in vllmwall.service would take away. The tests
share a node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.system.box import ADDRESS
from tests.system.installed import API, INTERNAL, Node, answers

pytestmark = pytest.mark.timeout(600)  # the first one makes a root and builds packages
LISTENER = (
    "import socket, sys; s = socket.create_server(('0.0.0.0', 29700)); "
    "print('ready', flush=True); sys.stdin.read()"
)
AS_A_MEMBER = ("setpriv", "--reuid=nobody", "--regid=vllmwall", "--clear-groups")
CLOSED_TO_ALL = "[policy]\napi = 'peers'\n"


@pytest.fixture(autouse=True)
def _as_it_was(node: Node) -> Iterator[None]:
    """The next test finds a node that guards, whatever became of this one."""
    yield
    node.configure("")
    node.box.run("vllmwall", "up", check=False)
    node.reload()
    node.eventually(node.guards, "it guards again")


@pytest.mark.every_suite
def test_events_guards_and_the_doctor(node: Node) -> None:
    """Events from tracefs, a guard for a job in our slice, and no failure for doctor."""
    status = node.status()
    assert "tracefs" == status["daemon"]["events"], status["daemon"]  # type: ignore[index]
    job = node.box.start("vllmwall", "run", "--", "/usr/bin/python3", "-c", LISTENER)
    assert job.stdout and "ready\n" == job.stdout.readline()
    assert "timeout" == node.reached(29700)
    job.communicate()
    doctor = node.box.run("vllmwall", "doctor", "--json", check=False).stdout
    assert '"fail"' not in doctor, doctor


def test_a_port_that_nobody_closed_beforehand_is_closed_by_its_event(node: Node) -> None:
    """At once, not at the next full pass: this one is taught, and in no guarded cgroup."""
    taught = '[[workload]]\nname = "two"\nmatch = { argv = "*29700*" }\n'
    node.configure("[guards]\nenabled = false\n" + taught)
    node.reload()
    job = node.box.start("/usr/bin/python3", "-c", LISTENER)
    assert job.stdout and "ready\n" == job.stdout.readline()
    begun = time.monotonic()
    node.eventually(lambda: node.reached(29700) == "timeout", "it is closed")
    assert time.monotonic() - begun < 8  # a full pass comes every 30 s
    job.communicate()


def test_containers_namespaces_are_walled(node: Node) -> None:
    """Those named in /run/netns after the daemon started, too; and no longer when they end."""
    node.box.run("ip", "netns", "add", "container")
    taught = node.box.start(
        *("ip", "netns", "exec", "container", "systemd-run", "--scope", "--quiet"),
        *("--unit=job2.scope", "/usr/bin/python3", "-c", LISTENER),
    )
    assert taught.stdout and "ready\n" == taught.stdout.readline()
    node.configure('[[workload]]\nname = "two"\nmatch = { unit = "job2.scope" }\napi_ports = [1]\n')
    node.box.run("vllmwall", "reload", check=False)
    listed = ("ip", "netns", "exec", "container", "nft", "list", "table", "inet", "vllmwall")
    node.eventually(lambda: "29700" in node.box.run(*listed).stdout, "a wall in the container")
    taught.communicate()
    node.box.run("ip", "netns", "delete", "container")


def test_peers_come_and_are_cut_off_again(node: Node) -> None:
    """Saved in conf.d; and a connection that is refused from now on ends (SOCK_DESTROY)."""
    stranger = node.lab.stranger.ipv4
    node.box.run("vllmwall", "peers", "add", stranger, "--save")
    assert stranger in saved(node)
    node.box.run("systemctl", "restart", "vllmwall")
    assert "open" == node.reached(INTERNAL)
    connection = node.lab.stranger.dial(ADDRESS, INTERNAL)
    assert answers(connection)
    learned = json.loads(node.box.run("vllmwall", "learn", "--now", "--json").stdout)
    assert stranger in json.dumps(learned["sources"])
    node.box.run("vllmwall", "peers", "remove", stranger, "--save")
    node.eventually(node.guards, "the stranger is one again")
    with connection, pytest.raises(OSError):
        answers(connection)
    assert stranger not in saved(node)


def saved(node: Node) -> str:
    return "".join(one.read_text() for one in (node.box.root / "etc/vllmwall").rglob("*.toml"))


def test_peers_are_read_from_names_and_files(node: Node) -> None:
    """Of /etc/hosts, and of a folder that is none of ours."""
    stranger = node.lab.stranger.ipv4
    node.box.write("/etc/hosts", f"127.0.0.1 localhost node\n{stranger} friend\n")
    node.configure("[peers]\ndns = ['friend']\n")
    node.reload()
    node.eventually(lambda: node.reached(INTERNAL) == "open", "the name is a peer's")
    node.box.write("/etc/hosts", "127.0.0.1 localhost node\n")
    node.configure("")
    node.reload()
    node.eventually(node.guards, "it is a stranger's again")
    node.box.write("/srv/peers.txt", f"{stranger}\n")
    node.configure("[peers]\nfiles = ['/srv/peers.txt']\n")
    node.reload()
    node.eventually(lambda: node.reached(INTERNAL) == "open", "the file is read")


def test_a_ban_ends_connections_and_lives_over_a_restart(node: Node) -> None:
    """Written where the next daemon finds it, and lifted again."""
    stranger, connection = node.lab.stranger.ipv4, node.talk()
    assert answers(connection)
    node.box.run("vllmwall", "ban", stranger, "--for", "1h", "--reason", "a test")
    with connection, pytest.raises(OSError):
        answers(connection)
    assert "timeout" == node.reached(API)
    node.box.run("systemctl", "restart", "vllmwall")
    assert "timeout" == node.reached(API)
    assert stranger in node.box.run("vllmwall", "bans", "--json").stdout
    node.box.run("vllmwall", "unban", stranger)
    assert node.guards()


@pytest.mark.every_suite
def test_what_happened_is_told_and_written_to_the_journal(node: Node) -> None:
    """With fields, of who was refused, too."""
    node.box.run("systemctl", "restart", "job")
    told = ("vllmwall", "events", "--json", "--last", "500")
    node.eventually(lambda: '"workload_appeared"' in node.box.run(*told).stdout, "it is told")
    fields = ("journalctl", "-b", "-o", "json", "_SYSTEMD_UNIT=vllmwall.service")
    node.eventually(
        lambda: '"VLLMWALL_CGROUP":"/system.slice/job.service"' in node.box.run(*fields).stdout,
        "it is in the journal",
    )
    node.eventually(node.guards, "the job listens again, guarded")
    refused = ("vllmwall", "blocked", "--json")
    node.eventually(lambda: node.lab.stranger.ipv4 in node.box.run(*refused).stdout, "who was")


def test_prove_audit_and_connections_work_as_installed(node: Node) -> None:
    """With what the package carries: tables of advisories, views of the kernel."""
    assert "All as expected: 2 probes" in node.box.run("vllmwall", "prove").stdout
    audit = node.box.run("vllmwall", "audit", "--fail-on=never", "--sarif").stdout
    assert "2.1.0" == json.loads(audit)["version"]
    with node.talk():
        seen = node.box.run("vllmwall", "connections", "--json").stdout
    assert node.lab.stranger.ipv4 in seen


def test_members_of_the_group_ask_and_change_nothing(node: Node) -> None:
    """The control socket is the group's: nobody else gets as far as a question."""
    assert node.box.run(*AS_A_MEMBER, "vllmwall", "status", check=False).returncode == 0
    banned = node.box.run(*AS_A_MEMBER, "vllmwall", "ban", "192.0.2.9", check=False)
    assert 0 != banned.returncode
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    assert 0 != node.box.run(*nobody, "vllmwall", "status", check=False).returncode


@pytest.mark.every_suite
@pytest.mark.parametrize("daemon_dies", [False, True])
def test_an_unconfirmed_reload_is_taken_back(node: Node, daemon_dies: bool) -> None:
    """The client is dead by then, and so may be the daemon that knew what was before."""
    node.configure(CLOSED_TO_ALL)
    asking = node.box.start("vllmwall", "reload", "--confirm", "3s")
    node.eventually(lambda: node.reached(API) == "timeout", "the stranger is shut out")
    asking.kill()
    asking.communicate()
    if daemon_dies:
        node.box.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "vllmwall")
    node.eventually(lambda: node.reached(API) == "open", "the stranger is back")
    # A daemon that came later never knew what was before: its walls are down.
    assert ("open" if daemon_dies else "timeout") == node.reached(INTERNAL)


def test_a_confirmed_reload_stays(node: Node) -> None:
    """Beyond the time that it was on trial."""
    node.configure(CLOSED_TO_ALL)
    node.box.run("vllmwall", "reload", "--confirm", "2s")
    node.box.run("vllmwall", "confirm")
    ended = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "vllmwall-rollback*")
    node.eventually(lambda: not node.box.run(*ended).stdout.strip(), "the timer ended")
    assert "timeout" == node.reached(API)


@pytest.mark.every_suite
def test_a_flushed_wall_is_put_right(node: Node) -> None:
    """As `systemctl restart nftables` does it, with Debian's own configuration."""
    restarted = node.box.run("systemctl", "restart", "nftables", check=False)
    assert 0 == restarted.returncode, restarted.stderr
    node.eventually(node.guards, "the wall is back")


def test_prometheus_is_answered(node: Node) -> None:
    """On loopback, and in a file where node_exporter looks for it."""
    folder = node.box.root / "var/lib/prometheus/node-exporter"
    folder.mkdir(parents=True, exist_ok=True)
    file = "/var/lib/prometheus/node-exporter/vllmwall.prom"
    node.configure(f'[metrics]\nlisten = "127.0.0.1:9837"\ntextfile = "{file}"\n')
    node.box.run("systemctl", "restart", "vllmwall")  # the folder was not there before
    get = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9837/metrics').read())"
    assert "vllmwall_" in node.box.run("/usr/bin/python3", "-c", get).stdout
    node.eventually(lambda: "vllmwall_" in (folder / "vllmwall.prom").read_text(), "the file")


def test_down_and_up_go_through_the_sandbox(node: Node) -> None:
    """Down stays down over a restart of the daemon."""
    node.box.run("vllmwall", "down")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    node.box.run("systemctl", "restart", "vllmwall")
    assert "open" == node.reached(INTERNAL)
    node.box.run("vllmwall", "up")
    assert node.guards()


def test_the_libraries_of_systemd_are_named(node: Node) -> None:
    """The distribution's bindings where they are installed, else our stand-in: the doctor says."""
    there = node.box.run("python3", "-c", "import systemd.journal", check=False).returncode == 0
    doctor = node.box.run("vllmwall", "doctor", "--json", check=False).stdout
    assert there == ("a stand-in" not in doctor), doctor
