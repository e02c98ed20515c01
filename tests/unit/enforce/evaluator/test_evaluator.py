"""The evaluator's answers about a table, without a kernel: verdicts, the way, refusals.

That the verdicts are the kernel's is tested in tests/kernel/enforce/test_evaluator.py.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from vllmwall.enforce.evaluator import (
    NotUnderstoodError,
    Packet,
    Socket,
    Verdict,
    evaluate,
    read_table,
)
from vllmwall.enforce.nftables import ruleset
from vllmwall.model import Guard, KernelLog, Limits, Mode, Proto, Wall, WallEntry

PEER, STRANGER, NODE = (ip_address(f"192.0.2.{n}") for n in (2, 9, 1))
WALL = Wall(
    0,
    frozenset(
        {
            WallEntry(4, Proto.TCP, 29500, ("peers",), None, "tcpstore job, 1"),
            WallEntry(4, Proto.TCP, 8000, ("public",), NODE, "api job"),
            WallEntry(4, Proto.UDP, 9, ("node",)),
            WallEntry(6, Proto.TCP, 29500, ("peers",), ip_address("2001:db8::1:0")),
        }
    ),
    {"peers": (ip_network("192.0.2.2/31"), ip_network("2001:db8:1::/48"))},
    guards=frozenset({Guard(2, 4711)}),
    failsafe=frozenset({22}),
    answering=True,
)
GUARDED = Socket({1: 1, 2: 4711, 3: 9})


def listing(wall: Wall = WALL) -> str:
    """The table of a wall as nft prints it; elements of the guards are numbers there."""
    wall = replace(wall, entries=frozenset(replace(one, note="") for one in wall.entries))
    return ruleset.table(wall, {guard: str(guard.id) for guard in wall.guards}).listing()


def with_rule(*rules: str, chain: str = "input", extra: str = "") -> str:
    """A small table with these rules in its base chain."""
    body = "\n\t\t".join(["type filter hook input priority filter - 10; policy accept;", *rules])
    return f"table inet vllmwall {{\n{extra}\tchain {chain} {{\n\t\t{body}\n\t}}\n}}\n"


def packet(port: int = 29500, source: object = STRANGER, **changes: object) -> Packet:
    """A SYN to the node, with changes."""
    made = Packet(ip_address(str(source)), NODE, "tcp", port, 40000)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        (packet(29500, PEER), Verdict.ACCEPT),
        (packet(29500, STRANGER), Verdict.DROP),
        (packet(29500, "192.0.2.3"), Verdict.ACCEPT),
        (packet(29500, "192.0.2.4"), Verdict.DROP),
        (packet(29500, PEER, proto="udp"), Verdict.ACCEPT),
        (packet(29500, STRANGER, flags=frozenset({"ack"})), Verdict.DROP),
        (packet(29500, STRANGER, interface="lo"), Verdict.ACCEPT),
        (packet(29500, STRANGER, proto="udp"), Verdict.ACCEPT),
        (packet(8000, STRANGER), Verdict.REJECT),
        (packet(8000, STRANGER, socket=Socket()), Verdict.ACCEPT),
        (packet(8000, STRANGER, socket=GUARDED), Verdict.ACCEPT),
        (packet(8001, STRANGER, socket=GUARDED), Verdict.DROP),
        (packet(8001, PEER, socket=GUARDED), Verdict.ACCEPT),
        (packet(8001, STRANGER, socket=GUARDED, flags=frozenset({"ack"})), Verdict.ACCEPT),
        (packet(8001, STRANGER, socket=Socket({1: 4711})), Verdict.ACCEPT),
        (packet(8001, STRANGER), Verdict.REJECT),
        (packet(8001, STRANGER, slave=7), Verdict.ACCEPT),
        (packet(22, STRANGER, socket=GUARDED), Verdict.ACCEPT),
        (packet(9, PEER, proto="udp"), Verdict.DROP),
        (packet(9, PEER, proto="udp", dport=None), Verdict.ACCEPT),
    ],
)
def test_a_wall_does_to_a_packet_what_it_says(tried: Packet, expected: Verdict) -> None:
    """Listener rules for every packet, guards for SYNs, lo and failsafe ports never."""
    assert expected is evaluate(read_table(listing()), tried).verdict


def test_the_exact_address_counts_and_the_family() -> None:
    """A rule for one address touches no other one, however it is written."""
    table = read_table(listing())
    six = Packet(ip_address("2001:db8:2::9"), ip_address("2001:db8::1:0"), "tcp", 29500, 1)
    assert Verdict.DROP is evaluate(table, six).verdict
    other = replace(six, destination=ip_address("2001:db8::2"), socket=Socket())
    assert Verdict.ACCEPT is evaluate(table, other).verdict
    nft_writes = read_table(listing().replace("2001:db8::1:0 .", "2001:db8::0.1.0.0 ."))
    assert Verdict.DROP is evaluate(nft_writes, six).verdict


ORDERED = replace(
    WALL,
    entries=WALL.entries | {WallEntry(4, Proto.TCP, 9000, ("public",), limited=True)},
    banned=(ip_network("203.0.113.0/24"),),
    failsafe_udp=frozenset({53}),
    lockdown=True,
    opened=frozenset({(Proto.TCP, 443)}),
    limits=Limits(5, 10, 20),
    log=KernelLog(5),
    answering=False,
)
BANNED = "203.0.113.255"


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        (packet(443, BANNED), Verdict.DROP),
        (packet(443, "203.0.114.0"), Verdict.ACCEPT),
        (packet(22, BANNED), Verdict.ACCEPT),
        (packet(53, BANNED, proto="udp"), Verdict.ACCEPT),
        (packet(53, BANNED), Verdict.DROP),
        (packet(0, BANNED, proto="icmp", dport=None), Verdict.ACCEPT),
        (packet(9000, STRANGER), Verdict.DEPENDS),
        (packet(9000, PEER), Verdict.ACCEPT),
        (packet(444, PEER), Verdict.DROP),
        (packet(444, PEER, flags=frozenset({"syn", "ack"})), Verdict.ACCEPT),
        (packet(444, PEER, flags=frozenset({"syn", "psh"})), Verdict.DROP),
        (packet(444, PEER, proto="udp"), Verdict.DROP),
        (packet(444, PEER, proto="udp", state="established"), Verdict.ACCEPT),
        (packet(22, STRANGER), Verdict.ACCEPT),
        (packet(22, STRANGER, proto="udp"), Verdict.DROP),
        (packet(68, STRANGER, proto="udp", sport=67), Verdict.ACCEPT),
        (packet(68, STRANGER, proto="udp"), Verdict.DROP),
        (packet(1, STRANGER, proto="esp", dport=None), Verdict.ACCEPT),
        (packet(444, STRANGER, proto="sctp"), Verdict.DROP),
    ],
)
def test_orders_do_what_they_say(tried: Packet, expected: Verdict) -> None:
    """Bans, lockdown, limits, failsafe ports and the log, in one table."""
    assert expected is evaluate(read_table(listing(ORDERED)), tried).verdict


def test_audit_mode_lets_strangers_in() -> None:
    """The last rule decides, whatever the table's comment claims."""
    table = read_table(listing(replace(WALL, mode=Mode.AUDIT)))
    assert Verdict.ACCEPT is evaluate(table, packet()).verdict


