"""[metrics]: for this host alone unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vllmwall.config.models import Config


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "127.0.0.1:9837",
        "127.8.9.1:1",
        "[::1]:9837",
        "unix:/run/vllmwall/metrics.sock",
    ],
)
def test_addresses_of_this_host_are_taken(loaded: Callable[[str], Config], listen: str) -> None:
    """Loopback of both families, a socket, or nothing."""
    assert listen == loaded(f"[metrics]\nlisten = '{listen}'\n").metrics.listen


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:9837", "[::]:9837", "10.0.0.1:9837", "[2001:db8::1]:1"]
)
def test_an_address_that_others_can_reach_has_to_be_meant(
    loaded: Callable[[str], Config], problems: Callable[[str], list[str]], listen: str
) -> None:
    """Refused in words that name the way out; taken when it is said."""
    text = f"[metrics]\nlisten = '{listen}'\n"
    [problem] = problems(text)
    assert "can be reached from other hosts" in problem
    assert "metrics.allow_remote = true" in problem
    assert listen == loaded(f"{text}allow_remote = true\n").metrics.listen


@pytest.mark.parametrize(
    "listen", ["9837", ":9837", "localhost:9837", "::1:9837", "127.0.0.1:0", "127.0.0.1:70000",
               "unix:relative", "[127.0.0.1]:80", "127.0.0.1:", "unix:/" + "x" * 120]
)  # fmt: skip
def test_what_is_no_address_is_refused(problems: Callable[[str], list[str]], listen: str) -> None:
    """And what to write is said."""
    [problem] = problems(f"[metrics]\nlisten = '{listen}'\n")
    assert '"127.0.0.1:9837"' in problem


@pytest.mark.parametrize("file", ["relative.prom", "/var/lib/x.txt"])
def test_a_file_that_nobody_would_read_is_refused(
    problems: Callable[[str], list[str]], file: str
) -> None:
    """node_exporter reads *.prom only."""
    [problem] = problems(f"[metrics]\ntextfile = '{file}'\n")
    assert "ends in .prom" in problem
