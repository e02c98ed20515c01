"""Ray's ports that run what they are sent, unless they ask for a token.

Ray 2.60, ray/_private/authentication/authentication_token_setup.py: RAY_AUTH_MODE=token counts from
2.52 on. From 2.59 on `ray.init()` sets it for the cluster that it starts, and `ray start` where a
token exists (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token). With it Ray does not start
without a token. Its documentation announces it for all clusters from 2.61 on.
"""

from __future__ import annotations

from vllmwall.inspect.audit.checks.host import Check, places_of
from vllmwall.inspect.audit.rules import Rule
from vllmwall.inspect.audit.types import CheckResult, Match, Severity, Subject, Unclear
from vllmwall.inspect.audit.versions import is_within
from vllmwall.model import Role

_FIRST_WITH_TOKENS = "2.52"
_FIRST_BY_DEFAULT = "2.61"


def asks_for_no_token(role: Role) -> Check:
    """A check for listeners of one role beyond loopback whose cluster asks for no token."""

    def check(_: Rule, subject: Subject) -> CheckResult:
        found = places_of(one for one in subject.of_role(role) if not one.listener.is_loopback)
        return _unless_token(found, subject) if found else None

    return check


def _unless_token(found: Match, subject: Subject) -> CheckResult:
    version, mode = subject.versions.get("ray", ""), subject.ray_auth_mode
    has_tokens = is_within(version, since=_FIRST_WITH_TOKENS)
    if has_tokens is False:
        return Match(f"{found.what}; Ray {version} knows no tokens", found.places)
    if mode is None or (mode == "token" and has_tokens is None):
        what = f"{found.what}; it is unknown whether a token is asked for"
        return Match(what, found.places, Severity.HIGH)
    if mode == "token":
        return None
    if not mode and is_within(version, since=_FIRST_BY_DEFAULT):
        return Unclear(f"Ray {version} may ask for a token by default; set RAY_AUTH_MODE=token")
    state = f"RAY_AUTH_MODE is {mode}" if mode else "RAY_AUTH_MODE is not set"
    return Match(f"{found.what}; {state}", found.places)