def test_the_judgement_names_the_rules_and_the_elements() -> None:
    """From the first match to the rule that decided, with what matched in which set."""
    found = evaluate(read_table(listing()), packet(29500, PEER))
    assert [
        ("input", "walled_any4", "tcp . 29500"),
        ("walled", "any4", "tcp . 29500 : jump only_peers"),
        ("only_peers", "peers4", "192.0.2.2/31"),
    ] == [(step.chain, step.set, step.element) for step in found.way]
    assert "ip saddr @peers4 accept" == found.decided.rule
    policy = evaluate(read_table(listing()), packet(80, socket=Socket()))
    assert ("input", "policy accept") == (policy.decided.chain, policy.decided.rule)


def test_a_returning_jump_goes_on_behind_it_and_a_goto_does_not() -> None:
    """As the kernel's stack has it: after a goto, the caller's caller is next."""
    chains = "\tchain a {\n\t\ttcp dport 1 return\n\t\tgoto b\n\t}\n"
    chains = f"{chains}\tchain b {{\n\t\ttcp dport 2 drop\n\t}}\n"
    jump = read_table(with_rule("jump a", "tcp dport 1-9 drop", extra=chains))
    assert [Verdict.DROP] * 2 == [evaluate(jump, packet(port)).verdict for port in (1, 3)]
    goto = read_table(with_rule("goto a", "tcp dport 1-9 drop", extra=chains))
    assert [Verdict.ACCEPT, Verdict.DROP] == [evaluate(goto, packet(n)).verdict for n in (1, 2)]


