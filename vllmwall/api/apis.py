"""`vllmwall api`: list, add and remove ports that the operator opens as APIs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.decide.opened import OPENABLE, OpenedApi
from vllmwall.decide.walls import audience_at
from vllmwall.engine.api_ports import Origin
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.saved_apis import ApiError
from vllmwall.model import PUBLIC, LabelledListener, Mode, Proto, Role, Workload

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler
    from vllmwall.engine.state import State

_Found = list[tuple[Workload, LabelledListener]]


@dataclass(frozen=True)
class AddApi:
    """Open a TCP port of a workload to everyone, as its API. ``workload`` may be empty where only
    one listens there. ``save``: also after a reboot. ``force``: even if it is known to be internal.
    """

    port: int
    workload: str = ""
    save: bool = False
    force: bool = False


@dataclass(frozen=True)
class RemoveApi:
    """Take that back. ``save``: in conf.d, too."""

    port: int
    workload: str = ""
    save: bool = False


@dataclass(frozen=True)
class OpenedPort:
    """One opened port. ``listeners`` are where it listens now, ``audience`` who may connect there;
    ``why_closed`` says why that is not everyone, or that nothing listens."""

    port: int
    workload: str
    origin: Origin
    listeners: tuple[str, ...]
    audience: tuple[str, ...]
    why_closed: str


@dataclass(frozen=True, kw_only=True)
class OpenedApis:
    """The ports that the operator opened. ``saved_in`` is the file of saved ones."""

    version: int = 1
    apis: tuple[OpenedPort, ...]
    saved_in: str
    problems: tuple[str, ...]


def show(state: State, _: NoArguments) -> OpenedApis:
    """The ports that the operator opened, with what is there now."""
    reconciler = state.reconciler
    problems = [*reconciler.apis.problems]
    if reconciler.down:
        problems.append("the walls are down on request: every port is open until `vllmwall up`")
    elif reconciler.policy.mode is not Mode.ENFORCE:
        problems.append("audit mode drops nothing: every port is open")
    return OpenedApis(
        apis=tuple(_opened_ports(reconciler)),
        saved_in=str(reconciler.apis.saved_path or ""),
        problems=tuple(problems),
    )


def add(state: State, request: AddApi) -> OpenedApis:
    """Open a port at once. Raises ControlError where it is no listener of one workload, or is
    known to be internal and ``force`` is not given."""
    found = _at(state.reconciler, request.port, request.workload)
    workload = _one_workload(found, request.port)
    for _, one in found:
        if (why := _why_internal(one)) and not request.force:
            raise ControlError("failed", f"not opened: {why}", "To open it, use --force.")
    opened = OpenedApi(request.port, workload.name, request.force, workload.id)
    return _change(
        state, "added", opened, lambda: state.reconciler.apis.add(opened, save=request.save)
    )


def remove(state: State, request: RemoveApi) -> OpenedApis:
    """Take back an opened port at once. Raises ControlError."""
    apis = state.reconciler.apis
    names = {one.workload for one in apis.opened() if one.port == request.port}
    if request.workload:
        names &= {request.workload}
    if not names:
        raise ControlError("failed", _why_not_removed(state.reconciler, request))
    if len(names) > 1:
        raise _several(request.port, names)
    gone = OpenedApi(request.port, names.pop())
    return _change(state, "removed", gone, lambda: apis.remove(gone, save=request.save))


def _change(state: State, what: str, one: OpenedApi, change: Callable[[], None]) -> OpenedApis:
    try:
        change()
    except ApiError as error:
        raise ControlError("failed", str(error)) from error
    state.log(EventKey.APIS_CHANGED, change=what, port=one.port, workload=one.workload)
    state.loop.full_pass("apis changed")
    return show(state, NoArguments())


def _at(reconciler: Reconciler, port: int, name: str) -> _Found:
    """The TCP listeners of workloads there. Raises ControlError where there are none to open."""
    if not 1 <= port <= 65535:
        raise ControlError("bad-request", "port: a number from 1 to 65535 is needed")
    if (Proto.TCP, port) in reconciler.policy.failsafe:
        raise ControlError("failed", f"port {port} is a failsafe port: it is never closed")
    every = [
        (workload, one)
        for workload in reconciler.recognition.workloads
        for one in workload.listeners
        if one.listener.proto is Proto.TCP and one.listener.port == port
    ]
    found = [pair for pair in every if name in ("", pair[0].name)]
    if not found:
        raise ControlError("failed", *_nothing_there(reconciler, port, name, every))
    beyond = [pair for pair in found if not pair[1].listener.is_loopback]
    if not beyond:
        where = found[0][1].listener.where
        raise ControlError(
            "failed",
            f"port {port} listens on loopback only ({where}): no rule can open it",
            "Start the server with --host 0.0.0.0 or an address of this host.",
        )
    return beyond


def _nothing_there(reconciler: Reconciler, port: int, name: str, every: _Found) -> tuple[str, str]:
    if every:
        names = ", ".join(sorted({workload.name for workload, _ in every}))
        return f"no workload {name!r} listens on TCP port {port}", f"There is: {names}."
    others = (one for one in reconciler.recognition.unclaimed if one.port == port)
    if any(one.proto is Proto.TCP for one in others):
        return (
            f"port {port} belongs to no workload, so vllmwall does not close it",
            "Ask `vllmwall explain` what blocks a client.",
        )
    return (
        f"no workload of this node listens on TCP port {port}",
        "Start it first. `vllmwall status --all` lists what listens.",
    )


def _one_workload(found: _Found, port: int) -> Workload:
    names = {workload.name for workload, _ in found}
    if len(names) > 1:
        raise _several(port, names)
    return found[0][0]


def _several(port: int, names: set[str]) -> ControlError:
    listed = ", ".join(sorted(names))
    return ControlError(
        "failed", f"several workloads have port {port}: {listed}", "Name one with --workload."
    )


def _why_internal(one: LabelledListener) -> str:
    role, label = one.label.role, one.label
    if role in OPENABLE:
        return ""
    because = "; ".join(f"{each.kind}: {each.detail}" for each in label.evidence)
    return f"{one.listener.where} is known to be internal, role {role.value} ({because})"


def _why_not_removed(reconciler: Reconciler, request: RemoveApi) -> str:
    port = request.port
    for workload in reconciler.recognition.workloads:
        for one in workload.listeners:
            if one.listener.port == port and one.label.role is Role.API:
                return (
                    f"port {port} of {workload.name} was not opened by a command: it is recognized "
                    "as its API. `[policy] api` in the configuration says who may connect to APIs"
                )
    of = f" of {request.workload}" if request.workload else ""
    return f"port {port}{of} was not opened by a command"


def _opened_ports(reconciler: Reconciler) -> Iterator[OpenedPort]:
    for (port, name), origin in sorted(reconciler.apis.origins().items()):
        every = [
            one for one in reconciler.apis.opened() if (one.port, one.workload) == (port, name)
        ]
        found = [
            one
            for workload in reconciler.recognition.workloads
            for one in workload.listeners
            if one.listener.proto is Proto.TCP
            and one.listener.port == port
            and any(each.names(workload) for each in every)
        ]
        policy = reconciler.policy
        audiences = [audience_at(one.listener, one.label.role, policy) for one in found]
        audience = min(audiences, key=lambda each: PUBLIC in each, default=())
        yield OpenedPort(
            port=port,
            workload=name,
            origin=origin,
            listeners=tuple(sorted(one.listener.where for one in found)),
            audience=audience,
            why_closed=_why_closed(found, audience),
        )


def _why_closed(found: list[LabelledListener], audience: tuple[str, ...]) -> str:
    if not found:
        return "nothing listens there now"
    if PUBLIC in audience:
        return ""
    for one in found:
        if one.listener.is_loopback:
            return "it listens on loopback only"
        for each in one.label.evidence:
            if each.kind == "lockdown":
                return each.detail
        if why := _why_internal(one):
            return f"{why}; `vllmwall api add --force` opens it"
    return f"[policy] gives the role api to {' and '.join(audience)}"
