"""The loop's promises that need no network: a failing pass or question ends nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.changed_daemon import FAILING, ran

# Other passes come between an event and the pass in which its subject has settled.
# The clock moves only by the loop's waits.
BETWEEN = """
import types
clock = types.SimpleNamespace(**vars(daemon.time), now=0.0)
clock.monotonic = lambda: clock.now
daemon.time = clock
# Events come from whatever else runs on this machine.
daemon.EventReading._follow = lambda self, read, *_, **__: tuple(read())
class Changed(daemon.Daemon):
    def _wait(self, seconds):
        clock.now += seconds
    def full_pass(self, reason):
        print(reason)
        super().full_pass(reason)
        if reason == "start":
            self.wake_soon("settle", 2)
            self.wake_soon("settle", 5)
            self.wake_soon("what comes first", 0.1)
        self._stopping = reason in ("settle", "timer")
"""

# The helper process for the configuration hangs.
HANGING = """
import signal
from vllmwall.config import reading
from vllmwall.linux import helper_process
reading._CODE = "import time; time.sleep(600)"
helper_process._SECONDS = 2.0
class Changed(daemon.Daemon):
    def full_pass(self, reason):
        super().full_pass(reason)
        if reason == "start":
            signal.raise_signal(signal.SIGHUP)
            self.wake_soon("meanwhile", 0.5)
        if reason == "meanwhile":
            print("meanwhile it reads", self._reader.fileno is not None)
        if reason == "reload":
            print("reload")
            signal.raise_signal(signal.SIGTERM)
"""


# The second pass fails, the third does not; events are lost after that, until the last one.
RESERVED = """
from vllmwall.api.status import is_safe
class Changed(daemon.Daemon):
    lost = 0
    def full_pass(self, reason):
        if reason == "start":
            object.__setattr__(self._events, "lost", lambda: self.lost)
        self.reconciler.observer.fails = reason == "second"
        super().full_pass(reason)
        self.tell(reason)
        if reason == "start":
            self.wake_soon("second", 0.1)
        if reason == "what failed is tried again":
            self.lost = 7
            self.tell("lost")
        self._stopping = reason == "lost events"
    def tell(self, when):
        status = self.state.status()
        told = [(one.kind, one.what[:20]) for one in status.reservations]
        print(when, told, is_safe(status) is None)
from vllmwall import observe
observed = observe.Observer.observe
def observe_or_fail(self, catch_up):
    if self.fails:
        raise RuntimeError("a bug")
    observed(self, catch_up)
observe.Observer.observe = observe_or_fail
daemon._RETRY_SECONDS = 0.1
daemon._SECOND_LOOK_SECONDS = 600  # a pass between the others would say what they are to say
"""


def test_a_pass_that_failed_and_lost_events_are_no_longer_safe(tmp_path: Path) -> None:
    """Until a pass has succeeded, in the very next status."""
    done = ran(RESERVED, tmp_path)
    assert [
        "start [] False",
        "second [('pass-failed', 'the last pass failed')] True",
        "what failed is tried again [] False",
        "lost [('events-lost', '7 kernel events were')] True",
        "lost events [] False",
    ] == done.stdout.splitlines(), done.stderr


def test_a_pass_that_fails_by_a_bug_is_logged_and_tried_again(tmp_path: Path) -> None:
    """The active walls stay, and so does the daemon."""
    done = ran(FAILING, tmp_path)
    assert done.returncode == 0, done.stderr
    failed = [json.loads(line) for line in done.stderr.splitlines() if '"pass_failed"' in line]
    assert len(failed) == 2
    assert "RuntimeError: a bug" in failed[0]["exception"]


def test_an_earlier_pass_does_not_replace_one_that_is_due_later(tmp_path: Path) -> None:
    """Libraries start their threads just after they listen: a pass too early sees none of them."""
    done = ran(BETWEEN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert ["start", "what comes first", "second look", "settle"] == done.stdout.splitlines()


def test_passes_go_on_while_a_helper_process_hangs(tmp_path: Path) -> None:
    """It is killed when its time is over; the reload fails, and the log says why."""
    done = ran(HANGING, tmp_path)
    assert done.returncode == 0, done.stderr
    assert ["meanwhile it reads True", "reload"] == done.stdout.splitlines()
    [failed] = [json.loads(line) for line in done.stderr.splitlines() if '"config_invalid"' in line]
    [problem] = failed["problems"]
    assert "did not answer within 2 s. Try again" in problem
