"""The kernel's events, followed between everything else that the loop does, and within a pass."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable

from vllmwall.engine.event_handlers import follow, late_reactions
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.state import State
from vllmwall.observe.event_source import EventSource
from vllmwall.observe.events import LOOK_AT_UDP, Event

_LOOK_SECONDS = 0.003  # between two looks within a pass
_FAILED_SECONDS = 0.2
_AGAIN_SECONDS = 1.0  # the end of a UDP socket is not reported
_MOST_KEPT = 4096  # events that are followed again when a pass has read everything


class EventReading:
    """Reads ``source``. ``settle_seconds`` is how soon a full pass may come after an event."""

    def __init__(
        self, source: EventSource, state: State, settle_seconds: Callable[[], float]
    ) -> None:
        self._source, self._state, self._settle_seconds = source, state, settle_seconds
        self._meanwhile: list[Event] = []
        self._next_look = 0.0
        self._is_observing = False
        self.due = 0.0
        """When `look_again` has to be called."""
        self.is_behind = False
        """Events came while a pass thought about others: `follow` has to be called soon."""

    def follow(self) -> None:
        """Follow the events that there are, without waiting."""
        stream = self._source.stream
        if stream is not None and (self._is_ready() or self.is_behind):
            self._follow(stream.read)

    def look_again(self) -> None:
        """Look at what has no event, once a second."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + _AGAIN_SECONDS
            self._follow(lambda: (LOOK_AT_UDP, *self._source.read()), self._source.read)

    def within_a_pass(self) -> None:
        """Follow them while the node is read: a port is closed at once, whatever the pass takes.

        The pass forgets what they taught, so `catch_up` follows them again.
        """
        was, self._is_observing = self._is_observing, True
        try:
            self._look(think=True)
        finally:
            self._is_observing = was

    def within_thought(self) -> None:
        """Follow them while somebody thinks about others: a quick pass about these comes after."""
        self._look(think=False)

    def _look(self, *, think: bool) -> None:
        now, stream = time.monotonic(), self._source.stream
        if now < self._next_look or stream is None:
            return
        read = stream.read

        def kept() -> Iterable[Event]:
            found = tuple(read())
            self._meanwhile += found
            return found

        is_due = self._is_ready() or (think and self.is_behind)
        if self._state.reconciler.observer.is_known and is_due:
            self._follow(kept if self._is_observing else read, think=think)
            if len(self._meanwhile) > _MOST_KEPT:
                self._meanwhile.clear()
                self._state.loop.wake_soon("many events", self._settle_seconds())
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def catch_up(self) -> None:
        """When the node was read: the pass thinks about them next, no quick one has to."""
        if self._source.stream is not None:
            read, self._meanwhile, before = self._source.stream.read, [], self._meanwhile
            self._follow(lambda: (*before, *read()), read, think=False)
            self.is_behind = False

    def _is_ready(self) -> bool:
        poll = select.poll()
        if self._source.stream is not None:
            poll.register(self._source.stream, select.POLLIN)
        return bool(poll.poll(0))

    def _follow(
        self,
        read: Callable[[], Iterable[Event]],
        later: Callable[[], Iterable[Event]] | None = None,
        *,
        think: bool = True,
    ) -> None:
        state, reconciler = self._state, self._state.reconciler
        is_behind = think and self.is_behind
        self.is_behind &= not think
        try:
            wanted = follow(reconciler, tuple(read()), later or read)
            state.measures.note_reactions(wanted.reactions)
            if (wanted.quick or is_behind) and not reconciler.down:
                self.is_behind |= not think
                if think:
                    with state.measures.quick.timed():
                        reconciler.quick_pass()
                    state.measures.note_reactions(late_reactions(reconciler, wanted))
                state.loop.wake_soon("settle", self._settle_seconds())
            if wanted.full:
                state.loop.wake_soon(wanted.full, self._settle_seconds())
        except Exception as error:  # as in a full pass, which comes next and reads everything again
            state.log(EventKey.EVENT_FAILED, error=repr(error), exc_info=True)
            state.loop.wake_soon("failed event", _FAILED_SECONDS)
