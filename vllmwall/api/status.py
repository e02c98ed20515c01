"""`vllmwall status`: everything the daemon knows, and the one line that says "am I safe?".

What was not read back from the kernel is unknown, and unknown is never safe.
"""

from __future__ import annotations

from collections.abc import Iterable

from vllmwall.api.errors import Json
from vllmwall.api.shapes import (
    STATUS_VERSION,
    DaemonJson,
    GuardJson,
    ListenerJson,
    NamespaceJson,
    OrdersJson,
    PeersJson,
    RuleState,
    StatusJson,
    WallState,
    WorkloadJson,
)
from vllmwall.api.units import count
from vllmwall.engine.facts import DaemonFacts, NamespaceFacts, StatusFacts
from vllmwall.engine.state import State
from vllmwall.linux.users import user_name
from vllmwall.model import (
    PUBLIC,
    Guard,
    Label,
    LabelledListener,
    Listener,
    Network,
    Proto,
    Workload,
)
from vllmwall.networks.sources import PeerSource

_PUBLIC_SHOWN = 6
_DIFFERENCES_SHOWN = 3


def status(state: State, _: Json) -> Json:
    """The status now."""
    return status_json(state.status())


def status_json(facts: StatusFacts) -> StatusJson:
    """Everything that `status` knows, in the published shape."""
    return {
        "version": STATUS_VERSION,
        "host": facts.host,
        "time": facts.now,
        "mode": facts.mode,
        "safe": is_safe(facts),
        "verdict": verdict(facts),
        "problems": _problems(facts),
        "daemon": None if facts.daemon is None else _daemon_json(facts.daemon),
        "backend": {"name": facts.backend.name, "reason": facts.backend.reason},
        "peers": peers_json(facts.peers, facts.sources),
        "namespaces": [_namespace_json(space) for space in facts.namespaces],
        "workloads": [_workload_json(workload, facts) for workload in facts.recognition.workloads],
        "config": {
            "files": list(facts.config.files),
            "loaded": facts.config.loaded,
            "error": [
                {"file": one.file, "key": one.key, "line": one.line, "message": one.message}
                for one in facts.config.problems
            ]
            or None,
        },
        "orders": _orders_json(facts),
    }


def is_safe(facts: StatusFacts) -> bool | None:
    """True: every wall stands as wanted. None: it could not be read. False: one does not."""
    if facts.mode != "enforce":
        return False
    states = {wall_state(space) for space in facts.namespaces}
    if states & {"missing", "differs"} or any(_unguarded(facts)):
        return False
    is_known = facts.namespaces and "unknown" not in states and not facts.blind
    return True if is_known else None


def verdict(facts: StatusFacts) -> str:
    """The first line: whether the operator can go back to sleep, and why."""
    if facts.mode == "down":
        return "NOT safe: the walls are down on request. Put them up with: vllmwall up"
    if facts.mode == "audit":
        return f"NOT safe: audit mode drops nothing, it only counts. {_summary(facts)}"
    bad = [space for space in facts.namespaces if wall_state(space) in ("missing", "differs")]
    if bad:
        names = ", ".join(f"{space.name} ({wall_state(space)})" for space in bad)
        return f"NOT safe: the wall is not as it must be in {names}. The next pass repairs it."
    if missing := list(_unguarded(facts)):
        return f"NOT safe: no rule stands for {', '.join(one.where for one in missing[:4])}"
    if facts.blind:
        return f"Unknown: {facts.blind}"
    if is_safe(facts) is None:
        names = ", ".join(space.name for space in facts.namespaces) or "any namespace"
        return f"Unknown: the wall could not be read back in {names}"
    return f"Safe: {_summary(facts)}"


def wall_state(space: NamespaceFacts) -> WallState:
    """How the wall that was read back compares with the wanted one."""
    if space.error is not None:
        return "unknown"
    if space.standing is None:
        return "missing" if space.wanted is not None else "stands"
    return "stands" if space.standing == space.wanted else "differs"


def _summary(facts: StatusFacts) -> str:
    labelled = [one for workload in facts.recognition.workloads for one in workload.listeners]
    if not facts.recognition.workloads:
        return "no workload runs here; the wall stands ready"
    networked = [one for one in labelled if one.listener.proto is not Proto.UNIX]
    ruled = [one for one in networked if facts.skip_reason(one.listener) is None]
    public = [one for one in ruled if PUBLIC in facts.policy.audience_of(one.label.role)]
    parts = [
        f"{count(len(facts.recognition.workloads), 'workload')}, "
        f"{count(len(networked), 'listener')}",
        _public_part(public),
        _peers_part(len(ruled) - len(public), len(facts.peers)),
    ]
    if here := len(networked) - len(ruled):
        parts.append(f"{here} on loopback or without a rule")
    return "; ".join(parts)


def _peers_part(listeners: int, networks: int) -> str:
    if not networks:
        return f"{listeners} closed to every other host (no peers are configured)"
    return f"{listeners} to {count(networks, 'peer network')}"


def _public_part(public: list[LabelledListener]) -> str:
    if not public:
        return "none open to the public"
    names = [f"{one.label.role.value} {one.listener.where}" for one in public]
    shown = ", ".join(sorted(set(names))[:_PUBLIC_SHOWN])
    return f"{len(public)} open to the public ({shown}{' …' if len(names) > _PUBLIC_SHOWN else ''})"


