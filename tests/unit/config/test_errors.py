"""Errors of a configuration: file, line, key, the value, and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from vllmwall.config import ConfigError, load
from vllmwall.config.models import Config
from vllmwall.config.wording import complaints

ROLES_END = "ray-metrics-export, debug, unknown and default"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('mod = "audit"', "1: mod: unknown key (did you mean mode?); allowed here: mode, peers, "
         "policy, groups, workload, program, api, host, limits, log, guards, boot, daemon, "
         "control, metrics, audit"),
        ("[host]\nlockdwn = true", "2: host.lockdwn: unknown key (did you mean lockdown?); "
         "allowed here: failsafe, lockdown, open, api_users"),
        ("[limits]\nburst = 3", "1: limits: burst has no effect without new_per_second"),
        ("limits.connections = 0", "1: limits.connections: must be at least 1, not 0"),
        ("[log]\nper_second = 3", "1: log: group is missing. Set it to the NFLOG group."),
        ('[log]\ngroup = 1\nprefix = "a;b"', '3: log.prefix: "a;b" is not a prefix. Use up to '
         "64 letters, digits, spaces and . _ : / -"),
        ("[peers]\n\ncidr = []", "3: peers.cidr: unknown key (did you mean cidrs?); allowed here: "
         "cidrs, files, dns, hold_seconds, allow_everyone, adopt"),
        ('mode = "drop"', '1: mode: must be "enforce" or "audit", not "drop"'),
        ("mode = 1", '1: mode: must be "enforce" or "audit", not 1'),
        ("peers = 3", "1: peers: must be a table, not 3"),
        ('peers.cidrs = "10.0.0.0/8"', '1: peers.cidrs: must be a list, not "10.0.0.0/8"'),
        ("peers.allow_everyone = 1", "1: peers.allow_everyone: must be true or false, not 1"),
        ('peers.files = ["peers.txt"]', '1: peers.files[0]: "peers.txt" is not an absolute '
         "path. Start it with /."),
        ('peers.dns = ["10.0.0.1"]', '1: peers.dns[0]: "10.0.0.1" is not a DNS name. Put '
         "addresses and CIDRs into peers.cidrs."),
        ('peers.dns = ["fd00::1"]', '1: peers.dns[0]: "fd00::1" is not a DNS name. Put '
         "addresses and CIDRs into peers.cidrs."),
        ('peers.dns = ["a b"]', '1: peers.dns[0]: "a b" is not a DNS name. Write one like '
         "gpu-nodes.internal."),
        ("policy = 3", "1: policy: must be a table, not 3"),
        ("policy.api = []", '1: policy.api: an empty list allows nobody. Use "node" for this '
         "host only."),
        ("policy.api = 3", "1: policy.api: must be an audience or a list of audiences, not 3"),
        ("policy.api = [3]", "1: policy.api: must be an audience or a list of audiences, not [3]"),
        ('policy.api = ["public", "peers"]', "1: policy.api: public includes everyone. Use it "
         "alone."),
        ('policy.api = "every"', '1: policy.api: "every" is not an audience; allowed are '
         "public, peers, node"),
        ('policy.zmq-ipc = "peers"', "1: policy.zmq-ipc: zmq-ipc listeners are unix sockets, "
         "which receive no packets"),
        ('policy.default = "public"', "1: policy.default: default cannot be public. Name each "
         "role that everyone may reach."),
        ("groups.a = []", "1: groups.a: a group needs at least one network. Add one, or delete "
         "the group."),
        ('groups.peers = ["10.0.0.1"]', "1: groups.peers: peers is a built-in audience. Give "
         "the group another name."),
        ('groups.Ops = ["10.0.0.1"]', '1: groups.Ops: "Ops" is not a group name. Use a '
         "lower-case letter, then up to 30 of a-z 0-9 _ -"),
        ('groups.a = ["0.0.0.0/0"]', "1: groups.a: this group covers all addresses. Use the "
         "audience public for the roles that everyone may reach."),
        ('groups.a = ["::/1", "8000::/1"]', "1: groups.a: this group covers all addresses. Use "
         "the audience public for the roles that everyone may reach."),
        ('host.failsafe = ["22"]', '1: host.failsafe[0]: "22" is not a port with a protocol. '
         'Write "tcp/22" or "udp/123".'),
        ('host.failsafe = ["tcp/0"]', '1: host.failsafe[0]: "tcp/0" is not a port with a '
         'protocol. Write "tcp/22" or "udp/123".'),
        ('host.failsafe = ["tcp/٢٢"]', '1: host.failsafe[0]: "tcp/٢٢" is not a port with a '
         'protocol. Write "tcp/22" or "udp/123".'),
        ("host.failsafe = [22]", '1: host.failsafe[0]: must be like "tcp/22" in quotes, not 22'),
        ("daemon.full_pass_seconds = 0", "1: daemon.full_pass_seconds: must be at least 1, not 0"),
        ("daemon.full_pass_seconds = 7200", "1: daemon.full_pass_seconds: must be at most 3600, "
         "not 7200"),
        ("daemon.full_pass_seconds = nan", "1: daemon.full_pass_seconds: must be a finite number, "
         "not nan"),
        ('daemon.full_pass_seconds = "9"', "1: daemon.full_pass_seconds: must be a number, not "
         '"9"'),
        ('daemon.log = "syslog"', '1: daemon.log: must be "auto", "journal", "json" or "console", '
         'not "syslog"'),
        ('control.group = "a b"', '1: control.group: "a b" is not a group name. Use a group of '
         "this host, like adm."),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_place(
    problems: Callable[[str], list[str]], text: str, expected: str
) -> None:
    """Line, key, value and what is allowed, in one sentence."""
    assert problems(text) == [expected]


@pytest.mark.parametrize(
    ("cidr", "message"),
    [
        ("10.0.0.5/24", '"10.0.0.5/24" has host bits; did you mean 10.0.0.0/24 or 10.0.0.5/32?'),
        ("fd00::5/64", '"fd00::5/64" has host bits; did you mean fd00::/64 or fd00::5/128?'),
        ("10.0.0.0/255.255.255.0", '"10.0.0.0/255.255.255.0": write the prefix length; did you '
         "mean 10.0.0.0/24?"),
        ("10.0.0.0/abc", '"10.0.0.0/abc" is no network; write one like 10.0.0.0/24, fd00:10::/64 '
         "or 10.0.0.5"),
        ("10.0.0.0/²", '"10.0.0.0/²" is no network; write one like 10.0.0.0/24, fd00:10::/64 '
         "or 10.0.0.5"),
        ("10.0.0.0/33", '"10.0.0.0/33" is no network; write one like 10.0.0.0/24, fd00:10::/64 '
         "or 10.0.0.5"),
        ("", '"" is no network; write one like 10.0.0.0/24, fd00:10::/64 or 10.0.0.5'),
        ("fe80::1%eth0", '"fe80::1%eth0" has an interface in it; write the address alone'),
        ("0.0.0.0", '"0.0.0.0" is nobody\'s address; everyone is 0.0.0.0/0'),
        ("::", '"::" is nobody\'s address; everyone is ::/0'),
    ],
)  # fmt: skip
def test_a_bad_network_says_which_one_was_meant(
    problems: Callable[[str], list[str]], cidr: str, message: str
) -> None:
    """The text as it was written, and the likely intent."""
    assert problems(f'[peers]\ncidrs = [\n  "10.1.0.0/24",\n  "{cidr}",\n]') == [
        f"4: peers.cidrs[1]: {message}"
    ]


@pytest.mark.parametrize(
    ("cidrs", "key", "whole"),
    [
        ('"0.0.0.0/0"', "0", "0.0.0.0/0"),
        ('"10.0.0.0/8", "::/0"', "1", "::/0"),
        ('"::ffff:0:0/96"', "0", "0.0.0.0/0"),
        ('"10.0.0.0/8", "0.0.0.0/1", "128.0.0.0/1"', "1", "0.0.0.0/0"),
    ],
)
def test_everyone_is_no_peer_unless_it_is_meant(
    problems: Callable[[str], list[str]], cidrs: str, key: str, whole: str
) -> None:
    """Also written as an IPv4-mapped network, or in two halves."""
    assert problems(f"peers.cidrs = [{cidrs}]") == [
        f"1: peers.cidrs[{key}]: {whole} would open every port of every workload to "
        "everyone. If you want that, set peers.allow_everyone = true."
    ]


def test_a_role_that_does_not_exist_is_answered_with_those_that_do(
    problems: Callable[[str], list[str]],
) -> None:
    """The whole list, and the one that was probably meant."""
    (problem,) = problems('policy.metrix = "peers"')
    assert problem.startswith(
        '1: policy.metrix: "metrix" is not a role (did you mean metrics?); allowed are api, '
        "metrics, "
    )
    assert problem.endswith(ROLES_END)


def test_an_audience_that_does_not_exist_is_answered_with_those_that_do(
    problems: Callable[[str], list[str]],
) -> None:
    """Groups of every file are among them."""
    text = '[policy]\ngloo = ["peers", "monitorin"]\n[groups]\nmonitoring = ["10.9.0.5"]'
    assert problems(text) == [
        '2: policy.gloo: "monitorin" is not an audience (did you mean monitoring?); allowed '
         "are public, peers, node, monitoring"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[workload]]\nname = "x"', ["1: workload[0].match: is missing"]),
        ('[[workload]]\nmatch.unit = "x"', ["1: workload[0].name: is missing"]),
        ('[[workload]]\nname = "x"\nmatch = {}', [
            "3: workload[0].match: needs at least one of exe, argv, unit, image, cgroup"]),
        ('[[workload]]\nname = "x"\nmatch = { pid = 3 }', [
            "3: workload[0].match.pid: unknown key; allowed here: exe, argv, unit, image, "
            "cgroup"]),
        ('[[workload]]\nname = "x"\nmatch = { exe = "/*" }', [
            '3: workload[0].match.exe: "/*" matches every process of this node. Use a more '
             "specific pattern."]),
        ('[[workload]]\nname = "a/b"\nmatch.unit = "x"\n', [
            '2: workload[0].name: "a/b" is not a workload name. Use a letter or digit, then up '
             "to 62 of A-Z a-z 0-9 . _ -"]),
        ('[[workload]]\nname = 3\nmatch.unit = "x"\napi_ports = [\n70000,\n"80",\ntrue]', [
            "2: workload[0].name: must be text in quotes, not 3",
            "5: workload[0].api_ports[0]: must be at most 65535, not 70000",
            '6: workload[0].api_ports[1]: must be a whole number, not "80"',
            "7: workload[0].api_ports[2]: must be a whole number, not true"]),
        ("workload = [3]", ["1: workload[0]: must be a table, not 3"]),
        ("workload = 3", ["1: workload: must be a list, not 3"]),
    ],
)  # fmt: skip
def test_a_bad_workload_is_named_with_its_place(
    problems: Callable[[str], list[str]], text: str, expected: list[str]
) -> None:
    """[[workload]] tables are counted from 0, as their lines show."""
    assert problems(text) == expected


def test_two_workloads_of_one_name_are_refused(write: Callable[..., Path]) -> None:
    """Across files too, and the message says where the other one is."""
    main = write('[[workload]]\nname = "x"\nmatch.unit = "x"')
    other = write('\n[[workload]]\nname = "x"\nmatch.unit = "y"', "conf.d/a.toml")
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert (
        str(caught.value)
        == f'{other}:3: workload[0].name: "x" is not unique: it is also in {main}:2'
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("10.0.0.0/24", "10.0.0.7/32"),
        ("10.0.0.7/32", "10.0.0.0/24"),
        ("fd00::/64", "fd00::1/128"),
    ],
)
def test_two_groups_with_one_address_are_refused(
    problems: Callable[[str], list[str]], ours: str, theirs: str
) -> None:
    """An address has one name, so that taking the name away takes the address away."""
    assert problems(f'[groups]\na = ["10.9.0.1", "{ours}"]\nb = ["{theirs}"]')[0].partition(" (")[
        0
    ] == (f"3: groups.b[0]: {theirs} overlaps {ours} of the group a")


def test_groups_side_by_side_do_not_overlap(loaded: Callable[[str], Config]) -> None:
    """Neighbours, the other family, the same group twice over, and the peers are no overlap."""
    config = loaded(
        'peers.cidrs = ["10.0.0.0/8"]\n[groups]\n'
        'a = ["10.0.0.0/25", "10.0.0.0/24"]\nb = ["10.0.1.0/24"]\nc = ["::/8"]'
    )
    assert list(config.groups) == ["a", "b", "c"]


def test_overlapping_groups_are_found_across_files(write: Callable[..., Path]) -> None:
    """The first file is named in the message about the second."""
    main = write('[groups]\na = ["10.0.0.0/24"]')
    write('[groups]\nb = ["10.0.0.0/25"]', "conf.d/a.toml")
    with pytest.raises(ConfigError, match=rf"10\.0\.0\.0/24 of the group a \({main}:2\)"):
        load(main)


def test_every_problem_is_reported_at_once(write: Callable[..., Path]) -> None:
    """One look shows all there is to do, over all files, by file and line."""
    main = write('mode = "x"\n[peers]\ncidrs = ["nonsense"]\n[policy]\napi = "nobody"\n')
    extra = write('mode = "enforce"\nbad = 1', "conf.d/a.toml")
    broken = write("[peers\n", "conf.d/b.toml")
    with pytest.raises(ConfigError) as caught:
        load(main)
    found = caught.value.problems
    assert [(problem.file, problem.line, problem.key) for problem in found] == [
        (str(extra), 2, "bad"),
        (str(broken), 1, ""),
        (str(main), 1, "mode"),
        (str(main), 3, "peers.cidrs[0]"),
        (str(main), 5, "policy.api"),
    ]  # fmt: skip


def test_broken_toml_is_named_with_its_line(problems: Callable[[str], list[str]]) -> None:
    """The parser's own words, and the line that they are about."""
    (problem,) = problems('mode = "audit"\npeers = = 3\n')
    assert problem.startswith("2: : is not valid TOML: ")


def test_toml_that_just_ends_is_named_with_its_last_line(
    problems: Callable[[str], list[str]],
) -> None:
    """tomllib names no line where the text is over too early."""
    (problem,) = problems("[peers]\ncidrs = [\n")
    assert problem.startswith("2: : is not valid TOML: ")


def test_an_error_without_words_of_ours_is_said_in_pydantics() -> None:
    """A new kind of error is never swallowed."""

    class Other(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Other.model_validate({"number": "x"})
    ((path, message),) = complaints(caught.value)
    assert path == ("number",)
    assert message.startswith("Input should be a valid integer")
    assert message.endswith(', not "x"')


def test_a_long_or_unprintable_value_is_shown_safely(problems: Callable[[str], list[str]]) -> None:
    """An error message cannot flood or repaint a terminal."""
    (problem,) = problems(f'mode = "\\u001b[31m{"x" * 200}"')
    assert "\x1b" not in problem
    assert len(problem) < 150
    assert problem.endswith("…")
