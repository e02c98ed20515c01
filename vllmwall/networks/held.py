"""Networks that a file or DNS name no longer names, and how long they still count as peers.

Promises (DESIGN §3, invariant 13): such a network stays a peer for the hold time. Where a source
names less than half of what it named within that time, all of them stay until it names them
again, says that it is complete, or a person accepts the loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

from vllmwall.cidr import Network, NetworkSet, merged
from vllmwall.linux.files import save_text
from vllmwall.networks.records import VersionedFile, load, parsed, text_of
from vllmwall.networks.sources import FetchedKind, HeldPeer, PeerError, PeerSource

HELD_NAME = "peers-held.json"
_Entry = tuple[FetchedKind, str]  # a DNS name or a pattern of files, as configured
_Key = tuple[FetchedKind, str]  # a DNS name or a file
Sources = Mapping[_Key, PeerSource]


@dataclass(frozen=True)
class Gone:
    """A network that its source named until ``since``, in seconds since the epoch."""

    kind: FetchedKind
    name: str
    network: Network
    since: float

    @property
    def key(self) -> _Key:
        """Its source."""
        return self.kind, self.name


@dataclass(frozen=True)
class Extent:
    """The most networks that a configured entry named within the hold time, and when last.

    ``is_lost``: it names less than half of them now.
    """

    kind: FetchedKind
    entry: str
    most: int
    at: float
    is_lost: bool = False


@dataclass(frozen=True, kw_only=True)
class Holding(VersionedFile):
    """All networks that are held, in a file of their own: an older vllmwall does not know them."""

    gone: tuple[Gone, ...] = ()
    extents: tuple[Extent, ...] = ()

    def differs(self, other: Holding) -> bool:
        """Differs in more than times: a list that does not change is not worth a write a minute."""
        return self.gone != other.gone or any(
            replace(one, at=0.0) != replace(two, at=0.0)
            for one, two in zip_longest(self.extents, other.extents, fillvalue=_NONE)
        )


_NONE = Extent("file", "", 0, 0.0)


class HeldPeers:
    """What is held now, kept in ``path`` over a restart. ``error``: the problem with that file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holding, self.error = _load(path)

    def of(self, holder: Holder, now: float) -> dict[_Key, tuple[HeldPeer, ...]]:
        """The held networks that count at ``now``, by source."""
        found: dict[_Key, list[HeldPeer]] = {}
        for key, one in holder.held(self._holding, now):
            found.setdefault(key, []).append(one)
        return {key: tuple(held) for key, held in found.items()}

    def take(
        self,
        holder: Holder,
        before: Sources,
        fresh: Sources,
        others: Iterable[Network],
        now: float,
    ) -> None:
        """Hold what ``fresh`` no longer names; see `Holder.after`. It counts without a file too."""
        last = self._holding
        self._holding = holder.after(last, before, fresh, others, now)
        try:
            if self._holding.differs(last) or self.error:
                self._store(self._holding)
        except PeerError as error:
            self.error = f"{error}; a restart would remove held peers"

    def accept(self, holder: Holder, names: Collection[str]) -> None:
        """Remove what is held of these sources (none: of all). Raises PeerError."""
        accepted = holder.accepted(self._holding, names)
        self._store(accepted)
        self._holding = accepted

    def _store(self, holding: Holding) -> None:
        try:
            save_text(self._path, text_of(holding), mode=0o600)
        except OSError as error:
            raise PeerError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self.error = None


def _load(path: Path) -> tuple[Holding, str | None]:
    try:
        found, problem = load(path, partial(parsed, Holding))
    except FileNotFoundError:
        return Holding(), None
    return found or Holding(), problem or None


