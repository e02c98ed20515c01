"""Whether the daemon is ready, and its one line for `systemctl status`.

Ready is who has read back the wall that he wanted: whoever is After= us starts guarded. Nothing
less is: a transaction that was taken, or a wall that cannot be read. More is not asked for. A
daemon that cannot see others' processes has put up what it can and takes nothing away; it says
that it does not know, and waiting or a start anew would not open its eyes.
"""

from __future__ import annotations

from vllmwall.engine.reconciler import WallKeeper
from vllmwall.model import Mode


def word(keeper: WallKeeper, pass_error: str | None) -> str:
    """What systemd is told after a pass (sd_notify(3)). ``pass_error``: why it failed."""
    if why := pass_error or _why_not(keeper):
        return f"STATUS={why.partition(chr(10))[0]}"
    return f"READY=1\nSTATUS={_line(keeper)}"


def _why_not(keeper: WallKeeper) -> str:
    """What keeps our own wall from standing; empty: it stands, or shall not."""
    if keeper.down:
        return ""
    for inode in keeper.home:
        space = keeper.walls.spaces.get(inode)
        error = keeper.observer.namespaces.errors.get(inode)
        if why := error or (space and (space.failure or space.error)):
            return f"the wall is not as wanted: {why}"
        if space is None or space.standing is None:
            return "no wall has been read back yet"
    return ""


def _line(keeper: WallKeeper) -> str:
    """As `vllmwall status` would begin."""
    if keeper.down:
        return "NOT guarded: the walls are down on request (vllmwall up)"
    if keeper.blind:
        return f"Unknown: {keeper.blind}; what stood stands"
    workloads = keeper.recognition.workloads
    seen = f"{len(workloads)} workloads, {sum(len(one.listeners) for one in workloads)} listeners"
    return f"{seen} guarded" if keeper.policy.mode is Mode.ENFORCE else f"{seen} watched (audit)"
