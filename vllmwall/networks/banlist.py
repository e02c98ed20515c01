"""The bans in force: sources that reach only the failsafe ports of this node.

Promises: a ban ends on time; it outlives the daemon, and a reboot where there is a directory for
that; a damaged file is moved aside and reported, never a crash; never every address is banned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import get_mixed_type_key
from pathlib import Path

from vllmwall.cidr import everyone_in, plain
from vllmwall.linux.files import save_text
from vllmwall.model import Network
from vllmwall.networks.expiry import MergedNetworks, since_epoch
from vllmwall.networks.records import VersionedFile, load, parsed, text_of

FILE_NAME = "bans.json"
MOST = 1000  # a wall with ten thousand takes nft 70 ms to change, and a new port waits for it


class BanError(Exception):
    """A ban cannot be added or lifted; nothing was changed."""


@dataclass(frozen=True)
class Ban:
    """One banned network: since and until when (seconds since the epoch; None: no end)."""

    network: Network
    since: float
    expires: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class _File(VersionedFile):
    bans: tuple[Ban, ...]


class BanList:
    """The bans of this node. Of ``files`` the first that exists is read, and all are written."""

    def __init__(self, *files: Path, clock: Callable[[], float] = since_epoch) -> None:
        self._files = files
        self._clock = clock
        self.problems: tuple[str, ...] = ()
        self._bans = self._load()
        self._merged = MergedNetworks(
            lambda: ((one.network, one.expires) for one in self.bans()), clock
        )

    def bans(self) -> tuple[Ban, ...]:
        """The bans in force now, by network."""
        now = self._clock()
        counting = (one for one in self._bans.values() if one.expires is None or one.expires > now)
        return tuple(sorted(counting, key=lambda one: get_mixed_type_key(one.network)))

    def networks(self) -> tuple[Network, ...]:
        """The banned networks, merged. Cheap while nothing changes: every pass asks."""
        return self._merged.now()

    def left(self) -> float | None:
        """Seconds until the next ban ends; None: no ban expires."""
        ends = [one.expires for one in self.bans() if one.expires is not None]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def add(self, networks: Iterable[Network], seconds: float | None, reason: str) -> None:
        """Ban these. Of two bans on one network the later counts. Raises BanError."""
        now = self._clock()
        expires = None if seconds is None else now + seconds
        new = {one: Ban(one, now, expires, reason) for one in map(plain, networks)}
        found = {**{one.network: one for one in self.bans()}, **new}
        if len(found) > MOST:
            raise BanError(f"that would be more than {MOST} bans; ban whole networks instead")
        for whole in everyone_in(found):
            raise BanError(f"{whole} would be banned: that is every address")
        self._keep(found)

    def remove(self, networks: Iterable[Network]) -> None:
        """Lift the bans on these. Raises BanError, which says what else bans an address."""
        gone = tuple(map(plain, networks))
        found = {one.network: one for one in self.bans()}
        for network in gone:
            if network not in found:
                raise BanError(_why_not_lifted(network, found))
        self._keep({network: ban for network, ban in found.items() if network not in gone})

    def _keep(self, bans: dict[Network, Ban]) -> None:
        """Raises BanError if the first file cannot be written; for the others it is a problem."""
        text, problems = text_of(_File(bans=tuple(bans.values()))), []
        for number, file in enumerate(self._files):
            try:
                save_text(file, text, mode=0o600)
            except OSError as error:
                said = f"{file} cannot be written: {error.strerror or error}"
                if number == 0:
                    raise BanError(said) from error
                problems.append(f"{said}; the next boot forgets this change")
        self._bans, self.problems = bans, tuple(problems)
        self._merged.clear()

    def _load(self) -> dict[Network, Ban]:
        for file in self._files:
            try:
                found, problem = load(file, _parsed)
            except FileNotFoundError:
                continue
            if found is not None:
                return found
            self.problems += (f"{problem}. None of its bans applies",)
        return {}


def _why_not_lifted(network: Network, banned: Iterable[Network]) -> str:
    for one in banned:
        if one.version == network.version and one.overlaps(network):
            return f"{network} is not banned by itself; {one} is"
    return f"{network} is not banned"


def _parsed(text: str) -> dict[Network, Ban]:
    bans = parsed(_File, text).bans
    if everyone_in(one.network for one in bans):
        raise ValueError("it bans every address")
    return {one.network: one for one in bans}
