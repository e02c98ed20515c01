"""No change that would end the ssh connection of who asks for it, unless that is said."""

from __future__ import annotations

from collections.abc import Iterable

from vllmwall.api.server import ControlError, Json
from vllmwall.api.ssh_check import locked_out, parsed
from vllmwall.enforce.evaluator import NotUnderstoodError
from vllmwall.engine.facts import NamespaceFacts

_REMEDY = "Nothing was changed. Add its port to [host] failsafe, or say --force."


def refuse_lockout(arguments: Json, spaces: Iterable[NamespaceFacts], own: int) -> None:
    """Raise ControlError where these walls would end the asker's ssh connection."""
    if not arguments.get("force") and (why := would_lock_out(arguments, spaces, own)):
        raise ControlError("failed", f"{why}\n{_REMEDY}")


def would_lock_out(arguments: Json, spaces: Iterable[NamespaceFacts], own: int) -> str:
    """How these walls would end the asker's ssh connection; empty: they would not.

    ``own`` is the network namespace that ssh comes to.
    """
    ssh = parsed(arguments.get("ssh"))
    wall = next((one.wanted for one in spaces if one.inode == own), None)
    if ssh is None or wall is None:
        return ""
    try:
        rules = locked_out(wall, ssh)
    except NotUnderstoodError as error:
        return f"whether your ssh connection would go on cannot be told: {error}"
    if not rules:
        return ""
    return f"your ssh connection from {ssh.client} to port {ssh.port} would end: {rules}"
