"""Reasons why a node is not "safe" although its walls are active."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.reservations import reservations
from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Node,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.observe.namespaces import Namespaces
from vllmwall.observe.packet_paths import PacketPath


class _Paths(Namespaces):
    """Namespaces whose packets go these ways."""

    def __init__(self, paths: dict[int, PacketPath]) -> None:
        super().__init__()
        self._paths = paths


def job(namespace: int) -> Workload:
    listener = Listener(namespace, Proto.TCP, 29500)
    one = LabelledListener(listener, Label(Role.TCPSTORE, 1))
    return Workload(WorkloadId(1, 1), Stack.TORCH, f"job-{namespace}", frozenset({1}), (one,))


def test_a_workload_that_is_filtered_elsewhere_is_named() -> None:
    """One with another device, in another namespace, is not."""
    paths = {7: PacketPath(l3s=("eth0",)), 8: PacketPath(nat=True)}
    found = SimpleNamespace(
        observer=SimpleNamespace(
            namespaces=_Paths(paths), unanswered=tuple, node=lambda: Node({}, ())
        ),
        waiting={},
        policy=SimpleNamespace(lockdown=False),
        home=frozenset(),
        peers=SimpleNamespace(networks=tuple),
        recognition=Recognition((job(7), job(8)), ()),
    )
    (one,) = reservations(cast("Reconciler", found))
    assert ("filtered-elsewhere", "net:7, job-7") == (one.kind, one.where)
    assert "eth0 is an ipvlan device in mode l3s" in one.line
