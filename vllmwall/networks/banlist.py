"""The bans in force: sources that no port of this node answers, but the failsafe ports.

Promises: a ban ends on time; it outlives the daemon, and the boot where there is a directory for
that; a file that is damaged is moved aside and said, never a crash; everyone is never banned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from vllmwall.cidr import everyone_in, merged, parse_network, plain
from vllmwall.linux.files import read_trusted, save_text
from vllmwall.model import Network
from vllmwall.networks import records
from vllmwall.networks.clock import since_epoch

FILE_NAME = "bans.json"
MOST = 1000  # a wall with ten thousand takes nft 70 ms to change, and a new port waits for it
_VERSION = 1


class BanError(Exception):
    """A ban that cannot be made or lifted; nothing was changed."""


@dataclass(frozen=True)
class Ban:
    """One banned network: since and until when (seconds since the epoch; None: for good)."""

    network: Network
    since: float
    expires: float | None = None
    reason: str = ""


class BanList:
    """The bans of this node, kept in ``files``: the first one there is read, all are written."""

    def __init__(self, *files: Path, clock: Callable[[], float] = since_epoch) -> None:
        self._files = files
        self._clock = clock
        self.problems: tuple[str, ...] = ()
        self._bans = self._load()
        self._merged: tuple[float, float, tuple[Network, ...]] | None = None

    def bans(self) -> tuple[Ban, ...]:
        """Those that count now, by network."""
        now = self._clock()
        counting = (one for one in self._bans.values() if one.expires is None or one.expires > now)
        return tuple(sorted(counting, key=_place))

    def networks(self) -> tuple[Network, ...]:
        """What is banned now, merged. Cheap while nothing changes: every pass asks."""
        now = self._clock()
        if self._merged is None or not self._merged[0] <= now < self._merged[1]:
            bans = self.bans()
            until = min((one.expires for one in bans if one.expires is not None), default=inf)
            self._merged = now, until, merged(one.network for one in bans)
        return self._merged[2]

    def left(self) -> float | None:
        """Seconds until the next ban ends; None: none ends by itself."""
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
            raise BanError(f"{whole} would be banned: that is everyone")
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
        """The first file must take it; that the others do not is a problem for later."""
        text, problems = _text_of(bans.values()), []
        for number, file in enumerate(self._files):
            try:
                save_text(file, text, mode=0o600)
            except OSError as error:
                said = f"{file} cannot be written: {error.strerror or error}"
                if number == 0:
                    raise BanError(said) from error
                problems.append(f"{said}; the next boot forgets the change of bans")
        self._bans, self._merged, self.problems = bans, None, tuple(problems)

    def _load(self) -> dict[Network, Ban]:
        for file in self._files:
            try:
                return _read(file)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                self.problems += (_aside(file, error),)
        return {}


def _place(ban: Ban) -> tuple[int, int, int]:
    network = ban.network
    return network.version, int(network.network_address), network.prefixlen


def _why_not_lifted(network: Network, banned: Iterable[Network]) -> str:
    for one in banned:
        if one.version == network.version and one.overlaps(network):
            return f"{network} is not banned by itself; {one} is"
    return f"{network} is not banned"


def _read(file: Path) -> dict[Network, Ban]:
    content = read_trusted(file)
    if content.complaint is not None:
        raise ValueError(content.complaint)
    said = records.parsed(content.text, "version", "bans")
    if said["version"] != _VERSION:
        raise ValueError(f"version {said['version']}, and this vllmwall writes {_VERSION}")
    bans = list(map(_ban, records.records(said["bans"], "network", "since", "expires", "reason")))
    if everyone_in(one.network for one in bans):
        raise ValueError("it bans everyone")
    return {one.network: one for one in bans}


def _ban(said: records.Record) -> Ban:
    return Ban(
        parse_network(records.text(said["network"])),
        records.moment(said["since"]),
        records.end(said["expires"]),
        records.text(said["reason"]),
    )


def _text_of(bans: Iterable[Ban]) -> str:
    said = [{**asdict(one), "network": str(one.network)} for one in bans]
    return json.dumps({"version": _VERSION, "bans": said}, indent=1) + "\n"


def _aside(file: Path, error: Exception) -> str:
    """Move a file out of the way that is of no use; what to tell people."""
    kept = file.with_name(f"{file.name}.bad")
    try:
        file.replace(kept)
    except OSError:
        return f"{file} is of no use: {error}. No ban of it counts"
    return f"{file} is of no use: {error}; moved to {kept}. No ban of it counts"
