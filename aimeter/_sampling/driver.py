"""The two that drive samplers: the working thread of the process, and a clock that only moves when told to."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, cast

from aimeter._sampling.source import SILENCE_S
from aimeter._sampling.worker import Worker
from aimeter._support.clocks import time

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimeter._sampling.lock import StateLock
    from aimeter._sampling.protocols import Driver, Served, SteppedClock
    from aimeter._sampling.source import Question, Source
    from aimeter.sensors.base import Clock

GUARD_S = 0.01
"""A thread may be preempted between taking a call's timestamp and queueing it; settling stays this far behind."""

worker = Worker()
"""Works for all samplers of this process."""


def driver_of(clock: Clock | SteppedClock, sampler: Served, lock: StateLock) -> Driver:
    """Return the clock as the driver of a sampler if it is one that drives, else the working thread."""
    if hasattr(clock, "attach"):
        return SteppedDriver(cast("SteppedClock", clock), sampler)
    return ThreadDriver(sampler, lock)


class SteppedDriver:
    """Drives a sampler by a stepped clock, in whatever thread moves it: nobody waits and nothing hangs."""

    guard_s = 0.0
    wanted_s = -math.inf
    is_awaited = False

    def __init__(self, clock: SteppedClock, sampler: Served) -> None:
        self._clock, self._sampler = clock, sampler

    def begin(self) -> None:
        """Do nothing: nothing is held that another process may have."""

    def attach(self) -> None:
        """Have the clock run the sampler's rounds."""
        self._clock.attach(self._sampler)

    def ensure_running(self) -> None:
        """Find the sensors; the clock sees to all else."""
        self._sampler.search.open()
        self._sampler.ready = True

    def wake(self) -> None:
        """Have the next round begin now."""
        self._clock.wake(self._sampler)

    def leave(self) -> None:
        """Do nothing: the clock goes on."""

    def asking(self, question: Question, patience_s: float = SILENCE_S) -> AbstractContextManager[bool]:  # noqa: ARG002 - the protocol's
        """Let every question be asked."""
        return nullcontext(enter_result=True)

    def release(self, source: Source) -> None:
        """Close a sensor."""
        source.close()

    def let_pass(self, stamp_s: float) -> None:
        """Do nothing: what has happened is in the queue."""

    def refresh(self, timeout_s: float) -> bool:  # noqa: ARG002 - the protocol's
        """Read every sensor, without a round."""
        self._sampler.search.refresh()
        return False

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Move the clock on until `done`, by at most `timeout_s`."""
        self._sampler.search.open()
        left_s = timeout_s
        while not done() and left_s > 0:
            step_s = min(self._sampler.pace.interval_s / 5, left_s)
            self._clock.advance(step_s)
            self._sampler.settle()
            left_s -= step_s
        return done()

    def tell_waiters(self) -> None:
        """Do nothing: nobody waits."""


class ThreadDriver:
    """Has the working thread drive a sampler; where none can be had, calls read the sensors themselves."""

    guard_s = GUARD_S

    def __init__(self, sampler: Served, lock: StateLock) -> None:
        self._sampler, self._lock = sampler, lock
        self.begin()

    def begin(self) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""
        self._waiters: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self.wanted_s = -math.inf

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a round."""
        return bool(self._waiters)

    def attach(self) -> None:
        """Do nothing: the thread starts with the first call."""

    def ensure_running(self) -> None:
        """Have the thread serve the sampler, or do its work here; wait for the sensors, and for a backlog."""
        sampler = self._sampler
        search = sampler.search
        if sampler.unattended or not worker.serve(sampler):
            sampler.round_here()
        elif not search.is_open:
            search.opened = self._wait(lambda: search.is_open, search.patience_s) or worker.is_working()
        else:
            sampler.intake.slow_down()

    def wake(self) -> None:
        """Have the next round begin now."""
        worker.ring()

    def leave(self) -> None:
        """Have the thread serve the sampler no more."""
        worker.leave(self._sampler)

    def asking(self, question: Question, patience_s: float = SILENCE_S) -> AbstractContextManager[bool]:
        """Claim a question while it is being asked; False if it is not this thread's turn."""
        return worker.asking(self._sampler, question, patience_s)

    def release(self, source: Source) -> None:
        """Close a sensor after the answer that a thread may be waiting for."""
        worker.release(source)

    def let_pass(self, stamp_s: float) -> None:
        """Wait until an event of this time is in the queue."""
        time.sleep(max(stamp_s + GUARD_S - self._sampler.now(), 0.0))

    def refresh(self, timeout_s: float) -> bool:
        """Wait for a round that reads every sensor; return whether there was one in time."""
        target_s = self._sampler.now()
        return self.wait_for(lambda: self._sampler.refreshed_s >= target_s, timeout_s)

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Have the sensors read and wait until `done`, which is asked after every settling, for at most `timeout_s`."""
        if done():
            return True
        self.wanted_s = self._sampler.now()
        self._sampler.ensure_running()
        return self._wait(done, timeout_s)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        interrupted = self._lock.is_held_here() or worker.is_held_here()
        if interrupted or self._sampler.unattended or worker.is_here() or not worker.is_working():
            return done()  # there is nobody to wait for
        # Unlike an Event, a SimpleQueue may be used by whatever interrupts its use.
        news: SimpleQueue[None] = SimpleQueue()
        waiter = (done, lambda: news.put(None))
        self._waiters.append(waiter)
        try:
            worker.ring()
            if not done():
                with suppress(Empty):
                    news.get(timeout=timeout_s)
            return done()
        finally:
            self._waiters.remove(waiter)

    def tell_waiters(self) -> None:
        """Have those go on who wait for what is done."""
        for done, tell in list(self._waiters):
            if done():
                tell()
