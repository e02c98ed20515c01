"""What explain says of ports whose packets a container gets."""

from __future__ import annotations

import pytest

from vllmwall.api.explain.shape import AnswerJson, ExplainJson, ExplainVerdict
from vllmwall.cli.published_ports import settle
from vllmwall.observe.other_firewalls import PublishedPort

STRANGER = "203.0.113.9"
RULE = PublishedPort("tcp", 29500, "172.17.0.2:29500", "Docker")


def one(
    namespace: str, verdict: ExplainVerdict, address: str, source: str = STRANGER
) -> AnswerJson:
    return {
        "verdict": verdict,
        "wall": "accept",
        "reason": "",
        "namespace": namespace,
        "mode": "enforce",
        "proto": "tcp",
        "source": source,
        "source_is": [],
        "address": address,
        "port": 29500,
        "decided": None,
        "way": [],
        "outcomes": [],
        "socket": None,
        "purpose": None,
    }


def said(*answers: AnswerJson) -> ExplainJson:
    return {
        "version": 1,
        "host": "node",
        "time": 0.0,
        "daemon": True,
        "verdict": "open",
        "total": len(answers),
        "answers": list(answers),
        "hooks": [],
        "problems": [],
    }


def test_the_containers_answer_is_the_one() -> None:
    """Docker's proxy has a socket on the host that no such packet comes to."""
    inner = one("net:1", "closed", "172.17.0.2")
    found = said(one("host", "open", "198.51.100.1"), inner)
    settle(found, "host", [RULE])
    assert ([inner], "closed", 1) == (found["answers"], found["verdict"], found["total"])
    assert "Docker hands tcp port 29500 on to 172.17.0.2:29500" in found["problems"][0]


def test_behind_another_port_it_is_told_what_to_ask() -> None:
    """Nothing of the host decides, so nothing is said to be open."""
    found = said(one("host", "open", "198.51.100.1"))
    settle(found, "host", [PublishedPort("tcp", 29500, "172.17.0.2:29501", "Docker")])
    assert ["unknown"] == [each["verdict"] for each in found["answers"]]
    assert "ask about port 29501" in found["answers"][0]["reason"]
    assert "unknown" == found["verdict"]


@pytest.mark.parametrize(
    ("source", "to"),
    [
        ("127.0.0.1", "172.17.0.2:29500"),
        ("2001:db8::9", "172.17.0.2:29500"),
        (STRANGER, "[fd00::2]:29500"),
    ],
)
def test_what_no_rule_takes_stays(source: str, to: str) -> None:
    """Over lo, and of the family that has no such rule, the proxy's socket is what is met."""
    found = said(one("host", "open", "198.51.100.1", source))
    settle(found, "host", [PublishedPort("tcp", 29500, to, "Docker")])
    assert (["open"], []) == ([each["verdict"] for each in found["answers"]], found["problems"])