def test_every_base_chain_is_asked_in_the_order_of_priority() -> None:
    """What one accepts the next can drop; what one drops no other sees."""
    late = "\tchain late {\n\t\ttype filter hook input priority filter - 9; policy drop;\n\t}\n"
    found = evaluate(read_table(with_rule("accept", extra=late)), packet())
    assert Verdict.DROP is found.verdict
    assert ["input", "late"] == [step.chain for step in found.trail]


def test_a_dormant_table_does_nothing() -> None:
    """It is listed as if it were active."""
    text = listing().replace("{\n", "{\n\tflags owner, dormant\n", 1)
    found = evaluate(read_table(text), packet())
    assert (Verdict.ACCEPT, "flags dormant") == (found.verdict, found.decided.rule)


@pytest.mark.parametrize(
    "rule",
    [
        "limit rate over 5/second burst 10 packets drop",
        "ct count over 20 drop",
        "update @seen { ip saddr limit rate over 5/second burst 10 packets } goto strangers",
        "tcp flags syn / fin,syn,rst,ack add @seen { ip saddr ct count over 20 } goto strangers",
        "update @seen { ip saddr counter } drop",
    ],
)
def test_what_depends_on_packets_before_is_said_to_depend(rule: str) -> None:
    """Limits, counts, and whether a set is full: with what can come of it."""
    extra = "\tset seen {\n\t\ttype ipv4_addr\n\t\tsize 9\n\t\tflags dynamic,timeout\n\t}\n"
    extra += "\tchain strangers {\n\t\tcounter drop\n\t}\n"
    found = evaluate(read_table(with_rule(rule, extra=extra)), packet())
    assert Verdict.DEPENDS is found.verdict
    assert [Verdict.DROP, Verdict.ACCEPT] == [one.verdict for one in found.outcomes]
    assert rule == found.decided.rule


def test_what_does_not_matter_does_not_depend() -> None:
    """A rate-limited log before the drop, a limit for the other family, both ends alike."""
    extra = "\tset seen {\n\t\ttype ipv6_addr\n\t\tflags dynamic\n\t}\n"
    rules = [
        "update @seen { ip6 saddr limit rate over 5/second burst 10 packets } accept",
        'limit rate 5/second burst 10 packets log prefix "a {b} " group 5',
        "limit rate 5/second counter drop",
        "counter packets 3 bytes 180 drop",
    ]
    assert Verdict.DROP is evaluate(read_table(with_rule(*rules, extra=extra)), packet()).verdict


@pytest.mark.parametrize(
    "rule",
    [
        "meta mark 0x1 accept",
        "iifname eth0 accept",
        'iif "eth0" accept',
        "ip saddr @missing drop",
        "tcp dport { 1, x } drop",
        "tcp dport vmap { 29500 : drop }",
        "th dport & 1 == 1 drop",
        "tcp flags syn drop",
        "fib daddr type local accept",
        "accept queue",
        "jump nowhere",
        "ct state established | new drop",
        'numgen random mod 2 0 comment "x" drop',
        "ip saddr != 10.0.0.300 drop",
        "reject with icmp host-unreachable",
    ],
)
def test_what_is_not_understood_is_refused_by_name(rule: str) -> None:
    """No verdict is guessed: the error holds the chain and the rule."""
    with pytest.raises(NotUnderstoodError) as caught:
        evaluate(read_table(with_rule(rule, "drop")), packet())
    assert "chain input" in str(caught.value)
    assert rule.rsplit(maxsplit=1)[-1].strip('"') in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "table inet vllmwall {\n\tflags offline\n}\n",
        "table inet vllmwall {\n\tsomething new\n}\n",
        with_rule("drop").replace("hook input", "hook prerouting"),
        with_rule("drop").replace("filter - 10", "dstnat"),
        "nothing",
    ],
)
def test_a_table_with_strange_declarations_is_refused(text: str) -> None:
    """Flags, hooks and priorities that change what a rule means."""
    with pytest.raises(NotUnderstoodError):
        read_table(text)


