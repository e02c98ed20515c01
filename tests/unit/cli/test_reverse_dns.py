"""Names for addresses: only what DNS says both ways, and only as long as somebody waits."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from vllmwall.cli.reverse_dns import confirmed_name, names_of

TOLD = {"192.0.2.5": "gpu-5.example", "192.0.2.66": "gpu-5.example", "2001:db8::5": "six.example"}
HELD = {"gpu-5.example": ["192.0.2.5", "192.0.2.6"], "six.example": ["2001:db8::5"]}


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows the tables above; 192.0.2.66 belongs to a liar."""

    def reverse(place: tuple[str, int], _: int) -> tuple[str, str]:
        if place[0] not in TOLD:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return TOLD[place[0]], "0"

    def forward(name: str, _: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(0, 0, 0, "", (address, 0)) for address in HELD[name]]

    monkeypatch.setattr(socket, "getnameinfo", reverse)
    monkeypatch.setattr(socket, "getaddrinfo", forward)


@pytest.mark.usefixtures("dns")
def test_a_name_must_lead_back() -> None:
    """Who has an address writes its PTR as he likes, another's name too."""
    assert "gpu-5.example" == confirmed_name("192.0.2.5")
    assert "" == confirmed_name("192.0.2.66")
    assert "" == confirmed_name("192.0.2.7")


@pytest.mark.usefixtures("dns")
def test_all_that_were_found_are_told() -> None:
    """Both families; without the liar and the nameless."""
    found = names_of({*TOLD, "192.0.2.7"}, 10.0)
    assert {"192.0.2.5": "gpu-5.example", "2001:db8::5": "six.example"} == found


def test_a_slow_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for all of them together, however many there are."""
    answer = threading.Event()

    def reverse(*_: object) -> tuple[str, str]:
        answer.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getnameinfo", reverse)
    begun = time.monotonic()
    assert {} == names_of({f"192.0.2.{last}" for last in range(100)}, 0.3)
    assert time.monotonic() - begun < 5
    answer.set()


def test_nobody_is_asked_about_nobody() -> None:
    """No address, no thread, no wait."""
    assert {} == names_of(set(), 10.0)
