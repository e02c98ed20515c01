"""`vllmwall explain` at ports whose packets NAT hands on to a container. Pure.

Such a packet never meets the wall of the namespace that it came to, nor a socket there (Docker's
proxy holds one all the same). What is said of it there would be wrong, so it is not said.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from vllmwall.api.explain.reasons import worst

if TYPE_CHECKING:
    from vllmwall.api.explain.shape import AnswerJson, ExplainJson
    from vllmwall.observe.other_firewalls import PublishedPort


def settle(answer: ExplainJson, namespace: str, published: Iterable[PublishedPort]) -> None:
    """Leave out what is said of ``namespace`` where the container's own answer is there; where it
    has another port, say that what is asked about is not decided here."""
    for one in published:
        met = [found for found in answer["answers"] if _is_met(found, namespace, one)]
        if not met:
            continue
        answer["problems"].append(
            f"{namespace}: {one.by} hands {one.proto} port {one.port} on to {one.to} before it "
            "comes to the wall here"
        )
        if any(_is_behind(found, namespace, one) for found in answer["answers"]):
            answer["answers"] = [found for found in answer["answers"] if found not in met]
            answer["total"] -= len(met)
        else:
            _leave_open(met, one)
    answer["verdict"] = worst(found["verdict"] for found in answer["answers"])


def _leave_open(answers: Iterable[AnswerJson], one: PublishedPort) -> None:
    for found in answers:
        found["verdict"] = "unknown"
        found["reason"] = f"{one.by} hands it on to {one.to}: ask about port {_end(one)[1]}"


def _is_met(found: AnswerJson, namespace: str, one: PublishedPort) -> bool:
    """Whether NAT takes this packet: not one that a process of the host sends over lo."""
    source = ip_address(found["source"])
    here = (found["namespace"], found["proto"], found["port"]) == (namespace, one.proto, one.port)
    return here and not source.is_loopback and source.version == ip_address(_end(one)[0]).version


def _is_behind(found: AnswerJson, namespace: str, one: PublishedPort) -> bool:
    address, port = _end(one)
    elsewhere = found["namespace"] != namespace
    return elsewhere and (found["address"], found["port"]) == (address, port)


def _end(one: PublishedPort) -> tuple[str, int]:
    address, _, port = one.to.rpartition(":")
    return address.strip("[]"), int(port)
