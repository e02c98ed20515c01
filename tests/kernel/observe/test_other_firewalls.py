"""Other firewalls beside ours, for real: started, reloaded and stopped on a guarded node.

Each runs on two hosts, with private copies of its files: on the node, which has our wall, and on
a twin, which has none. What they write must be the same on both.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.kernel.enforce.test_ownership import PORT, WATCHED, closed_at, is_active
from tests.support.hammer import hammer
from tests.support.lab import Host, Lab
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.linux.netns import inode_of

_OURS = re.compile(r"^table inet vllmwall \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_PATIENCE = 30.0  # seconds; firewalld takes two on a quiet machine

# Files of theirs that they write, copied away; then a bus of its own, which also keeps the place.
_PLACE = """
set -e
for each in /etc/ufw /etc/default /etc/firewalld; do
    [ -d $each ] || continue
    copy=$(mktemp -d)
    cp -a $each/. $copy
    mount -t tmpfs none /mnt && cp -a $copy/. /mnt && mount --move /mnt $each
    rm -r $copy
done
for each in /run/dbus /run/firewalld /var/log; do
    mkdir -p $each && mount -t tmpfs none $each
done
exec dbus-daemon --system --nofork --nopidfile --print-address
"""

NFTABLES_CONF = f"""#!/usr/sbin/nft -f
flush ruleset
table inet filter {{
	chain input {{
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		meta l4proto {{ icmp, icmpv6 }} accept
		meta l4proto {{ tcp, udp }} th dport {PORT} accept
	}}
}}
"""
DOCKER = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8000 -j DNAT --to-destination 172.17.0.2:8000
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8000 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
_DOCKER_AGAIN = """
for table in nat filter; do iptables -t $table -F DOCKER; done
iptables -D FORWARD -o docker0 -j DOCKER
iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
for table in nat filter; do iptables -t $table -X DOCKER; iptables -t $table -N DOCKER; done
iptables -A FORWARD -o docker0 -j DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
"""


class Place:
    """A host as another firewall sees it: with its own copy of that firewall's files."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.programs: list[subprocess.Popen[bytes]] = []
        self._keeper = host.popen(["sh", "-c", _PLACE])
        assert self._keeper.stdout
        said = self._keeper.stdout.readline()
        assert said.startswith("unix:"), said + self._keeper.stdout.read()

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs there."""
        return ["nsenter", "-t", str(self._keeper.pid), "-m", "-n", *argv]

    def run(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run a command to its end; what it printed. Fails loudly."""
        done = subprocess.run(
            self.command(argv),
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
        assert 0 == done.returncode, done.stdout
        return done.stdout

    def rules(self) -> str:
        """Every rule but ours."""
        return _OURS.sub("", self.run(["nft", "-s", "list", "ruleset"]))


Step = Callable[[Place], None]


def _says(*argv: str, stdin: str = "") -> Step:
    """A step that runs a command."""

    def step(place: Place) -> None:
        place.run(argv, stdin)

    return step


def _firewalld(place: Place) -> None:
    """Start it, and wait until it answers."""
    service = place.command(["firewalld", "--nofork", "--nopid"])
    process = subprocess.Popen(service, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place.host._stack.callback(process.wait)
    place.host._stack.callback(process.kill)
    place.programs.append(process)
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run(
        place.command(["firewall-cmd", "--state"]), capture_output=True, check=False
    ).returncode:
        assert process.poll() is None, "firewalld ended"
        assert time.monotonic() < deadline, "firewalld does not answer"


def _firewalld_ends(place: Place) -> None:
    """As systemd would stop it; it takes its rules down."""
    process = place.programs.pop()
    process.terminate()
    process.wait(_PATIENCE)


@dataclass(frozen=True)
class Story:
    """What a firewall does in its life: each step ends with a state of its own."""

    program: str
    steps: tuple[Step, ...]
    states: int  # of their rules, that differ
    flushes: bool = False


STORIES = {
    "ufw": Story(
        "ufw",
        states=3,
        steps=(
            _says("ufw", "allow", str(PORT)),
            _says("ufw", "--force", "enable"),
            _says("ufw", "deny", "23/tcp"),
            _says("ufw", "reload"),
            _says("ufw", "disable"),
            _says("ufw", "--force", "enable"),
        ),
    ),
    "firewalld": Story(
        "firewalld",
        states=3,
        steps=(
            _says("firewall-offline-cmd", f"--add-port={PORT}/tcp", f"--add-port={PORT}/udp"),
            _firewalld,
            _says("firewall-cmd", "--add-service=http"),
            _says("firewall-cmd", "--reload"),
            _says("firewall-cmd", "--complete-reload"),
            _firewalld_ends,
            _firewalld,
        ),
    ),
    "nftables.service": Story(
        "nft",
        states=1,
        steps=tuple(_says("nft", "-f", "/dev/stdin", stdin=NFTABLES_CONF) for _ in range(5)),
        flushes=True,
    ),
    "Docker": Story(
        "iptables-restore",
        states=3,
        steps=(
            _says("iptables-restore", stdin=DOCKER),
            _says("sh", "-ec", _DOCKER_AGAIN),
            _says("iptables-restore", "--noflush", stdin=DOCKER),
            _says("iptables-restore", stdin=DOCKER),
        ),
    ),
}


@pytest.fixture(params=STORIES)
def story(request: pytest.FixtureRequest) -> Story:
    found = STORIES[request.param]
    for program in (found.program, "dbus-daemon"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: tests/setup/apt")
    return found


@pytest.fixture
def twin(lab: Lab) -> Place:
    """A host like the node, without a wall."""
    made = lab.host("twin", "192.0.2.77", "2001:db8::77")
    made.listen("::", PORT)
    return Place(made)


@pytest.fixture
def place(lab: Lab) -> Place:
    """The node, which answers on its port."""
    lab.node.listen("::", PORT)
    return Place(lab.node)


def test_the_wall_stays_active_through_their_lives(
    lab: Lab, place: Place, twin: Place, story: Story
) -> None:
    """Under a hammer no step of theirs opens the port; their rules are as without us."""
    backend, closed = Nftables(), closed_at(place.host.path)
    if backend.why_not_owned:
        pytest.skip(backend.why_not_owned)
    backend.apply(place.host.path, closed, None)
    states = set()
    for step in story.steps:
        done = iter([step])
        meanwhile = lambda done=done: [each(place) for each in done] and None  # noqa: E731
        assert 0 == hammer(lab.stranger, "tcp", (lab.node.ipv4, PORT), 1, meanwhile)[1]
        step(twin)
        states.add(place.rules())
        assert twin.rules() == place.rules()
        assert backend.read_back(place.host.path) == closed
    assert story.states <= len(states)  # they did something
    assert any(states)
    assert "open" == lab.stranger.connect(twin.host.ipv4, PORT)  # theirs would let it in
    assert is_active(lab)


def test_without_an_owner_only_a_flush_touches_the_wall(
    lab: Lab, place: Place, twin: Place, story: Story
) -> None:
    """And that is heard and put right, after which their rules are as without us."""
    backend, closed = Nftables(WATCHED), closed_at(place.host.path)
    backend.apply(place.host.path, closed, None)
    watch = backend.watches()[inode_of(place.host.path)]
    for step in story.steps:
        step(place)
        step(twin)
        touches = watch.read()
        assert [story.program] * story.flushes == [touch.command for touch in touches]
        if touches:
            backend.apply(place.host.path, closed, backend.read_back(place.host.path))
        assert twin.rules() == place.rules()
        assert is_active(lab)
