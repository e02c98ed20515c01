"""The metrics of a real daemon: true, by HTTP and as a file, and nobody stalls it by asking."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.lab import Host, Lab
from vllmwall.api.metrics.definitions import DEFINITIONS

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]
METRICS = '[metrics]\nlisten = "unix:{}"\ntextfile = "{}"\n'


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        text = METRICS.format(tmp_path / "metrics.sock", tmp_path / "vllmwall.prom")
        found.configure(PEERS + text)
        found.ask("reload")
        yield found


def get(node: Guarded, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(10)
        asked.connect(str(node.folder / "metrics.sock"))
        asked.sendall(request)
        with asked.makefile("rb") as answer:
            return answer.read()


def values(text: str) -> Values:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def scraped(node: Guarded) -> Values:
    head, _, body = get(node).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK"), head + body
    return values(body.decode())


def value(found: Values, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    wanted = set(labels.items())
    return sum(number for (one, has), number in found.items() if one == name and wanted <= has)


def test_listeners_walls_and_drops_are_told_as_they_are(node: Guarded) -> None:
    """A rank's port, its closed wall, and each packet that a stranger lost there."""
    node.rank().open("tcp", "::", 29500)
    node.settled()
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 29500)
    eventually(lambda: drops(node) > 0, "the drops are counted", node.log)
    found = scraped(node)
    assert 1 == value(found, "vllmwall_listeners", stack="torch", rule="active")
    assert 1 == value(found, "vllmwall_wall_up")
    assert 1 == value(found, "vllmwall_safe")
    assert 0 == value(found, "vllmwall_config_refused")
    assert 1 == value(found, "vllmwall_refused_sources")
    assert 2 == value(found, "vllmwall_peer_networks")
    assert 1 <= value(found, "vllmwall_reaction_seconds_count")
    assert 0 < value(found, "vllmwall_reaction_seconds_sum") < 10
    assert 1 <= value(found, "vllmwall_pass_duration_seconds_count", kind="quick")
    role = node.ask("status")["workloads"][0]["listeners"][0]["role"]  # type: ignore[index]
    assert 0 < value(found, "vllmwall_refused_packets_total", role=role)
    assert 0 < value(found, "vllmwall_refused_bytes_total", role=role)


def drops(node: Guarded) -> float:
    return value(scraped(node), "vllmwall_refused_packets_total")


def test_drops_never_run_backwards(node: Guarded) -> None:
    """A rebuilt table counts from zero in the kernel, and the metrics go on."""
    node.rank().open("tcp", "::", 29500)
    node.settled()
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 29500)
    eventually(lambda: drops(node) > 0, "the drops are counted", node.log)
    before = drops(node)
    node.ask("down")
    node.ask("up")
    eventually(lambda: value(scraped(node), "vllmwall_wall_up") == 1, "the wall is up")
    assert before <= drops(node)


def test_a_broken_wall_and_a_refused_configuration_show(node: Guarded) -> None:
    """What the alerts are made of."""
    node.ask("down")
    eventually(lambda: value(scraped(node), "vllmwall_mode_info", mode="down") == 1, "it is down")
    assert 0 == value(scraped(node), "vllmwall_safe")
    node.ask("up")
    node.config.write_text("nonsense = 1\n")
    with pytest.raises(Exception, match="nonsense"):
        node.ask("reload")
    eventually(lambda: value(scraped(node), "vllmwall_config_refused") == 1, "it is told")
    assert 1 == value(scraped(node), "vllmwall_events_total", kind="config_invalid")


def test_a_repair_is_measured(lab: Lab, tmp_path: Path) -> None:
    """Another program flushed our table: counted, and timed until the wall was repaired."""
    with guarded(lab, tmp_path, environment={"VLLMWALL_OWNER": "off"}) as node:
        node.configure(PEERS + METRICS.format(tmp_path / "metrics.sock", tmp_path / "v.prom"))
        node.ask("reload")
        lab.node.run(["nft", "flush ruleset"])
        eventually(
            lambda: value(scraped(node), "vllmwall_repair_seconds_count") >= 1, "it was repaired"
        )
        assert 1 <= value(scraped(node), "vllmwall_events_total", kind="table_modified")
        assert 1 == value(scraped(node), "vllmwall_wall_up")


def test_every_metric_of_the_reference_is_there(node: Guarded) -> None:
    """And no other one: what the page names is what is served."""
    text = get(node).partition(b"\r\n\r\n")[2].decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {one.name for one in DEFINITIONS} == names


