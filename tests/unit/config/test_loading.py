"""The meaning of a configuration: defaults, values, and the merging of several files."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from vllmwall.config import DEFAULT_PATH, load
from vllmwall.config.models import Config
from vllmwall.model import Mode, Proto, Role
from vllmwall.recognize.definitions import Match, WorkloadDefinition


def test_a_missing_configuration_works(etc: Path) -> None:
    """Nothing at all is a working configuration: api public, the rest for peers."""
    policy = load(etc / "vllmwall.toml").policy()
    assert policy.audience_of(Role.API) == ("public",)
    assert {policy.audience_of(role) for role in Role if role is not Role.API} == {("peers",)}
    assert policy.failsafe == {(Proto.TCP, 22)}
    assert policy.mode is Mode.ENFORCE


def test_a_missing_directory_works(tmp_path: Path) -> None:
    """Not even the directory has to be there."""
    assert load(tmp_path / "nowhere" / "vllmwall.toml").files == ()


def test_a_file_where_the_directory_should_be_is_no_crash(
    etc: Path, write: Callable[..., Path]
) -> None:
    """A conf.d that is a file holds no drop-ins."""
    path = write("")
    assert load(path, conf_d=write("", "conf.d")).files == (path,)


def test_an_empty_file_means_the_defaults(loaded: Callable[[str], Config]) -> None:
    """An empty file and no file mean the same."""
    assert loaded("").model_dump() == Config().model_dump()


def test_the_default_path_is_in_etc() -> None:
    """The place that the documentation names."""
    assert str(DEFAULT_PATH) == "/etc/vllmwall/vllmwall.toml"


def test_every_section_is_read(loaded: Callable[[str], Config]) -> None:
    """The example of the design, and the sections that it leaves out."""
    config = loaded(
        """
        mode = "audit"
        [peers]
        cidrs = ["10.0.0.0/24", "fd00:10::/64", "10.1.2.3"]
        files = ["/etc/vllmwall/peers.d/*.txt"]
        dns = ["gpu-nodes.internal"]
        [policy]
        api = "peers"
        metrics = ["peers", "monitoring", "peers"]
        default = "node"
        [groups]
        monitoring = ["10.9.0.5/32"]
        [host]
        failsafe = ["tcp/2222", "udp/123"]
        [daemon]
        full_pass_seconds = 10
        log = "json"
        log_level = "debug"
        [control]
        group = "adm"
        """
    )
    policy = config.policy()
    assert policy.mode is Mode.AUDIT
    assert policy.audience_of(Role.API) == ("peers",)
    assert policy.audience_of(Role.METRICS) == ("monitoring", "peers")
    assert policy.audience_of(Role.GLOO) == ("node",)
    assert policy.groups == {"monitoring": (ip_network("10.9.0.5/32"),)}
    assert policy.failsafe == {(Proto.TCP, 22), (Proto.TCP, 2222), (Proto.UDP, 123)}
    assert list(map(str, config.peers.cidrs)) == ["10.0.0.0/24", "fd00:10::/64", "10.1.2.3/32"]
    assert config.peers.files == ("/etc/vllmwall/peers.d/*.txt",)
    assert config.peers.dns == ("gpu-nodes.internal",)
    assert (config.daemon.full_pass_seconds, config.daemon.log) == (10, "json")
    assert (config.daemon.log_level, config.control.group) == ("debug", "adm")


def test_ssh_is_failsafe_whatever_is_configured(loaded: Callable[[str], Config]) -> None:
    """An empty failsafe list cannot lock the operator out."""
    assert loaded("host.failsafe = []").policy().failsafe == {(Proto.TCP, 22)}


def test_an_internal_role_is_public_only_by_its_own_name(loaded: Callable[[str], Config]) -> None:
    """One role can be opened on purpose, and no other comes with it."""
    policy = loaded('policy.metrics = "public"').policy()
    public = {role for role in Role if policy.audience_of(role) == ("public",)}
    assert public == {Role.API, Role.METRICS}


def test_workloads_become_lessons(loaded: Callable[[str], Config]) -> None:
    """Every [[workload]] is a definition for recognition, in the order of the file."""
    config = loaded(
        """
        [[workload]]
        name = "one"
        match = { unit = "my-llm.service", exe = "/opt/*" }
        api_ports = [9000, 9001]
        [[workload]]
        name = "two"
        match = { argv = "*serve*" }
        """
    )
    assert config.definitions() == (
        WorkloadDefinition(
            "one", Match(unit="my-llm.service", exe="/opt/*"), frozenset({9000, 9001})
        ),
        WorkloadDefinition("two", Match(argv="*serve*")),
    )


def test_mapped_networks_are_the_ipv4_networks_they_mean(loaded: Callable[[str], Config]) -> None:
    """::ffff:10.0.0.0/120 is 10.0.0.0/24: that is how packets carry it."""
    cidrs = loaded('peers.cidrs = ["::ffff:10.0.0.0/120", "::ffff:10.1.0.1"]').peers.cidrs
    assert list(map(str, cidrs)) == ["10.0.0.0/24", "10.1.0.1/32"]


def test_everyone_can_be_peers_when_it_is_spelled_out(loaded: Callable[[str], Config]) -> None:
    """peers.allow_everyone = true takes 0.0.0.0/0."""
    config = loaded('peers = { cidrs = ["0.0.0.0/0", "::/0"], allow_everyone = true }')
    assert list(map(str, config.peers.cidrs)) == ["0.0.0.0/0", "::/0"]


def test_drop_ins_merge_in_the_order_of_their_names(write: Callable[..., Path]) -> None:
    """Lists concatenate, workloads append, of a single value the last file's counts."""
    main = write('mode = "audit"\npeers.cidrs = ["10.0.0.0/24"]\nhost.failsafe = ["tcp/23"]')
    write('mode = "enforce"\npeers.cidrs = ["10.2.0.0/24"]', "conf.d/20.toml")
    write(
        'mode = "audit"\npeers.cidrs = ["10.1.0.0/24"]\nhost.failsafe = ["tcp/24"]\n'
        '[[workload]]\nname = "a"\nmatch.unit = "a"\n',
        "conf.d/10.toml",
    )
    write(
        '[[workload]]\nname = "b"\nmatch.unit = "b"\n[groups]\nx = ["10.9.0.1"]', "conf.d/30.toml"
    )
    write('[groups]\nx = ["10.9.0.2"]', "conf.d/40.toml")
    config = load(main)
    assert [path.name for path in config.files] == [
        *("vllmwall.toml", "10.toml", "20.toml", "30.toml", "40.toml")
    ]
    assert config.mode is Mode.ENFORCE
    assert list(map(str, config.peers.cidrs)) == ["10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/24"]
    assert [definition.name for definition in config.definitions()] == ["a", "b"]
    assert list(map(str, config.groups["x"])) == ["10.9.0.1/32", "10.9.0.2/32"]
    assert {port for _, port in config.policy().failsafe} == {22, 23, 24}