@dataclass(frozen=True)
class Holder:
    """The rules by which networks are held.

    ``seconds``: the hold time; 0 holds nothing. ``entry_of``: the configured pattern or name that
    a source belongs to; None: it is not configured any more.
    """

    seconds: float
    entry_of: Callable[[FetchedKind, str], str | None]

    def after(
        self,
        last: Holding,
        before: Sources,
        fresh: Sources,
        others: Iterable[Network],
        now: float,
    ) -> Holding:
        """What is held once ``fresh`` are the answers and ``before`` were the last ones.

        ``others``: peers of other kinds; a network among them is not missed.
        """
        if self.seconds <= 0:
            return Holding()
        gone = list(self._missing(last, before, fresh, others, now))
        missed = {self._entry_of(one.key) for one in gone}
        extents = tuple(self._extents(last, before, fresh, missed, now))
        lost = {(one.kind, one.entry) for one in extents if one.is_lost}
        kept = (
            one for one in gone if self._entry_of(one.key) in lost or now < one.since + self.seconds
        )
        return Holding(gone=tuple(kept), extents=extents)

    def accepted(self, last: Holding, names: Collection[str]) -> Holding:
        """The rest, once the loss of these sources (none: of all) is accepted.

        A source is named as it is listed or as it is configured.
        """
        if not names:
            return Holding()
        entries = {self._entry_of(one.key) for one in last.gone if one.name in names}
        entries |= {(one.kind, one.entry) for one in last.extents if one.entry in names}
        return Holding(
            gone=tuple(one for one in last.gone if self._entry_of(one.key) not in entries),
            extents=tuple(one for one in last.extents if (one.kind, one.entry) not in entries),
        )

    def held(self, holding: Holding, now: float) -> Iterator[tuple[_Key, HeldPeer]]:
        """The held networks that count now, each with the kind and name of its source."""
        lost = {(one.kind, one.entry) for one in holding.extents if one.is_lost}
        for one in holding.gone:
            entry = self._entry_of(one.key)
            until = None if entry in lost else one.since + self.seconds
            if entry is not None and (until is None or now < until):
                yield one.key, HeldPeer(one.network, until)

    def _missing(
        self,
        last: Holding,
        before: Sources,
        fresh: Sources,
        others: Iterable[Network],
        now: float,
    ) -> Iterator[Gone]:
        named = [network for source in fresh.values() for network in source.networks]
        covers = NetworkSet(merged((*named, *others)))
        known = {(one.kind, one.name, one.network): one for one in last.gone}
        for (kind, name), source in before.items():
            for network in source.networks:
                known.setdefault((kind, name, network), Gone(kind, name, network, now))
        for one in known.values():
            cover = covers.holding(one.network.network_address)
            is_named = cover is not None and cover.prefixlen <= one.network.prefixlen
            if not is_named and self._entry_of(one.key) is not None:
                yield one

    def _extents(
        self,
        last: Holding,
        before: Sources,
        fresh: Sources,
        missed: Collection[_Entry | None],
        now: float,
    ) -> Iterator[Extent]:
        known = {(one.kind, one.entry): one for one in last.extents}
        earlier, counts = self._counts(before), self._counts(fresh)
        for entry in dict.fromkeys((*counts, *filter(None, missed))):
            most = known.get(entry, Extent(*entry, earlier[entry], now))
            sources = [fresh[key] for key in fresh if self._entry_of(key) == entry]
            is_complete = bool(sources) and all(source.is_complete for source in sources)
            if not most.is_lost and most.at + self.seconds <= now:
                most = Extent(*entry, earlier[entry], now)
            if is_complete or counts[entry] >= most.most:
                yield Extent(*entry, counts[entry], now)
            else:
                is_lost = entry in missed and 2 * counts[entry] < most.most
                yield replace(most, is_lost=is_lost)

    def _counts(self, sources: Sources) -> Counter[_Entry]:
        counts: Counter[_Entry] = Counter()
        for key, source in sources.items():
            entry = self._entry_of(key)
            if entry is not None:
                counts[entry] += len(source.networks)
        return counts

    def _entry_of(self, key: _Key) -> _Entry | None:
        entry = self.entry_of(*key)
        return None if entry is None else (key[0], entry)
