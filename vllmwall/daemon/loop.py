"""The daemon: wakes on events, timers, signals and questions, and runs passes.

Everything it does is level-triggered: a pass re-reads the node, so a lost event costs time and
never correctness. It owns time; what a pass does is in `vllmwall.engine.reconciler`, what a
command answers is in `vllmwall.api.commands`.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

from vllmwall import __version__
from vllmwall.api.blocked import look as note_refusals
from vllmwall.api.metrics.exporter import Metrics
from vllmwall.api.server import ControlServer, answered
from vllmwall.config import ConfigError
from vllmwall.config.reading import ConfigReader
from vllmwall.config.settings import Settings
from vllmwall.daemon.event_reading import EventReading
from vllmwall.daemon.garbage import Garbage
from vllmwall.daemon.readiness import Readiness, longest_sleep
from vllmwall.daemon.reloading import Reloader
from vllmwall.engine.building import reconciler_for
from vllmwall.engine.changes import PassChanges, log_change, log_modification
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.event_log import EventLog
from vllmwall.engine.facts import ConfigFacts, ConfigProblem, DaemonFacts, PassFacts
from vllmwall.engine.log import Logger, configure
from vllmwall.engine.options import Options
from vllmwall.engine.reservations import events_lost, pass_failed
from vllmwall.engine.saved_births import SavedBirths
from vllmwall.engine.saved_wall import SavedWall
from vllmwall.engine.state import ReloadRequest, State
from vllmwall.linux.lock import locked
from vllmwall.networks.sources import PeerSource
from vllmwall.observe.event_source import open_events

_SETTLE_SECONDS = 0.2  # libraries start their threads just after they listen
_POLL_SECONDS = 1.0  # between full passes where the kernel gives no events
_PEERS_SECONDS = 60.0
_MODIFICATIONS_KEPT = 16
_SECOND_LOOK = "second look"  # for walls that an earlier daemon left: not before READY
_SECOND_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0  # with DNS, at start; a later answer comes with its own pass


def run(options: Options, read: Callable[[], Settings]) -> int:
    """Run until SIGTERM or SIGINT; the exit status. The walls stay up when it ends.

    ``read`` is how the configuration comes; it may raise ConfigError.
    """
    try:
        config = read()
    except ConfigError as error:
        configure(options.log or "auto")(
            EventKey.CONFIG_UNUSABLE, problems=list(map(str, error.problems))
        )
        return 2
    events = EventLog()
    level = options.log_level or config.log_level
    log = configure(options.log or config.log, level, events.add)
    try:
        return _run_alone(options, config, log, events)
    except Exception as error:  # in one line; systemd restarts the unit
        why = f"{type(error).__name__}: {error}"
        log(EventKey.DAEMON_FAILED, error=why, exc_info=True)
        return 1


def _run_alone(options: Options, config: Settings, log: Logger, events: EventLog) -> int:
    with locked(options.runtime_dir) as alone:
        if not alone:
            log(EventKey.ALREADY_RUNNING, runtime_dir=str(options.runtime_dir))
            return 1
        with closing(Daemon(options, config, log, events)) as daemon:
            daemon.run()
    return 0


class Daemon:
    """The loop, and everything that wakes it."""

    def __init__(self, options: Options, config: Settings, log: Logger, events: EventLog) -> None:
        self.log = log
        self._changes = PassChanges(log)
        self._readiness = Readiness()
        self._garbage = Garbage()
        self._saved = SavedWall(options.state_file) if options.state_file else None
        self._events = open_events(options.instance, _POLL_SECONDS)
        self.reconciler = reconciler_for(options, config, options.runtime_dir / "armed.json")
        self._births = SavedBirths(options.runtime_dir, self.reconciler.observer, log)
        self.reconciler.walls.on_change = lambda change: log_change(
            log, self._name(change.namespace), change
        )
        self.reconciler.walls.on_failure = lambda inode, why: log(
            EventKey.WALL_FAILED, namespace=self._name(inode), error=why
        )
        started = time.time()
        self.state = State(
            options=options,
            log=log,
            event_log=events,
            reconciler=self.reconciler,
            loop=self,
            daemon=DaemonFacts(
                pid=os.getpid(),
                version=__version__,
                started=started,
                events=self._events.name,
                events_reason=self._events.reason,
            ),
            config=ConfigFacts(loaded=started),
        )
        self._reading = EventReading(self._events, self.state, self._settle_seconds)
        self.reconciler.meanwhile = partial(self._between, self._reading.within_thought)
        self._metrics = Metrics(self.state)
        self._control = ControlServer(
            options.runtime_dir / "control.sock",
            partial(answered, self.state),
            config.control_group,
        )
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._reader = ConfigReader(options.config)
        self._reloader = Reloader(
            self._reader, self.reconciler.peers, self._apply, self._refuse, self._wake
        )
        self.read_config = self._reader.request
        self.reload = self._reloader.request
        self._signals: list[int] = []
        self._stopping = False
        self._due = {"start": 0.0}  # reasons for full passes, each with its latest time
        self._due_peers = 0.0

    def run(self) -> None:
        """Run until a signal stops it."""
        self._catch_signals()
        events = self._events
        self.log(
            EventKey.DAEMON_STARTED, version=__version__, events=events.name, why=events.reason
        )
        while not self._stopping:
            now = time.monotonic()
            if now >= self._due_peers:
                is_start = self.state.daemon.passes == 0
                self._refresh_peers(now, wait=_PATIENCE_SECONDS if is_start else 0.0)
            if now >= self._next_pass()[0]:
                self.full_pass(self._next_pass()[1])
            self._readiness.feed_watchdog()
            self._reader.advance()
            self._reloader.advance()
            self._advance()
            self._reading.look_again()
            files = self.reconciler.observer.files
            dues = (self._next_pass()[0], self._due_peers, self._reading.due, files.deadline)
            asked = (self._reader.deadline, self._reloader.deadline, self._births.deadline)
            due = min(one for one in (*dues, *asked) if one is not None)
            is_late = self.reconciler.waiting or self._reading.is_behind
            left = 0.0 if is_late else due - time.monotonic()
            self._wait(min(left, longest_sleep()))
        self._readiness.send("STOPPING=1")
        self.log(EventKey.DAEMON_STOPPED)

    def close(self) -> None:
        """Give everything back except the walls."""
        self._births.finish()
        self._control.close()
        self._metrics.close()
        self._reader.close()
        if self._events.stream is not None:
            self._events.stream.close()
        self.reconciler.observer.close()

    def full_pass(self, reason: str) -> None:
        """Run one full pass. A node that cannot be read is logged and changes nothing."""
        interval = self.reconciler.config.full_pass_seconds
        now = time.monotonic()
        second_look = now >= self._due.get(_SECOND_LOOK, math.inf)
        self._due = {why: at for why, at in self._due.items() if at > now}
        self._due["timer"] = now + (interval if self._events.name == "tracefs" else _POLL_SECONDS)
        if (left := self._until_a_peer_expires()) is not None:
            self.wake_soon("a peer's time is over", left)
        if (left := self.reconciler.bans.left()) is not None:
            self.wake_soon("a ban's time is over", left)
        begun = time.perf_counter()
        try:
            if second_look:
                self.reconciler.look_for_walls()
            between = partial(self._between, self._reading.within_a_pass)
            self.reconciler.full_pass(self._reading.catch_up, between, self._report_readiness)
            self.state.reservations.clear()
            self.count_lost_events()
            self._save_wall()
            self._changes.log_changes(self.reconciler)
            note_refusals(self.state)
        except Exception as error:  # whatever a user's process can provoke must not end us
            self.state.reservations["pass-failed"] = pass_failed(error)
            self.log(EventKey.PASS_FAILED, reason=reason, error=repr(error), exc_info=True)
        failed = self.state.reservations.get("pass-failed")
        pass_error = failed.what if failed else None
        if pass_error or any(self.reconciler.walls.failures()):
            self.wake_soon("what failed is tried again", _RETRY_SECONDS)
        daemon = self.state.daemon
        if daemon.passes == 0:  # which must not wait for it
            self.wake_soon(_SECOND_LOOK, _SECOND_LOOK_SECONDS)
        seconds = time.perf_counter() - begun
        self.state.measures.full.observe(seconds)
        last_pass = PassFacts(time.time(), seconds * 1000, reason)
        self.state.daemon = replace(daemon, passes=daemon.passes + 1, last_pass=last_pass)
        self._metrics.after_pass()
        self._garbage.collect()
        self._report_readiness(pass_error)

    def _advance(self) -> None:
        """Go on with what no pass waits for: files of users, and the walls of many namespaces."""
        try:
            if self.reconciler.note_answers():
                self.wake_soon("files were read", self._settle_seconds())
            self.reconciler.advance()
            self._births.advance()
        except Exception as error:
            self.log(EventKey.EVENT_FAILED, error=repr(error), exc_info=True)
            self.reconciler.waiting.clear()
            self.wake_soon("failed event", _SETTLE_SECONDS)

    def _report_readiness(self, pass_error: str | None = None) -> None:
        """Ready, if our own walls are as wanted. Others may be many: readiness does not wait for
        them."""
        why = self._readiness.report(self.reconciler, pass_error)
        if why and not pass_error:
            self.log(EventKey.NOT_READY, why=why)

    def _until_a_peer_expires(self) -> float | None:
        peers = self.reconciler.peers
        now = peers.now()
        ends = [end for one in peers.sources() if (end := one.expires) and end > now]
        return min(ends) - now if ends else None

    def _save_wall(self) -> None:
        """Save the wall for the next boot. A failure, such as a full disk, is logged once."""
        before = self.state.problems.pop("save", None)
        try:
            if self._saved is not None:
                self._saved.keep(self.reconciler, fenced=self.reconciler.config.boot_fence)
        except OSError as error:
            why = f"the wall for the next boot could not be saved: {error}"
            self.state.problems["save"] = why
            if why != before:
                self.log(EventKey.WALL_NOT_SAVED, error=str(error))

    def count_lost_events(self) -> None:
        """Note what the kernel dropped since the last call; a full pass follows."""
        lost = self._events.lost()
        more = lost - self.state.daemon.events_lost
        if more > 0:
            self.log(EventKey.EVENTS_LOST, events=lost)
            self.wake_soon("lost events", self._settle_seconds())
            self.state.reservations["events-lost"] = events_lost(more)
        self.state.daemon = replace(self.state.daemon, events_lost=lost)

    def wake_soon(self, reason: str, seconds: float = 0.0) -> None:
        """Have a full pass in ``seconds`` at the latest; one before then does not count for it."""
        due = time.monotonic() + seconds
        self._due[reason] = min(due, self._due.get(reason, due))

    def _next_pass(self) -> tuple[float, str]:
        return min((at, why) for why, at in self._due.items())

    def _apply(self, config: Settings, answers: tuple[PeerSource, ...] | None) -> None:
        """Put a new configuration in force, with what its sources of peers answered."""
        self._readiness.reloading()
        self.reconciler.configure(config)
        self.state.config = ConfigFacts(loaded=time.time())
        self.reconciler.peers.configure(config.peers, answers)
        if answers is None:
            self._refresh_peers(time.monotonic(), wait=0.0)
        self.log(EventKey.CONFIG_LOADED, file=str(self.state.options.config))
        self.full_pass("reload")

    def _refuse(self, error: ConfigError) -> None:
        """Keep the configuration in force, and report what is wrong with the new one."""
        self._readiness.reloading()
        problems = tuple(
            ConfigProblem(str(one.file), one.key, one.message, one.line) for one in error.problems
        )
        self.state.config = replace(self.state.config, problems=problems)
        self.log(EventKey.CONFIG_INVALID, problems=list(map(str, error.problems)))
        self.full_pass("reload")

    def _wait(self, seconds: float) -> None:
        watches = {one.fileno(): inode for inode, one in self.reconciler.watches().items()}
        clients = {**self._control.descriptors(), **self._metrics.descriptors()}
        poll = select.poll()
        files = self.reconciler.observer.files.filenos
        for descriptor in (self._wake_read, self._reader.fileno, *files, *watches):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        for descriptor, events in clients.items():
            poll.register(descriptor, events)
        if self._events.stream is not None:
            poll.register(self._events.stream, select.POLLIN)
        served = min(self._control.deadline, self._metrics.deadline) - time.monotonic()
        ready = [one for one, _ in poll.poll(max(0.0, min(seconds, served)) * 1000)]
        self.follow_events()  # first: a port may be open
        for descriptor in ready:
            if descriptor == self._wake_read:
                self._handle_signals()
            elif descriptor in watches:
                self._repair(watches[descriptor])
            elif descriptor in clients:
                if not self._metrics.ready(descriptor):
                    self._control.ready(descriptor)
                self.follow_events()

    def follow_events(self) -> None:
        """Follow the events that came meanwhile: for work that takes more than a millisecond."""
        self._reading.follow()

    def _between(self, follow: Callable[[], None]) -> None:
        self._readiness.feed_watchdog()
        follow()

    def _repair(self, namespace: int) -> None:
        """Repair a wall that other programs modified, and log which ones."""
        try:
            watch = self.reconciler.watches().get(namespace)
            commits = watch.read() if watch else ()
            if watch and watch.found_nat():
                self.reconciler.follow_nat(namespace)
            if commits:
                with self.state.measures.repair.timed():
                    self.reconciler.repair(namespace)
        except Exception as error:  # the full pass that comes next reads everything again
            self.log(EventKey.REPAIR_FAILED, error=repr(error), exc_info=True)
            self.wake_soon("failed repair", _SETTLE_SECONDS)
            return
        name = self._name(namespace)
        for one in commits:
            made = log_modification(self.log, name, one)
            newest = (*self.state.daemon.modifications, made)[-_MODIFICATIONS_KEPT:]
            self.state.daemon = replace(self.state.daemon, modifications=newest)
        if commits and not self.reconciler.down:
            self.log(EventKey.WALL_REPAIRED, namespace=name)

    def _settle_seconds(self) -> float:
        """Full passes after events take a tenth of the time at most, however many events come."""
        last = self.state.daemon.last_pass
        return max(_SETTLE_SECONDS, 10 * last.ms / 1000 if last else 0.0)

    def _refresh_peers(self, now: float, *, wait: float) -> None:
        """DNS and files off the loop: an answer can take seconds, a listener does not wait."""
        self._due_peers = now + _PEERS_SECONDS

        def refresh() -> None:
            before = self.reconciler.peers.networks()
            self.reconciler.peers.refresh(self.reconciler.peers.now())
            if self.reconciler.peers.networks() != before:
                self._wake(b"p")

        thread = threading.Thread(target=refresh, name="peers", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the kernel refuses another thread
            self.log(EventKey.PEERS_FAILED, error=str(error))
            return
        thread.join(timeout=wait)

    def _wake(self, why: bytes = b"w") -> None:
        """End the loop's wait; from any thread."""
        with suppress(BlockingIOError):
            os.write(self._wake_write, why)

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda received, _frame: self._signals.append(received))

    def _handle_signals(self) -> None:
        with suppress(BlockingIOError):
            if b"p" in os.read(self._wake_read, 4096):
                self.wake_soon("peers changed")
        signals, self._signals = self._signals, []
        for received in signals:
            if received == signal.SIGHUP:
                self.reload(ReloadRequest())
            else:
                self._stopping = True

    def _name(self, namespace: int) -> str:
        return self.reconciler.observer.namespaces.name(namespace)
