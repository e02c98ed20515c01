"""Reasons why packets may get past walls that are active as wanted: what "safe" does not include.

A check is a function in `CHECKS`. It gets the reconciler after a pass, at every `status`, and
yields a `Reservation` for each thing that it finds: so it uses what a pass has kept, or reads
little. To add one, add its kind to `vllmwall.engine.facts.ReservationKind` and its function here,
and nothing else: status, JSON, exit status and metric follow. What only the daemon's loop knows is
in `vllmwall.engine.state.State.reservations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from vllmwall.engine.facts import Reservation
from vllmwall.engine.node_addresses import bridge_addresses
from vllmwall.linux.netns import run_in
from vllmwall.observe.addresses import shared_by_nat
from vllmwall.observe.untracked import takes_out_of_tracking
from vllmwall.recognize.inputs import GPU
from vllmwall.recognize.outsiders import Outsider, by_namespace, outsiders

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler

_MOST_LINES = 16
_MOST_NAMED = 4
Check = Callable[["Reconciler"], Iterable[Reservation]]


def filtered_elsewhere(reconciler: Reconciler) -> Iterator[Reservation]:
    """Workloads behind an ipvlan device in mode l3s: the wall of their namespace sees no packet."""
    namespaces = reconciler.observer.namespaces
    for workload in reconciler.recognition.workloads:
        inside = {one.listener.namespace for one in workload.listeners}
        for inode in sorted(inside):
            for device in namespaces.packet_path(inode).l3s:
                yield Reservation(
                    "filtered-elsewhere",
                    f"{namespaces.name(inode)}, {workload.name}",
                    f"not guarded: {device} is an ipvlan device in mode l3s, whose packets are "
                    "filtered in the namespace of its master",
                    "Use ipvlan mode l2 or l3, or macvlan.",
                )


def held_outside(reconciler: Reconciler) -> Iterator[Reservation]:
    """Listeners of workloads that a program outside made and holds: no rule restricts that one."""
    names = {one.id: one.name for one in reconciler.recognition.workloads}
    for workload, listener, by in reconciler.recognition.inherited:
        if workload in names and not listener.is_loopback:
            yield Reservation(
                "held-outside",
                f"{reconciler.observer.namespaces.name(listener.namespace)}, {names[workload]}",
                f"{listener.where} is open: {by} made it and holds it too, and is no part of the "
                "workload",
                "Let the workload open it itself, or start that program by `vllmwall run`.",
            )


def left_out(reconciler: Reconciler) -> Iterator[Reservation]:
    """What a user's share did not allow to look at, or what does not let itself be read."""
    waiting = len(reconciler.waiting)
    if waiting:
        yield Reservation(
            "processes-left-out",
            "daemon",
            f"{waiting} network namespaces wait for their turn to get a wall",
            "Ask again. The node's own wall is not among them.",
        )
    lines = (*reconciler.observer.unanswered(), *reconciler.recognition.problems)
    for line in lines[:_MOST_LINES]:
        subject, _, why = line.partition(": ")
        yield Reservation(
            "processes-left-out", subject, why, "End it, or ask its user what it does."
        )
    if len(lines) > _MOST_LINES:
        more = f"{len(lines) - _MOST_LINES} more of the same kind"
        yield Reservation("processes-left-out", "daemon", more, "End those that are named.")


def shared_peer(reconciler: Reconciler) -> Iterator[Reservation]:
    """Peer networks that hold the address of a bridge of this node, while a workload is behind it:
    clients that NAT masquerades (kube-proxy, docker-proxy) have that address there."""
    spaces = {
        one.listener.namespace
        for workload in reconciler.recognition.workloads
        for one in workload.listeners
    }
    if spaces <= {reconciler.observer.namespaces.own}:
        return
    found = shared_by_nat(reconciler.peers.networks(), bridge_addresses(reconciler))
    for network, why in found:
        remedy = "Name networks of peers that do not hold the node's own bridges."
        yield Reservation("shared-peer", f"peers, {network}", why, remedy)