def _problems(facts: StatusFacts) -> list[str]:
    found = list(facts.problems)
    found += [f"{one.name}: {one.error}" for one in facts.namespaces if one.error]
    found += [
        f"{space.name}: somebody changed our table: {line}"
        for space in facts.namespaces
        for line in space.differences[:_DIFFERENCES_SHOWN]
    ]
    found += [f"peers from {one.name}: {one.error}" for one in facts.sources if one.error]
    if facts.config.problems:
        found.append("the configuration on disk is invalid; the previous one is still active:")
    return found


def _unguarded(facts: StatusFacts) -> Iterable[Listener]:
    """Listeners that should have a rule and have none, in walls that could be read."""
    readable = {space.inode for space in facts.namespaces if space.error is None}
    for workload in facts.recognition.workloads:
        for one in workload.listeners:
            if one.listener.namespace in readable and _rule(one.listener, facts) == "missing":
                yield one.listener


def _rule(listener: Listener, facts: StatusFacts) -> RuleState:
    if facts.mode == "down" or facts.skip_reason(listener) is not None:
        return "none"
    for space in facts.namespaces:
        if space.inode == listener.namespace:
            if space.error is not None:
                return "unknown"
            entries = space.standing.entries if space.standing else frozenset()
            guarded = any(
                (entry.proto, entry.port) == (listener.proto, listener.port)
                and entry.address in (None, listener.plain_address)
                for entry in entries
            )
            return "stands" if guarded else "missing"
    return "unknown"


def _daemon_json(daemon: DaemonFacts) -> DaemonJson:
    last = daemon.last_pass
    return {
        "pid": daemon.pid,
        "version": daemon.version,
        "started": daemon.started,
        "events": daemon.events,
        "events_reason": daemon.events_reason,
        "events_lost": daemon.events_lost,
        "modifications": [
            {
                "at": one.at,
                "namespace": one.namespace,
                "pid": one.pid,
                "command": one.command,
                "what": one.what,
            }
            for one in daemon.modifications
        ],
        "last_pass": None
        if last is None
        else {"at": last.at, "ms": last.ms, "reason": last.reason},
        "passes": daemon.passes,
    }


def _orders_json(facts: StatusFacts) -> OrdersJson:
    policy, limits = facts.policy, facts.policy.limits
    return {
        "bans": facts.bans,
        "lockdown": policy.lockdown,
        "opened": sorted(f"{proto.value}/{port}" for proto, port in policy.opened),
        "limits": None
        if limits is None
        else {
            "new_per_second": limits.new_per_second,
            "burst": limits.burst if limits.new_per_second is not None else None,
            "connections": limits.connections,
        },
        "log_group": policy.log.group if policy.log else None,
    }


def peers_json(networks: Iterable[Network], sources: Iterable[PeerSource]) -> PeersJson:
    """The peers and their sources."""
    return {
        "networks": [str(network) for network in networks],
        "sources": [
            {
                "name": source.name,
                "kind": source.kind,
                "networks": [str(network) for network in source.networks],
                "error": source.error,
                "expires": source.expires,
            }
            for source in sources
        ],
    }


def _namespace_json(space: NamespaceFacts) -> NamespaceJson:
    return {
        "inode": space.inode,
        "name": space.name,
        "wall": wall_state(space),
        "error": space.error,
        "protection": space.protection,
        "guarded": sorted(one.path for one in _standing_guards(space)),
        "refused_packets": space.refused_packets,
        "refused_bytes": space.refused_bytes,
    }


def _workload_json(workload: Workload, facts: StatusFacts) -> WorkloadJson:
    return {
        "stack": workload.stack.value,
        "name": workload.name,
        "root_pid": workload.id.root_pid,
        "user": user_name(workload.uid),
        "cgroup": workload.cgroup,
        "guard": _guard_json(workload, facts),
        "listeners": [_listener_json(one, facts) for one in workload.listeners],
    }


def _guard_json(workload: Workload, facts: StatusFacts) -> GuardJson:
    wanted = facts.guarding.cgroups.get(workload.id, frozenset())
    standing = {guard for space in facts.namespaces for guard in _standing_guards(space)}
    if not wanted or facts.mode == "down":
        state: RuleState = "none"
    elif any(space.error for space in facts.namespaces):
        state = "unknown"
    else:
        state = "stands" if wanted <= standing else "missing"
    reason = facts.guarding.reasons.get(workload.id, "")
    return {"state": state, "cgroups": sorted(one.path for one in wanted), "reason": reason}


def _why_no_api(label: Label) -> str:
    return next((one.detail for one in label.evidence if one.kind == "lockdown"), "")


def _standing_guards(space: NamespaceFacts) -> frozenset[Guard]:
    """The guards that were read back, with the paths that we know them by."""
    if space.error is not None or space.standing is None or space.wanted is None:
        return frozenset()
    return frozenset(guard for guard in space.wanted.guards if guard in space.standing.guards)


def _listener_json(one: LabelledListener, facts: StatusFacts) -> ListenerJson:
    listener, label = one.listener, one.label
    return {
        "proto": listener.proto.value,
        "addr": listener.address_text,
        "port": listener.port,
        "path": listener.path,
        "namespace": listener.namespace,
        "role": label.role.value,
        "audience": list(facts.policy.audience_of(label.role)),
        "confidence": label.confidence,
        "evidence": [{"kind": item.kind, "detail": item.detail} for item in label.evidence],
        "rule": _rule(listener, facts),
        "reason": facts.skip_reason(listener) or _why_no_api(label),
        "pids": list(listener.pids),
    }
