"""What a release decides and keeps on disk, recorded for the tests of the next one.

`audiences.json`: the rules that each recording of `tests/recordings` gets with an empty
configuration. `state/`: the files that a daemon of that release leaves in /run, /var/lib and
conf.d. A release records its own, and the next one is tested against it.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from ipaddress import ip_network
from pathlib import Path

from vllmwall.cidr import host_port
from vllmwall.config import load as load_config
from vllmwall.decide.opened import OpenedApi
from vllmwall.decide.walls import decide
from vllmwall.enforce.boot import boot_script
from vllmwall.engine.api_ports import ApiPorts
from vllmwall.model import PEERS, PUBLIC, Node, Proto, Wall, WallEntry
from vllmwall.networks.banlist import BanList
from vllmwall.networks.peerlist import PeerList
from vllmwall.observe.snapshot import load
from vllmwall.recognize import recognize

HERE = Path(__file__).parent
RECORDINGS = HERE.parent / "recordings"

PEER_CIDRS = ("192.0.2.2/32", "2001:db8::2/128")
BANNED = "192.0.2.66/32"
OPENED = OpenedApi(8600, "tiny", force=True)
SAVED = OpenedApi(8601, "tiny")
DEFAULTS = load_config(HERE / "no-such-file.toml").settings()
_ANY = {4: "0.0.0.0", 6: "::"}
CONFIGURATION = f"""\
mode = "enforce"
[peers]
cidrs = {list(PEER_CIDRS)}
[policy]
metrics = ["peers", "monitoring"]
default = "peers"
[groups]
monitoring = ["10.9.0.5/32"]
[[workload]]
name = "own-server"
match = {{ argv = "*own-server*" }}
[guards]
units = ["own-*.service"]
[host]
failsafe = ["tcp/2022"]
"""


def rules(node: Node) -> dict[str, str]:
    """The audience of every rule that a node gets: `4026531840 tcp 0.0.0.0:29500`, `peers`."""
    peers = tuple(map(ip_network, PEER_CIDRS))
    return {
        f"{inode} {one.proto.value} {host_port(one.address or _ANY[one.family], one.port)}": (
            ",".join(one.audience)
        )
        for inode, wall in decide(recognize(node), DEFAULTS.policy, peers).walls.items()
        for one in sorted(wall.entries, key=repr)
    }


def recordings() -> dict[str, Path]:
    """All recordings by name."""
    found = sorted(RECORDINGS.rglob("*.json"))
    return {
        str(path.relative_to(RECORDINGS).with_suffix("")): path
        for path in found
        if not path.name.endswith(".expected.json")
    }


def saved_wall() -> Wall:
    """The wall that the recorded boot script stands for."""
    return Wall(
        1,
        frozenset(
            WallEntry(family, Proto.TCP, port, (audience,), note=f"{audience} tiny")
            for family in (4, 6)
            for port, audience in ((8000, PUBLIC), (29500, PEERS))
        ),
        {PEERS: tuple(map(ip_network, PEER_CIDRS))},
        banned=(ip_network(BANNED),),
        failsafe=frozenset({22}),
    )


def record(root: Path = HERE) -> Path:
    """Write the corpus of the installed version; its folder."""
    folder = root / version("vllmwall")
    shutil.rmtree(folder, ignore_errors=True)
    state = folder / "state"
    for each in ("run", "lib", "etc/conf.d"):
        (state / each).mkdir(parents=True)
    found = {name: rules(load(path)) for name, path in recordings().items()}
    (folder / "rules.json").write_text(json.dumps(found, indent=1) + "\n")
    (state / "etc/vllmwall.toml").write_text(CONFIGURATION)
    (state / "lib/boot.nft").write_text(boot_script(saved_wall()))
    _write_state(state)
    return folder


def _write_state(state: Path) -> None:
    """Let the code itself write what commands leave on disk."""
    run, conf_d = state / "run", state / "etc/conf.d"
    peers = PeerList(load_config(state / "etc/vllmwall.toml").settings().peers, run, conf_d)
    peers.add([ip_network("10.1.0.0/24")])
    peers.save([ip_network("10.2.0.0/24")])
    BanList(run / "bans.json", state / "lib/bans.json").add([ip_network(BANNED)], None, "scan")
    apis = ApiPorts(run, conf_d)
    apis.add(OPENED, save=False)
    apis.add(SAVED, save=True)