def test_a_later_audience_replaces_an_earlier_one(write: Callable[..., Path]) -> None:
    """An audience is one value, also as a list: a later file can narrow it."""
    main = write('[policy]\nmetrics = ["peers", "node"]\ngloo = "node"')
    write('[policy]\nmetrics = ["node"]', "conf.d/a.toml")
    policy = load(main).policy()
    assert policy.audience_of(Role.METRICS) == ("node",)
    assert policy.audience_of(Role.GLOO) == ("node",)


def test_a_later_no_takes_back_an_earlier_allow_everyone(write: Callable[..., Path]) -> None:
    """Of a single value the last file's counts, for the widest one too."""
    main = write("peers.allow_everyone = false")
    write("peers.allow_everyone = true", "conf.d/a.toml")
    write('peers.cidrs = ["0.0.0.0/0"]', "conf.d/b.toml")
    assert load(main).peers.allow_everyone


def test_hidden_and_other_files_of_conf_d_are_left_alone(write: Callable[..., Path]) -> None:
    """Editors leave files behind; only NAME.toml counts."""
    main = write("")
    write("broken", "conf.d/.a.toml")
    write("broken", "conf.d/a.toml~")
    assert load(main).files == (main,)


def test_conf_d_can_lie_elsewhere(write: Callable[..., Path], tmp_path: Path) -> None:
    """A directory given by hand takes the place of conf.d."""
    write('mode = "audit"', "other/a.toml")
    main = write("")
    assert load(main, conf_d=main.parent / "other").mode is Mode.AUDIT


def test_peers_remember_their_files(write: Callable[..., Path]) -> None:
    """Status can say which file a peer comes from."""
    main = write('peers.cidrs = ["10.0.0.0/24"]')
    extra = write('peers.cidrs = ["10.1.0.0/24"]', "conf.d/a.toml")
    write('mode = "audit"', "conf.d/b.toml")
    by_file = load(main).settings().peers.by_file
    assert {name: list(map(str, nets)) for name, nets in by_file.items()} == {
        str(main): ["10.0.0.0/24"],
        str(extra): ["10.1.0.0/24"],
    }


def test_a_byte_order_mark_is_no_error(etc: Path) -> None:
    """Some editors write one."""
    path = etc / "vllmwall.toml"
    path.write_bytes(b"\xef\xbb\xbfmode = 'audit'")
    path.chmod(0o644)
    assert load(path).mode is Mode.AUDIT
