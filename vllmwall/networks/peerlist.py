"""The peers in force, merged from all sources, and changes to them at runtime.

Promises (DESIGN §3, invariant 13): a source that fails keeps its last good networks and is
reported; what a source no longer names is held for a time (`held`); no failure makes the peers
wider; every address (0.0.0.0/0, ::/0, in halves too) is a peer only with `peers.allow_everyone`
in the configuration, and never by a command.

Thread-safe: `refresh` may wait for DNS in one thread while another calls `networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock, RLock
from typing import cast

from vllmwall.cidr import everyone_in, plain
from vllmwall.config import DEFAULT_PATH, DROP_INS
from vllmwall.config.settings import PeerSettings
from vllmwall.linux.places import RUNTIME_DIRECTORY
from vllmwall.model import Network
from vllmwall.networks.dns import Lookups, NoAnswerError
from vllmwall.networks.expiry import MergedNetworks, since_epoch
from vllmwall.networks.files import read_peer_files
from vllmwall.networks.held import HELD_NAME, HeldPeers, Holder
from vllmwall.networks.saved import FILE_NAME, read_saved, write_saved
from vllmwall.networks.sources import (
    FetchedKind,
    PeerError,
    PeerSource,
    where_it_lies,
    without_everyone,
)
from vllmwall.networks.state import AddedPeer, LastAnswer, State, load_state, store_state

STATE_NAME = "peers.json"
RUNTIME = "runtime"
_Key = tuple[FetchedKind, str]


class PeerList:
    """The trusted peers of this node.

    ``runtime_dir`` holds the state that outlives the daemon, ``conf_d`` the file that `save`
    writes. ``clock`` gives seconds since the epoch.
    """

    def __init__(
        self,
        section: PeerSettings,
        runtime_dir: Path = RUNTIME_DIRECTORY,
        conf_d: Path = DEFAULT_PATH.parent / DROP_INS,
        *,
        clock: Callable[[], float] = since_epoch,
        lookups: Lookups | None = None,
    ) -> None:
        self._state_path = runtime_dir / STATE_NAME
        self._saved_path = conf_d / FILE_NAME
        self._clock = clock
        self._lookups = lookups or Lookups()
        self._lock = RLock()
        self._refreshing = Lock()
        self._merged = MergedNetworks(self._expiring, clock)
        self._stored, self._load_error = load_state(self._state_path)
        self._runtime = {plain(one.network): one.expires for one in self._stored.runtime}
        found = (PeerSource(one.name, one.kind, one.networks) for one in self._stored.answers)
        self._answers = _by_key(found)
        self._held = HeldPeers(runtime_dir / HELD_NAME)
        self._store_error: str | None = None
        self.configure(section)

    def configure(self, section: PeerSettings, answers: Iterable[PeerSource] | None = None) -> None:
        """Take over a new configuration, with what `fetch` found for it.

        Without ``answers`` the known ones count, and new ones come with `refresh`.
        """
        with self._lock:
            self._section = section
            self._static = dict(section.by_file)
            self._merged.clear()
            if answers is not None:
                self._take(answers)

    def now(self) -> float:
        """Seconds since the epoch by the clock that peers expire by, which cannot be set."""
        return self._clock()

    def networks(self) -> tuple[Network, ...]:
        """The peers in force now: the fewest CIDRs, IPv4 first.

        Cheap if nothing has changed since the last call: every pass asks.
        """
        with self._lock:
            return self._merged.now()

    def sources(self) -> tuple[PeerSource, ...]:
        """Every source of peers, with its networks and its error."""
        with self._lock:
            found = [
                *(PeerSource(name, "static", nets) for name, nets in self._static.items()),
                *self._current_answers(),
                *self._runtime_sources(),
            ]
            if self._section.allow_everyone:
                return tuple(found)
        return without_everyone(found)

    def refresh(self, now: float) -> None:
        """Read the files and names again, and drop peers that have expired at ``now``.

        Waits for DNS, at most 5 s for all names: not for the loop.
        """
        with self._refreshing:
            section = self._section
            fresh = self.fetch(section)
            with self._lock:
                self._runtime = {
                    network: expires
                    for network, expires in self._runtime.items()
                    if expires is None or expires > now
                }
                self._merged.clear()
                self._take(fresh if section is self._section else self._answers.values())

    def fetch(self, section: PeerSettings) -> tuple[PeerSource, ...]:
        """Read the files of a configuration and ask DNS for its names; changes nothing.

        Waits as `refresh` does.
        """
        with self._lock:
            last = dict(self._answers)
        files = {name: source for (kind, name), source in last.items() if kind == "file"}
        return (*read_peer_files(section.files, files), *self._ask(section.dns, last))

    def add(self, networks: Iterable[Network], expires: float | None = None) -> None:
        """Trust ``networks`` at once, until ``expires`` (seconds since the epoch; None: no end).

        They outlive the daemon but not a reboot. A later command replaces the end of an earlier
        one. Raises PeerError; then nothing was changed.
        """
        new = tuple(map(plain, networks))
        with self._lock:
            if expires is not None and expires <= self._clock():
                raise PeerError("the time limit is in the past. Give a longer one")
            self._refuse_everyone(new)
            self._set_runtime({**self._runtime, **dict.fromkeys(new, expires)})
            self._load_error = None

    def remove(self, networks: Iterable[Network]) -> None:
        """Take back what `add` added. Raises PeerError, which says where a network comes from
        that cannot be taken back this way; nothing was changed then."""
        gone = tuple(map(plain, networks))
        with self._lock:
            _refuse(self._why_not_removed(network, self._elsewhere(network)) for network in gone)
            self._set_runtime({net: till for net, till in self._runtime.items() if net not in gone})

    def save(self, networks: Iterable[Network]) -> None:
        """Write ``networks`` into conf.d, where they outlive a reboot, and trust them at once.

        Saving again what is saved changes nothing. Raises PeerError.
        """
        new = tuple(map(plain, networks))
        with self._lock:
            self._refuse_everyone(new)
            saved = dict.fromkeys((*read_saved(self._saved_path), *new))
            self._write_saved(saved)
            self._set_runtime({net: till for net, till in self._runtime.items() if net not in new})

    def forget(self, networks: Iterable[Network]) -> None:
        """Take back what `add` or `save` added. Raises PeerError as `remove` does."""
        gone = tuple(map(plain, networks))
        here = frozenset({str(self._saved_path)})
        with self._lock:
            saved = read_saved(self._saved_path)
            others = {network: self._elsewhere(network) - here for network in gone}
            _refuse(
                self._why_not_removed(network, names)
                for network, names in others.items()
                if names or network not in saved
            )
            self._write_saved(dict.fromkeys(network for network in saved if network not in gone))
            self._set_runtime({net: till for net, till in self._runtime.items() if net not in gone})

    def accept_loss(self, names: Collection[str] = ()) -> None:
        """Remove at once what these sources (none: all) no longer name. Raises PeerError."""
        with self._lock:
            known = {one.name for one in self.sources() if one.kind in ("file", "dns")}
            known |= {*self._section.dns, *self._section.files}
            _refuse(
                f"{name} is not a file or DNS name of the peers. `vllmwall peers list` shows them"
                for name in names
                if name not in known
            )
            self._held.accept(self._holder(), names)
            self._merged.clear()

    def _take(self, fresh: Iterable[PeerSource]) -> None:
        """Let these answers count, and hold what they no longer name."""
        before, self._answers = self._answers, _by_key(fresh)
        others = [*(one for nets in self._static.values() for one in nets), *self._runtime]
        self._held.take(self._holder(), before, self._answers, others, self._clock())
        self._merged.clear()
        self._keep_answers()

    def _holder(self) -> Holder:
        return Holder(self._section.hold_seconds, self._entry_of)

    def _entry_of(self, kind: FetchedKind, name: str) -> str | None:
        """The configured pattern or name that a source belongs to; None: not configured now."""
        section = self._section
        if kind == "dns":
            return name if name in section.dns else None
        return next((pattern for pattern in section.files if fnmatchcase(name, pattern)), None)

    def _expiring(self) -> Iterator[tuple[Network, float | None]]:
        for source in self.sources():
            yield from source.counted()

    def _ask(self, names: tuple[str, ...], last: dict[_Key, PeerSource]) -> list[PeerSource]:
        fresh = []
        for name, answer in self._lookups.answers(names).items():
            if isinstance(answer, NoAnswerError):
                kept = last.get(("dns", name), PeerSource(name, "dns"))
                fresh.append(replace(kept, error=_kept_text(str(answer), kept)))
            else:
                fresh.append(PeerSource(name, "dns", answer))
        return fresh

    def _current_answers(self) -> list[PeerSource]:
        """Fetched sources that the configuration still names, each with what is held of it."""
        held = self._held.of(self._holder(), self._clock())
        gone = {key: PeerSource(key[1], key[0]) for key in held if key not in self._answers}
        return [
            replace(source, held=held.get(key, ()))
            for key, source in (self._answers | gone).items()
            if self._entry_of(*key) is not None
        ]

    def _runtime_sources(self) -> list[PeerSource]:
        """One source for every time at which runtime peers expire."""
        now = self._clock()
        by_time: dict[float | None, list[Network]] = {}
        for network, expires in self._runtime.items():
            if expires is None or expires > now:
                by_time.setdefault(expires, []).append(network)
        found = [
            PeerSource(RUNTIME, "runtime", tuple(networks), expires=expires)
            for expires, networks in by_time.items()
        ]
        errors = (self._held.error, self._load_error, self._store_error)
        found += [PeerSource(RUNTIME, "runtime", error=error) for error in errors if error]
        return found

    def _refuse_everyone(self, new: tuple[Network, ...]) -> None:
        active = () if self._section.allow_everyone else self.networks()
        for whole in everyone_in((*active, *new)):
            raise PeerError(
                f"{whole} would admit every address. Only the configuration can allow that, "
                "with peers.allow_everyone = true"
            )

    def _elsewhere(self, network: Network) -> frozenset[str]:
        """The names of the sources other than runtime that hold exactly this network."""
        return frozenset(
            source.name
            for source in self.sources()
            if source.kind != "runtime" and network in source.networks
        )

    def _why_not_removed(self, network: Network, elsewhere: frozenset[str]) -> str | None:
        if str(self._saved_path) in elsewhere:
            return f"{network} is saved in {self._saved_path}; use peers remove --save"
        held = [one for one in self.sources() if network in (each.network for each in one.held)]
        if held:
            return f"{network} is held. To remove it: vllmwall peers accept-loss {held[0].name}"
        if elsewhere:
            return f"{network} comes from {', '.join(sorted(elsewhere))}; remove it there"
        if network in self._runtime:
            return None
        around = where_it_lies(network, self.sources())
        if around is not None:
            return f"{network} is not a peer by itself; it is part of {around}"
        return f"{network} is not a peer"

    def _set_runtime(self, runtime: dict[Network, float | None]) -> None:
        try:
            self._store(runtime)
        except OSError as error:
            raise PeerError(_not_written(self._state_path, error)) from error
        self._runtime = runtime
        self._merged.clear()

    def _keep_answers(self) -> None:
        try:
            self._store(self._runtime)
        except OSError as error:
            self._store_error = (
                f"{_not_written(self._state_path, error)}; "
                "a restart would forget runtime peers and last good answers"
            )

    def _store(self, runtime: dict[Network, float | None]) -> None:
        state = State(
            runtime=tuple(AddedPeer(*each) for each in runtime.items()),
            answers=tuple(
                LastAnswer(cast("FetchedKind", one.kind), one.name, one.networks)
                for one in self._answers.values()
            ),
        )
        if state != self._stored:
            store_state(self._state_path, state)
            self._stored = state
        self._store_error = None

    def _write_saved(self, networks: dict[Network, None]) -> None:
        write_saved(self._saved_path, networks)
        self._static.pop(str(self._saved_path), None)
        if networks:
            self._static[str(self._saved_path)] = tuple(networks)
        self._merged.clear()


def _by_key(sources: Iterable[PeerSource]) -> dict[_Key, PeerSource]:
    return {(cast("FetchedKind", one.kind), one.name): one for one in sources}


def _not_written(path: Path, error: OSError) -> str:
    return f"{path} cannot be written: {error.strerror or error}"


def _refuse(complaints: Iterable[str | None]) -> None:
    said = [complaint for complaint in complaints if complaint is not None]
    if said:
        raise PeerError("; ".join(said))


def _kept_text(why: str, kept: PeerSource) -> str:
    if kept.networks:
        return f"{why}; its last good answer stays ({', '.join(map(str, kept.networks))})"
    return f"{why}; it has never resolved, so it adds no peers"