@pytest.mark.parametrize(
    "element",
    ["x", "192.0.2.0/33", "192.0.2.1/24", "192.0.2.9 . tcp", "192.0.2.1-fd00::", "192.0.2.0/x"],
)
def test_an_element_that_cannot_be_read_is_refused(element: str) -> None:
    """It could be the one that counts."""
    text = listing().replace("192.0.2.2/31", f"192.0.2.2/31, {element}")
    with pytest.raises(NotUnderstoodError, match="set peers4"):
        evaluate(read_table(text), packet())


def test_comments_and_counters_are_no_part_of_what_matches() -> None:
    """Of elements (with commas in quotes) and of rules, in every version's spelling."""
    text = listing().replace(
        "tcp . 29500 :", 'tcp . 29500 counter packets 1 bytes 2 comment "a, b" :'
    )
    found = evaluate(read_table(text), packet())
    assert Verdict.DROP is found.verdict
    newer = listing().replace("{\n", "{ # progname python3\n", 1)
    newer = newer.replace(ruleset.SYN, "tcp flags & (fin | syn | rst | ack) == syn")
    newer = newer.replace("reject with", "meta l4proto tcp reject with")
    assert Verdict.REJECT is evaluate(read_table(newer), packet(80)).verdict
    commented = with_rule('tcp dport 29500 counter drop comment "why, then"')
    assert Verdict.DROP is evaluate(read_table(commented), packet()).verdict


NAT = replace(
    WALL,
    redirected=True,
    vrfs=frozenset({"blue"}),
    entries=WALL.entries | {WallEntry(4, Proto.TCP, 5000, ("peers",), NODE)},
)


@pytest.mark.parametrize(
    ("source", "port", "first", "verdict"),
    [
        (STRANGER, 15006, 29500, Verdict.DROP),
        (STRANGER, 15006, 5000, Verdict.DROP),
        (STRANGER, 15006, 8000, Verdict.ACCEPT),
        (STRANGER, 15006, 81, Verdict.ACCEPT),
        (STRANGER, 29500, 8000, Verdict.DROP),
        (PEER, 15006, 29500, Verdict.ACCEPT),
        (PEER, 15006, 5000, Verdict.ACCEPT),
    ],
)
def test_a_redirected_packet_is_judged_by_both_of_its_ports(
    source: object, port: int, first: int, verdict: Verdict
) -> None:
    """As conntrack knows the first one; without NAT the same packet is judged by one."""
    table = read_table(listing(NAT))
    sent = packet(port, source, socket=Socket({1: 1}), first=(NODE, first))
    assert verdict is evaluate(table, sent).verdict
    plain = Verdict.DROP if port == 29500 else Verdict.ACCEPT
    assert plain is evaluate(table, replace(sent, first=None)).verdict


@pytest.mark.parametrize(
    ("slave", "verdict"),
    [("blue", Verdict.ACCEPT), ("eth0", Verdict.DROP), ("", Verdict.DROP)],
)
def test_this_host_reaches_itself_through_a_vrf(slave: str, verdict: Verdict) -> None:
    """Its packets come in by the VRF and by no member; a stranger's come by one."""
    table = read_table(listing(NAT))
    found = evaluate(table, packet(source=STRANGER, interface="blue", slave=3, slave_name=slave))
    assert verdict is found.verdict
    elsewhere = packet(source=STRANGER, interface="eth0", slave_name="eth0")
    assert Verdict.DROP is evaluate(table, elsewhere).verdict