def test_the_text_file_is_whole_and_readable_and_replaces_a_link(node: Guarded) -> None:
    """node_exporter runs as nobody; and nothing is written through a link that lies there."""
    file, victim = node.folder / "vllmwall.prom", node.folder / "victim"
    assert 0o644 == stat.S_IMODE(file.stat().st_mode)
    assert 1 == value(values(file.read_text()), "vllmwall_wall_up")
    victim.write_text("precious")
    file.unlink()
    file.symlink_to(victim)
    node.ask("reload")
    assert ("precious", False) == (victim.read_text(), file.is_symlink())
    assert not list(node.folder.glob(".vllmwall.prom*"))


def test_the_socket_is_for_root_and_the_group_alone(node: Guarded) -> None:
    """The metrics tell what is open."""
    assert stat.S_IMODE((node.folder / "metrics.sock").stat().st_mode) in (0o600, 0o660)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\xff\x00nonsense\r\n\r\n", b"400"),
        (b"GET /metrics?x=1 HTTP/1.0\n\n", b"200"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_requests_get_the_answer_that_they_deserve(
    node: Guarded, request_: bytes, status: bytes
) -> None:
    """Enough HTTP for Prometheus and curl."""
    assert status == get(node, request_).split()[1]


def test_a_request_without_end_is_cut(node: Guarded) -> None:
    """8 KiB are enough for a GET."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(node.folder / "metrics.sock"))
        asked.settimeout(10)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                asked.sendall(b"x" * 1024)
                time.sleep(0.001)


def test_silent_clients_stall_neither_the_daemon_nor_the_next_scrape(node: Guarded) -> None:
    """Slowloris: a hundred connections that say half a request and nothing more."""
    silent, before = [], descriptors(node)
    try:
        for _ in range(100):
            one = socket.socket(socket.AF_UNIX)
            silent.append(one)
            one.connect(str(node.folder / "metrics.sock"))
            one.sendall(b"GET /metr")
        begun = time.monotonic()
        node.rank().open("tcp", "::", 29500)
        eventually(
            lambda: node.lab.stranger.connect(node.lab.node.ipv4, 29500) == "timeout",
            "it is closed",
        )
        assert 1 == value(scraped(node), "vllmwall_wall_up")
        assert time.monotonic() - begun < 10
        assert descriptors(node) < before + 25
    finally:
        for one in silent:
            one.close()


def descriptors(node: Guarded) -> int:
    assert node.process is not None
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))  # noqa: PTH208


def test_a_hammer_of_scrapes_does_not_make_a_page_each_time(node: Guarded) -> None:
    """It is made once a second at most: what changed meanwhile shows after that."""

    def is_kept(number: int) -> bool:
        before = get(node)
        node.ask("bans.add", ssh_client="", networks=[f"198.51.100.{number}"])
        return before == get(node)

    assert any(is_kept(number) for number in range(1, 6))
    before = get(node)
    eventually(lambda: get(node) != before or node.ask("reload") is None, "a new page is made")


def test_an_address_that_is_taken_is_said_and_costs_nothing_else(lab: Lab, tmp_path: Path) -> None:
    """The wall is applied; status names the problem; the next pass tries again."""
    with guarded(lab, tmp_path) as node:
        holder = node.bystander()
        holder.open("tcp", "127.0.0.1", 9837)
        node.configure(PEERS + '[metrics]\nlisten = "127.0.0.1:9837"\n')
        node.ask("reload")
        status = node.ask("status")
        assert status["safe"]
        assert "9837" in json.dumps(status["problems"])
        holder.close("tcp", "127.0.0.1", 9837)
        node.ask("reload")
        assert [] == node.ask("status")["problems"]
        assert "vllmwall_wall_up" in curl(lab.node)


def curl(host: Host) -> str:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9837/metrics').read())"
    return host.run(["python3", "-c", code]).stdout


def test_other_hosts_cannot_ask(lab: Lab, tmp_path: Path) -> None:
    """It listens on loopback alone."""
    with guarded(lab, tmp_path) as node:
        node.configure(PEERS + '[metrics]\nlisten = "127.0.0.1:9837"\n')
        node.ask("reload")
        assert "vllmwall_wall_up" in curl(lab.node)
        assert "refused" == lab.peer.connect(lab.node.ipv4, 9837)


def test_without_metrics_the_library_is_not_loaded(lab: Lab, tmp_path: Path) -> None:
    """Memory is for who asked for it."""
    code = (
        "import sys, vllmwall.daemon.loop;"
        "sys.exit(any('prometheus' in name for name in sys.modules))"
    )
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