def not_known(reconciler: Reconciler) -> Iterator[Reservation]:
    """Processes outside every workload that use a GPU or a transport, and that others reach."""
    observer = reconciler.observer
    for inode, found in by_namespace(outsiders(reconciler.recognition, observer.node().processes)):
        opened = {listener for one in found for listener in one.listeners}
        kind = "GPU" if all(GPU in one.uses for one in found) else "GPU or transport"
        yield Reservation(
            "gpu-processes-not-known",
            observer.namespaces.name(inode),
            f"{len(found)} {kind} {_plural(found, 'process', 'processes')} with {len(opened)} open "
            f"{_plural(opened, 'listener', 'listeners')} {_plural(found, 'is', 'are')} not known: "
            + ", ".join(map(_outsider, found[:_MOST_NAMED]))
            + (" …" if len(found) > _MOST_NAMED else ""),
            f"`vllmwall snapshot --workload {found[0].process.pid}` makes a report; a [[workload]] "
            "section guards it.",
        )


def answers_dropped(reconciler: Reconciler) -> Iterator[Reservation]:
    """Lockdown where a rule takes packets out of connection tracking: their answers are dropped."""
    if not reconciler.policy.lockdown:
        return
    for inode in sorted(reconciler.home):
        try:
            path = reconciler.observer.namespaces.path(inode)
            untracked = run_in(path, takes_out_of_tracking)
        except (OSError, KeyError):
            continue
        if untracked:
            yield Reservation(
                "answers-dropped",
                reconciler.observer.namespaces.name(inode),
                "a rule of another program takes packets out of connection tracking (notrack): "
                "lockdown drops those that answer this node's own questions over UDP, such as DNS",
                "Remove that rule, which `vllmwall doctor` names.",
            )


def own_packets_blocked(reconciler: Reconciler) -> Iterator[Reservation]:
    """Workloads that listen over IPv6 in a namespace with a VRF, whose own address is no peer."""
    namespaces, peers = reconciler.observer.namespaces, reconciler.peers.networks()
    for inode in sorted(_listening_over_ipv6(reconciler)):
        for address in namespaces.packet_path(inode).in_vrfs:
            if not any(address.version == one.version and address in one for one in peers):
                yield Reservation(
                    "own-packets-blocked",
                    namespaces.name(inode),
                    f"this host's own IPv6 packets to {address} in a VRF cannot be told from those "
                    "of other hosts, and are blocked at internal ports",
                    f"`vllmwall peers add {address} --save` lets them in.",
                )


def _listening_over_ipv6(reconciler: Reconciler) -> set[int]:
    """The namespaces in which a workload listens for IPv6 packets, and not on loopback alone."""
    every = (one.listener for work in reconciler.recognition.workloads for one in work.listeners)
    return {
        one.namespace
        for one in every
        if isinstance(one.plain_address, IPv6Address) and not one.is_loopback
    }


def _plural(things: Sized, one: str, several: str) -> str:
    return one if len(things) == 1 else several


def _outsider(one: Outsider) -> str:
    where = ", ".join(sorted(listener.where for listener in one.listeners)[:_MOST_NAMED])
    return f"{one.process.comm} pid {one.process.pid} ({where}; {', '.join(one.uses)})"


CHECKS: tuple[Check, ...] = (
    filtered_elsewhere,
    held_outside,
    left_out,
    shared_peer,
    not_known,
    answers_dropped,
    own_packets_blocked,
)


def reservations(reconciler: Reconciler) -> Iterator[Reservation]:
    """What every check finds now."""
    for check in CHECKS:
        yield from check(reconciler)


def pass_failed(error: Exception) -> Reservation:
    """The last pass ended with this error."""
    return Reservation(
        "pass-failed",
        "daemon",
        f"the last pass failed: {error!r}; the active walls stay, and what is new has none",
        "See `journalctl -u vllmwall`. The pass is repeated every few seconds.",
    )


def events_lost(number: int) -> Reservation:
    """The kernel dropped so many events since the last full pass."""
    return Reservation(
        "events-lost",
        "daemon",
        f"{number} kernel events were lost, so new ports may be open until the next full pass",
        "It runs at once: ask again. If this stays, a program starts or listens without end.",
    )
