"""`vllmwall status`: everything the daemon knows, and the one line that says "am I safe?".

What was not read back from the kernel is unknown, and unknown is never safe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vllmwall.api.adopted import adopted_lines, as_facts
from vllmwall.api.errors import NoArguments
from vllmwall.api.held_peers import held_lines
from vllmwall.api.status_answer import (
    UNPROVEN,
    ClientLimits,
    ConfigStatus,
    GuardStatus,
    ListenerStatus,
    NamespaceStatus,
    OperatorRules,
    Peers,
    RoleEvidence,
    RuleState,
    Status,
    WallState,
    WorkloadStatus,
)
from vllmwall.api.units import count
from vllmwall.api.unproven import closed_web_servers, is_closed_web_server
from vllmwall.decide.walls import audience_at
from vllmwall.linux.users import user_name
from vllmwall.model import PUBLIC, Label, LabelledListener, Proto, Role

if TYPE_CHECKING:
    from vllmwall.engine.state import State
    from vllmwall.engine.status_facts import NamespaceFacts, StatusFacts
    from vllmwall.model import Guard, Listener, Workload

_PUBLIC_SHOWN = 6
_DIFFERENCES_SHOWN = 3


def status(state: State, _: NoArguments) -> Status:
    """The status now."""
    return status_of(state.status())


def status_of(facts: StatusFacts) -> Status:
    """The answer that these facts make."""
    config = facts.config
    return Status(
        host=facts.host,
        time=facts.now,
        mode=facts.mode,
        safe=is_safe(facts),
        verdict=verdict(facts),
        problems=tuple(_problems(facts)),
        reservations=facts.reservations,
        daemon=facts.daemon,
        backend=facts.backend,
        peers=Peers(facts.peers, facts.sources),
        namespaces=tuple(map(_namespace, facts.namespaces)),
        workloads=tuple(_workload(one, facts) for one in facts.recognition.workloads),
        config=ConfigStatus(config.files, config.loaded, config.problems or None),
        orders=_operator_rules(facts),
        adopted=as_facts(facts.adopted),
    )


def is_safe(facts: StatusFacts) -> bool | None:
    """True: every wall is as wanted, and nothing may get past it. None: it is not known. False: a
    wall is not as wanted."""
    if facts.mode != "enforce":
        return False
    states = {wall_state(space) for space in facts.namespaces}
    if states & {"missing", "differs"} or any(_unguarded(facts)):
        return False
    is_known = facts.namespaces and "unknown" not in states and not facts.blind
    return True if is_known and not facts.reservations else None


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
    if facts.reservations:
        kinds = dict.fromkeys(one.kind.replace("-", " ") for one in facts.reservations)
        return f"Unknown: packets may get past the walls: {', '.join(kinds)}. {_summary(facts)}"
    if is_safe(facts) is None:
        names = ", ".join(space.name for space in facts.namespaces) or "any namespace"
        return f"Unknown: the wall could not be read back in {names}"
    return f"Safe: {_summary(facts)}"


def wall_state(space: NamespaceFacts) -> WallState:
    """How the wall that was read back compares with the wanted one."""
    if space.error is not None:
        return "unknown"
    if space.active is None:
        return "missing" if space.wanted is not None else "none"
    return "active" if space.active == space.wanted else "differs"


def _summary(facts: StatusFacts) -> str:
    labelled = [one for workload in facts.recognition.workloads for one in workload.listeners]
    if not facts.recognition.workloads:
        return _nothing_known(facts)
    networked = [one for one in labelled if one.listener.proto is not Proto.UNIX]
    reached = [one for one in networked if not one.listener.is_loopback]
    ruled = [one for one in reached if facts.skip_reason(one.listener) is None]
    public = [one for one in ruled if PUBLIC in facts.policy.audience_of(one.label.role)]
    parts = [
        f"{count(len(facts.recognition.workloads), 'workload')}, "
        f"{count(len(networked), 'listener')}",
        _public_part(public),
        _peers_part(len(ruled) - len(public), facts),
    ]
    if here := len(networked) - len(ruled):
        parts.append(f"{here} on loopback or without a rule")
    return "; ".join(parts)


def _nothing_known(facts: StatusFacts) -> str:
    if any(one.kind == "gpu-processes-not-known" for one in facts.reservations):
        return "no workload is known here; the wall is ready"
    others = facts.recognition.unclaimed
    if any(one.proto is not Proto.UNIX and not one.is_loopback for one in others):
        return "no workload runs here; the wall is ready"
    return "no workload runs here, and nothing listens; the wall is ready"


def _peers_part(listeners: int, facts: StatusFacts) -> str:
    hosts = {one.address for each in facts.recognition.workloads for one in each.adopted}
    adopted = count(len(hosts), "adopted host")
    blocked = ", and hosts that join jobs are blocked" if facts.joiners else ""
    if not facts.peers and not hosts:
        return f"{listeners} closed to every other host (no peers are configured{blocked})"
    if not facts.peers:
        return f"{listeners} to {adopted} only (no peers are configured{blocked})"
    networks = count(len(facts.peers), "peer network")
    return f"{listeners} to {networks}" + (f" and {adopted}" if hosts else "")


def _public_part(public: list[LabelledListener]) -> str:
    if not public:
        return "none open to the public"
    names = [f"{one.label.role.value} {one.listener.where}" for one in public]
    shown = ", ".join(sorted(set(names))[:_PUBLIC_SHOWN])
    return f"{len(public)} open to the public ({shown}{' …' if len(names) > _PUBLIC_SHOWN else ''})"


def _problems(facts: StatusFacts) -> list[str]:
    found = [*adopted_lines(as_facts(facts.adopted), facts.mode), *facts.joiners]
    found += [*closed_web_servers(facts), *facts.problems]
    found += [f"{one.name}: {one.error}" for one in facts.namespaces if one.error]
    found += [
        f"{space.name}: somebody changed our table: {line}"
        for space in facts.namespaces
        for line in space.differences[:_DIFFERENCES_SHOWN]
    ]
    found += [f"peers from {one.name}: {one.error}" for one in facts.sources if one.error]
    found += [line for one in facts.sources for line in held_lines(one, facts.now)]
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
            return "active" if space.has_rule(listener) else "missing"
    return "unknown"


def _operator_rules(facts: StatusFacts) -> OperatorRules:
    policy, limits = facts.policy, facts.policy.limits
    return OperatorRules(
        bans=facts.bans,
        lockdown=policy.lockdown,
        opened=tuple(sorted(f"{proto.value}/{port}" for proto, port in policy.opened)),
        limits=ClientLimits(limits.new_per_second, limits.burst, limits.connections)
        if limits
        else None,
        log_group=policy.log.group if policy.log else None,
    )


def _namespace(space: NamespaceFacts) -> NamespaceStatus:
    return NamespaceStatus(
        inode=space.inode,
        name=space.name,
        wall=wall_state(space),
        error=space.error,
        protection=space.protection,
        guarded=tuple(sorted(one.path for one in _active_guards(space))),
        refused_packets=space.refused_packets,
        refused_bytes=space.refused_bytes,
    )


def _workload(workload: Workload, facts: StatusFacts) -> WorkloadStatus:
    return WorkloadStatus(
        stack=workload.stack.value,
        name=workload.name,
        root_pid=workload.id.root_pid,
        user=user_name(workload.uid),
        cgroup=workload.cgroup,
        guard=_guard(workload, facts),
        listeners=(
            *(_listener(one, workload, facts) for one in workload.listeners),
            *_inherited(workload, facts),
        ),
    )


def _inherited(workload: Workload, facts: StatusFacts) -> Iterable[ListenerStatus]:
    """Listeners that a program outside the workload made: they have no rule."""
    for owner, listener, by in facts.recognition.inherited:
        if owner == workload.id:
            labelled = LabelledListener(listener, Label(Role.UNKNOWN, 0))
            why = f"held by {by}, which is no part of the workload and made it"
            shown = _listener(labelled, workload, facts)
            yield replace(shown, audience=(PUBLIC,), rule="none", reason=why)


def _guard(workload: Workload, facts: StatusFacts) -> GuardStatus:
    wanted = facts.guarding.cgroups.get(workload.id, frozenset())
    active = {guard for space in facts.namespaces for guard in _active_guards(space)}
    if not wanted or facts.mode == "down":
        state: RuleState = "none"
    elif any(space.error for space in facts.namespaces):
        state = "unknown"
    else:
        state = "active" if wanted <= active else "missing"
    reason = facts.guarding.reasons.get(workload.id, "")
    return GuardStatus(state, tuple(sorted(one.path for one in wanted)), reason)


def _active_guards(space: NamespaceFacts) -> frozenset[Guard]:
    """The guards that were read back, with the paths that we know them by."""
    if space.error is not None or space.active is None or space.wanted is None:
        return frozenset()
    return frozenset(guard for guard in space.wanted.guards if guard in space.active.guards)


def _listener(one: LabelledListener, workload: Workload, facts: StatusFacts) -> ListenerStatus:
    listener, label = one.listener, one.label
    return ListenerStatus(
        proto=listener.proto.value,
        addr=listener.address_text,
        port=listener.port,
        path=listener.path,
        namespace=listener.namespace,
        role=label.role.value,
        audience=audience_at(listener, label.role, facts.policy, workload),
        confidence=label.confidence,
        evidence=tuple(RoleEvidence(each.kind, each.detail) for each in label.evidence),
        rule=_rule(listener, facts),
        reason=facts.skip_reason(listener) or _why_no_api(one, facts),
        pids=listener.pids,
    )


def _why_no_api(one: LabelledListener, facts: StatusFacts) -> str:
    if is_closed_web_server(one, facts):
        return UNPROVEN
    return next((each.detail for each in one.label.evidence if each.kind == "lockdown"), "")
