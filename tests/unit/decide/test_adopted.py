"""The connections that a workload adopts: from which hosts, to which ports, and how many."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from vllmwall.decide.adopted import (
    MOST_NAMED,
    MOST_SOURCES,
    Adopted,
    Contact,
    adopted_by,
    groups_of,
    shown,
    with_adopted,
    without_adopted,
)
from vllmwall.decide.walls import audience_at, decide
from vllmwall.enforce.nftables.check import check_wall
from vllmwall.model import (
    PEERS,
    PUBLIC,
    AdoptedSource,
    Label,
    LabelledListener,
    Listener,
    Policy,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)

POLICY = Policy({Role.API: (PUBLIC,)})
LOCAL = ip_address("130.1.2.3")
SUBNET = ip_network("130.1.2.0/24")
NO_PEERS = ()
PORTS = {
    Role.TCPSTORE: 29500,
    Role.WEB: 8080,
    Role.API: 8000,
    Role.METRICS: 9400,
    Role.GRPC: 9000,
    Role.UNKNOWN: 41000,
}


def workload(pid: int = 100, *, first_port: int = 0) -> Workload:
    """One with a listener of each role."""
    listeners = tuple(
        LabelledListener(
            Listener(1, Proto.TCP, port + first_port, ip_address("0.0.0.0"), inode=port, uid=pid),
            Label(role, 1.0),
        )
        for role, port in PORTS.items()
    )
    return Workload(WorkloadId(pid, 7), Stack.TORCH, "job", frozenset({pid}), listeners)


def contact(remote: str, role: Role = Role.TCPSTORE, **options: object) -> Contact:
    return Contact(1, LOCAL, PORTS[role], ip_address(remote), **options)  # type: ignore[arg-type]


def adopted(*contacts: Contact, policy: Policy = POLICY) -> Adopted:
    """What the one workload adopts."""
    [found] = adopted_by([workload()], policy, NO_PEERS, contacts, 1.0)
    return found


@pytest.mark.parametrize(
    "remote",
    ["10.0.0.2", "172.31.0.2", "192.168.9.9", "100.127.0.1", "169.254.1.1", "fd00::2", "fe80::2"],
)
def test_private_hosts_are_adopted(remote: str) -> None:
    assert (AdoptedSource(ip_address(remote)),) == adopted(contact(remote)).sources


@pytest.mark.parametrize(
    "remote",
    [
        *("203.0.113.9", "172.32.0.1", "11.0.0.1", "100.128.0.1", "8.8.8.8"),
        *("2001:db8::1", "fec0::1", "2600::1"),
    ],
)
def test_public_hosts_are_not_and_are_named(remote: str) -> None:
    found = adopted(contact(remote))
    assert () == found.sources
    assert [(ip_address(remote), "public")] == [(one.address, one.why) for one in found.refused]


def test_a_neighbour_on_the_interfaces_subnet_is_adopted() -> None:
    """Clusters of universities have public addresses."""
    found = adopted(contact("130.1.2.9", subnet=SUBNET), contact("130.1.3.9", subnet=SUBNET))
    assert (AdoptedSource(ip_address("130.1.2.9")),) == found.sources
    assert [ip_address("130.1.3.9")] == [one.address for one in found.refused]


@pytest.mark.parametrize("subnet", ["0.0.0.0/0", "130.0.0.0/8", "::/0"])
def test_a_subnet_that_is_half_the_world_says_nothing(subnet: str) -> None:
    assert () == adopted(contact("130.1.2.9", subnet=ip_network(subnet))).sources


def test_an_address_of_this_node_is_never_adopted() -> None:
    """Everybody behind its NAT has it."""
    found = adopted(contact("10.244.0.1", ours=True))
    assert ((), ["ours"]) == (found.sources, [one.why for one in found.refused])


def test_clients_of_an_api_or_a_web_server_are_no_peers() -> None:
    """The web server stays open; the API is open anyway."""
    found = adopted(contact("10.0.0.2", Role.WEB), contact("203.0.113.9", Role.WEB))
    assert ((), (PORTS[Role.WEB],), ()) == (found.sources, found.web_ports, found.refused)
    assert () == adopted_by([workload()], POLICY, NO_PEERS, [contact("10.0.0.2", Role.API)], 1.0)
    nobody_named_api = Policy({})
    found_api = [contact("10.0.0.2", Role.API)]
    assert () == adopted_by([workload()], nobody_named_api, NO_PEERS, found_api, 1.0)


def test_a_scraper_reaches_what_it_scraped_and_nothing_else() -> None:
    """Prometheus is no member of the job."""
    record = adopted(contact("10.0.0.2"), contact("10.0.0.3", Role.METRICS))
    found = with_adopted(Recognition((workload(),), ()), [record], POLICY)
    [wall] = decide(found, POLICY, NO_PEERS).walls.values()
    check_wall(wall)
    let_in = {
        entry.port: {str(net) for name in entry.audience for net in wall.networks.get(name, ())}
        for entry in wall.entries
    }
    assert {"10.0.0.2/32"} == let_in[PORTS[Role.TCPSTORE]] == let_in[PORTS[Role.UNKNOWN]]
    assert {"10.0.0.2/32", "10.0.0.3/32"} == let_in[PORTS[Role.METRICS]]
    assert {"10.0.0.2/32"} == let_in[PORTS[Role.GRPC]]


def test_the_policys_word_goes_first() -> None:
    """A role that the operator names adopts nothing, before and after."""
    named = replace(POLICY, audiences={**POLICY.audiences, Role.TCPSTORE: (PEERS,)})
    for policy in (named, replace(POLICY, default=("node",))):
        found = adopted_by([workload()], policy, NO_PEERS, [contact("10.0.0.2")], 1.0)
        assert () == found
    record = adopted(contact("10.0.0.2"), contact("203.0.113.9", Role.WEB))
    [mine] = with_adopted(Recognition((workload(),), ()), [record], named).workloads
    assert () == groups_of(mine, Role.TCPSTORE, named)
    closed = replace(POLICY, audiences={**POLICY.audiences, Role.WEB: (PEERS,)})
    [mine] = with_adopted(Recognition((workload(),), ()), [record], closed).workloads
    assert Role.WEB in {one.label.role for one in mine.listeners}


def test_another_workload_lets_none_of_them_in() -> None:
    """The group is of one workload, and no group of the configuration has its name."""
    other = workload(200, first_port=100)
    record = adopted(contact("10.0.0.2"))
    found = with_adopted(Recognition((workload(), other), ()), [record], POLICY)
    [wall] = decide(found, POLICY, NO_PEERS).walls.values()
    audiences = {entry.port: shown(entry.audience) for entry in wall.entries}
    assert ("adopted", PEERS) == audiences[29500]
    assert (PEERS,) == audiences[29600]
    [mine, _] = found.workloads
    store = mine.listeners[0].listener
    assert (PEERS, "adopted") == audience_at(store, Role.TCPSTORE, POLICY, mine)


def test_a_port_of_two_workloads_adopts_nothing() -> None:
    """Nothing says whose connection it is."""
    both = [workload(), workload(200)]
    assert () == adopted_by(both, POLICY, NO_PEERS, [contact("10.0.0.2")], 1.0)


def test_peers_are_not_adopted() -> None:
    """They stay when the workload ends."""
    peers = (ip_network("10.0.0.0/24"),)
    assert () == adopted_by([workload()], POLICY, peers, [contact("10.0.0.2")], 1.0)


def test_there_are_not_too_many() -> None:
    """And those of the job itself come first."""
    hosts = [contact(f"10.0.{number // 250}.{number % 250 + 1}") for number in range(400)]
    scraper = contact("10.9.0.1", Role.METRICS)
    found = adopted(scraper, *hosts)
    assert (MOST_SOURCES, MOST_NAMED) == (len(found.sources), len(found.refused))
    assert 400 + 1 - MOST_SOURCES == found.refusals
    assert {None} == {one.role for one in found.sources}


def test_the_wall_for_the_next_boot_has_nothing_of_it() -> None:
    """Neither the hosts nor the open web server."""
    record = adopted(contact("10.0.0.2"), contact("203.0.113.9", Role.WEB))
    found = with_adopted(Recognition((workload(),), ()), [record], POLICY)
    [wall] = decide(found, POLICY, NO_PEERS).walls.values()
    [bare] = decide(Recognition((workload(),), ()), POLICY, NO_PEERS).walls.values()
    labelled = [one for each in found.workloads for one in each.listeners]
    lasting = without_adopted(wall, labelled)
    audiences = {entry.port: entry.audience for entry in lasting.entries}
    assert audiences == {entry.port: entry.audience for entry in bare.entries}
    assert bare.networks == lasting.networks
