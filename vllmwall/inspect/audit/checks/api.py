"""Checks of the API: its exposure, its keys, its proxies and its endpoints."""

from __future__ import annotations

import json
import re

from vllmwall.inspect.audit.checks.switches import (
    HIDDEN_ARGUMENTS,
    given,
    is_absent,
    is_set,
    unclear,
)
from vllmwall.inspect.audit.rules import Rule, knobs
from vllmwall.inspect.audit.types import (
    CheckResult,
    Match,
    Place,
    Severity,
    Subject,
    Unclear,
)
from vllmwall.inspect.audit.versions import is_within
from vllmwall.model import Role, Stack

_NO_VERSION = "its version is unknown"
_CLOSED_BY_DEFAULT = "0.32"  # vLLM's allowed origins: [] from here on, ["*"] before


def open_endpoints(rule: Rule, subject: Subject) -> CheckResult:
    """There is a key, and these routes do not require it."""
    if not list(given(rule, subject)):
        return unclear(rule, subject)
    version = subject.versions.get("vllm")
    if version is None:
        return Unclear(_NO_VERSION)
    in_rust = _is_rust(subject)
    paths = [
        one.path
        for one in knobs().endpoint
        if is_within(version, since=one.since, before=one.before) and (one.rust or not in_rust)
    ]
    if not paths:
        return None
    where = ", ".join(place.listener.where for place in subject.exposed_api)
    return Match(
        f"vLLM {version} at {where} answers without the key (as far as the model's task mounts "
        f"them): {', '.join(paths)}",
        subject.exposed_api,
    )


def _is_rust(subject: Subject) -> bool:
    return subject.part == "rust" or is_set(subject.environment, "VLLM_USE_RUST_FRONTEND")


def profiler(rule: Rule, subject: Subject) -> CheckResult:
    """A profiler is configured; the variable counts before 0.16 only."""
    config = subject.command.flags.object("profiler-config")
    text = subject.command.flags.text("profiler-config") or ""
    if config.get("profiler") not in (None, "", "none", "null"):
        return Match("--profiler-config names a profiler")
    if text and not config:
        return Match("--profiler-config is given")
    if subject.environment.values.get("VLLM_TORCH_PROFILER_DIR"):
        late = is_within(subject.versions.get("vllm", ""), since="0.16")
        return None if late else Match("VLLM_TORCH_PROFILER_DIR is set")
    return unclear(rule, subject)


def media_domains(rule: Rule, subject: Subject) -> CheckResult:
    """No list of domains, and the model accepts media, or may."""
    takes = subject.weights.multimodal if subject.weights else None
    if takes is False:
        return None
    found = is_absent(rule, subject)
    if not isinstance(found, Match) or takes:
        return found
    return Match(
        f"{found.what}; it is unknown whether the model accepts images, audio or video",
        at_most=Severity.MEDIUM,
    )


def media_redirects(rule: Rule, subject: Subject) -> CheckResult:
    """There is a list of domains, and redirects are followed (which is the default)."""
    if subject.command.flags.text("allowed-media-domains") is None:
        return None  # media_domains reports that
    value = subject.environment.values.get("VLLM_MEDIA_URL_ALLOW_REDIRECTS")
    if value is None and not subject.environment.complete:
        return unclear(rule, subject)
    if value is None:
        return Match("--allowed-media-domains without VLLM_MEDIA_URL_ALLOW_REDIRECTS=0")
    return None if value == "0" else Match("VLLM_MEDIA_URL_ALLOW_REDIRECTS is not 0")


def cors(rule: Rule, subject: Subject) -> CheckResult:
    """Every origin is allowed, by a flag or by the default of this version."""
    [flag] = rule.flags
    text = subject.command.flags.text(flag)
    if text is not None:
        return Match(f"--{flag} holds *") if "*" in _origins(text) else None
    if not subject.command.complete:
        return unclear(rule, subject)
    if subject.stack is Stack.VLLM:
        closed = is_within(subject.versions.get("vllm", ""), since=_CLOSED_BY_DEFAULT)
        if closed is None:
            return Unclear(_NO_VERSION)
        if closed:
            return None
    return Match(f"no --{flag}: the default of this version is *")


def _origins(text: str) -> list[object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return re.split(r"[\s,]+", text)
    return value if isinstance(value, list) else [value]


def tls(rule: Rule, subject: Subject) -> CheckResult:
    """The API answers on a public address without TLS."""
    places = subject.exposed_api
    if not places or not subject.public:
        return None
    flags = subject.command.flags
    if flags.text("ssl-certfile") or flags.is_on("ssl"):
        return None
    if not subject.command.complete:
        return Unclear(HIDDEN_ARGUMENTS)
    return Match(f"{_where(places)} answers on {subject.public} without TLS", places)


def around_proxy(rule: Rule, subject: Subject) -> CheckResult:
    """The API listens on all interfaces although a reverse proxy runs in its namespace."""
    places = tuple(place for place in subject.of_role(Role.API) if place.listener.is_wildcard)
    if not places or not subject.proxies:
        return None
    return Match(f"{_where(places)} on all interfaces, beside {', '.join(subject.proxies)}", places)


def grpc(rule: Rule, subject: Subject) -> CheckResult:
    """gRPC is on and can be reached from other hosts."""
    flags = subject.command.flags
    if not flags.is_on("grpc") and flags.number("grpc-port") is None:
        return unclear(rule, subject)
    places = tuple(
        place
        for place in subject.places
        if not place.listener.is_loopback and place.role in (Role.API, Role.UNKNOWN)
    )
    what = "--grpc" if flags.is_on("grpc") else "--grpc-port"
    return Match(f"{what} is given; {_where(places)}", places) if places else None


def host_ip(rule: Rule, subject: Subject) -> CheckResult:
    """Several networks, and VLLM_HOST_IP does not select one."""
    if len(subject.networks) < 2:
        return None
    found = is_absent(rule, subject)
    if not isinstance(found, Match):
        return found
    return Match(f"{found.what}; this node has {', '.join(subject.networks)}")


def admin_key_alone(rule: Rule, subject: Subject) -> CheckResult:
    """SGLang with a key for administration and none for the rest."""
    flags = subject.command.flags
    if flags.text("admin-api-key") is None or flags.text("api-key") is not None:
        return None if subject.command.complete else unclear(rule, subject)
    return Match("--admin-api-key without --api-key")


def proxy_nodes(rule: Rule, subject: Subject) -> CheckResult:
    """LMDeploy's proxy: `/nodes/*` asks for a key only before 0.12, and where there is one."""
    if subject.part != "proxy":
        return None
    has_key = subject.command.flags.text("api-keys") is not None
    guarded = is_within(subject.versions.get("lmdeploy", ""), before="0.12")
    if has_key and guarded:
        return None
    if has_key and guarded is None:
        return Unclear(_NO_VERSION)
    if not has_key and guarded and not subject.command.complete:
        return unclear(rule, subject)
    version = subject.versions.get("lmdeploy", "of unknown version")
    return Match(f"lmdeploy {version} proxy at {_where(subject.exposed_api)}", subject.exposed_api)


def secret_arguments(rule: Rule, subject: Subject) -> CheckResult:
    """A key or a token is on the command line. Names the flag, never the value."""
    names = subject.command.secrets
    if names:
        return Match(f"{', '.join(names)} on the command line")
    return None if subject.command.readable else Unclear(HIDDEN_ARGUMENTS)


def _where(places: tuple[Place, ...]) -> str:
    return ", ".join(place.listener.where for place in places) or "no listener yet"
