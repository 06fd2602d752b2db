"""The sampler: reads every sensor when it is due, and settles the calls whose time has become certain.

It runs in rounds, in the worker's thread, while calls are open or unsettled, lingers for a moment to see the
devices idle, and rests; the next call wakes it again. No lock is held while a sensor is asked, and nobody
waits for the lock without a limit: a sensor that hangs delays figures but never a caller.

Its parts: `intake` is where calls come in, `search` and `readers` find and read the sensors, `pace` says how
often, `driver` by which thread, and `settling` attributes energy to calls.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from aimeter._sampling.driver import driver_of, worker
from aimeter._sampling.intake import Intake
from aimeter._sampling.lock import PATIENCE_S, Alone, StateLock
from aimeter._sampling.pace import Pace
from aimeter._sampling.readers import Readers
from aimeter._sampling.search import Search
from aimeter._sampling.settling import Settling
from aimeter._support.clocks import time
from aimeter._support.lifetime import after_fork_in_child
from aimeter._support.log import logger, warn_once
from aimeter._support.shield import shielded

if TYPE_CHECKING:
    from pathlib import Path

    from aimeter._attribution.figures import Figures, SoFar
    from aimeter._calls.call import Call, Pause
    from aimeter._curve.trace import Trace
    from aimeter._sampling.protocols import Selection, SteppedClock
    from aimeter.sensors.base import Clock, Finding, Sensor

T = TypeVar("T")

LINGER_S = 2.0
"""How long the sensors are read after the last call, which is also when the idle power is learned."""

SETTLING_TIMEOUT_S = 10.0
"""How long flushing waits for a round of settling to end: on a busy machine one takes seconds."""


class Sampler:
    """Sensors, their traces and the calls that they meter.

    Args:
        discover: Returns the sensors and what was found while looking for them; called once, in the background.
        gpus: The GPUs' sensors, if they are not among those; found once a call may use them.
        calibration: The setting of that name: where idle powers measured on purpose are kept.
        clock: Monotonic seconds. A `SteppedClock` takes the place of the thread.
        interval_s: Longest time between two readings of a channel around the begins and ends of calls.

    Attributes:
        put: Queues an event of a call that begins now. A call keeps the one with which it began.
        enqueue: What `put` is unless calls come too fast; made anew in a forked child, so that calls of the
            parent are told from the child's own.
        ready: Somebody will settle what is queued; if not, calls must `ensure_running`.
        now: The clock.
        unattended: No thread serves this sampler any more: calls read the sensors themselves.
        refreshed_s: When all sensors were last read because somebody had asked for it.
        cpu_s: CPU time of all rounds.
    """

    def __init__(
        self,
        discover: Callable[[], tuple[list[Sensor], list[Finding]]],
        *,
        gpus: Selection | None = None,
        calibration: Path | str = "off",
        clock: Clock | SteppedClock,
        interval_s: float,
    ) -> None:
        self.now: Clock = clock
        self.put: Callable[
            [Call | Pause], None
        ]  # set by the intake; declared in the class, a checker would bind it
        self.enqueue: Callable[[Call | Pause], None]
        self.ready = self.unattended = self._let_go = False
        self.refreshed_s = -math.inf
        self.cpu_s = 0.0
        self._warned: set[object] = set()
        now_s = clock()
        self._lock = StateLock()
        self.intake = Intake(self, clock, now_s)
        self.pace = Pace(clock, self.intake, interval_s, now_s)
        self._driver = driver_of(clock, self, self._lock)
        self.readers = Readers(
            calibration,
            now=clock,
            pace=self.pace,
            lock=self._lock,
            driver=self._driver,
            warn_once=self.warn_once,
        )
        self.search = Search(
            discover,
            gpus,
            now=clock,
            intake=self.intake,
            readers=self.readers,
            driver=self._driver,
            warn_once=self.warn_once,
        )
        self._settling = Settling(clock, self.intake, self.readers, now_s)
        _samplers.add(self)
        self._driver.attach()

    def alone(self, timeout_s: float = PATIENCE_S) -> Alone:
        """Keep all others from traces and calls; see `StateLock.alone`."""
        return self._lock.alone(timeout_s)

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""
        warn_once(message, key, said=self._warned)

    # Asked by calls

    def ensure_running(self) -> None:
        """Make sure that somebody reads the sensors; called by calls that find nobody does."""
        shielded(self._ensure_running)

    def _ensure_running(self) -> None:
        try:
            self._let_go = False
            self.search.note_wants(newest=True)
            if self.pace.is_calm:
                self._wake()
            self._driver.ensure_running()
        except BaseException:
            self.warn_once("start", "the sampler cannot be started; this is a bug in aimeter.")
            logger.debug("ensure_running failed", exc_info=True)

    def _wake(self) -> None:
        """Read all sensors now and often from now on, as something begins or ends."""
        self.pace.quicken()
        self.readers.hasten()
        self._driver.wake()

    # Asked by who drives it

    def resume(self) -> None:
        """Go on after a rest."""
        self.readers.resume()
        self._wake()

    def be_ready(self) -> None:
        """Be ready, unless calls come so fast that they must be slowed, or none has told yet which devices it uses."""
        undecided = self.search.is_undecided
        self.ready = self.intake.keeps_up() and not undecided

    def round_here(self) -> None:
        """Read the sensors here and now, and settle the calls that have ended without waiting for anything."""
        if self._lock.is_held_here():
            return
        self.search.refresh()
        now = self.now()
        self.settle(until_s=now if self.intake.has_ended() else None, timeout_s=PATIENCE_S)
        self.refreshed_s = now

    def tick(self) -> float:
        """Read what is due and settle what is certain; return the seconds until there is something to do."""
        started = time.thread_time()
        self.search.open()
        now = self.now()
        force = self._driver.wanted_s > self.refreshed_s
        if not self._let_go:
            self.readers.read_due(now, force=force)
        if (
            self._driver.is_awaited
            or self.intake.is_behind
            or now - self.intake.settled_at_s >= self.pace.settle_every_s
            or self.intake.is_plenty
        ):
            self.settle()
        if force:
            self.refreshed_s = now
            self._driver.tell_waiters()
        now = self.now()
        if self.pace.slacken():
            self.ready = False  # so that the next event is attended to
        wait_s = self._driver.guard_s if self._driver.is_awaited else self.pace.settle_every_s
        wait_s = 0.0 if self.intake.is_behind else wait_s
        due = [] if self._let_go else self.readers.due_s()
        wait_s = min([now + wait_s, *due]) - self.now()
        self.cpu_s += time.thread_time() - started
        return max(wait_s, 0.0005)

    def settle(self, *, until_s: float | None = None, timeout_s: float = -1) -> None:
        """Settle and deliver some of what has become certain, or everything up to `until_s`."""
        with self.alone(timeout_s) as alone:
            if alone:
                try:
                    self._settle(until_s)
                    while until_s is not None and self.intake.is_behind:
                        self._settle(until_s)
                except BaseException:
                    self.warn_once("settle", "calls could not be settled; this is a bug in aimeter.")
                    logger.debug("settling failed", exc_info=True)
        self._driver.tell_waiters()

    def _settle(self, until_s: float | None) -> None:
        now = self.now()
        self.search.note_wants()
        newest_s = self._settling.settle(now, self._driver.guard_s, until_s)
        if self.pace.note(newest_s):
            self._wake()
        self.readers.plan_windows()
        self.intake.watch()

    def try_stop(self) -> bool:
        """Return whether nothing is left to do, and stop being ready if so."""
        with self.alone() as alone:
            busy_s = max(self._settling.busy_s, self.search.opened_s)
            if not alone or self.intake.backlog or self._driver.is_awaited or self.now() - busy_s < LINGER_S:
                return False
            if self.intake.open_calls:
                return False
            self.ready = False
            # A call may have come between the look at the queue and the line above.
            if self.intake.backlog:
                self.ready = True
                return False
            return True

    # Asked by meters

    def deliver_to(self, deliver: Callable[[Figures], None]) -> None:
        """Hand settled figures to `deliver`, alone."""
        self._settling.deliver = deliver

    def flush(self, timeout_s: float) -> None:
        """Settle every call that has ended, waiting for the sensors up to `timeout_s`; then without them."""
        settling, target = self._settling, self.now()
        with self.alone(min(timeout_s, PATIENCE_S)) as alone:
            if alone and not self.intake.backlog:
                return
        began_s = self.now()
        while not self.wait_for(lambda: settling.has_settled_up_to(target), timeout_s):
            if settling.progress_s <= began_s:
                self.settle(until_s=target, timeout_s=SETTLING_TIMEOUT_S)
                if settling.progress_s <= began_s:
                    return
            began_s = self.now()

    def refresh(self, timeout_s: float) -> bool:
        """Read every sensor now, waiting up to `timeout_s` for a round that does; return whether there was one."""
        return self._driver.refresh(timeout_s)

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done`, which is asked after every settling, for at most `timeout_s`; return whether it is."""
        return self._driver.wait_for(done, timeout_s)

    def so_far(self, calls: list[Call], timeout_s: float) -> list[SoFar | None]:
        """Return what open calls used so far; None for one that is not open.

        Waits up to `timeout_s` for a reading of every sensor.
        """
        self._driver.let_pass(max(call.start_s for call in calls))  # until attribution has the newest
        if not self.refresh(timeout_s):
            self.settle(timeout_s=PATIENCE_S)
        with self.alone() as alone:
            return self._settling.so_far(calls) if alone else [None] * len(calls)

    def open_calls(self) -> list[Call]:
        """Return the calls that were open when calls were settled last."""
        with self.alone() as alone:
            return self._settling.attribution().calls_open() if alone else []

    def unattributed_j(self) -> list[float]:
        """Return the energy of each trace that was drawn while no call was open."""
        with self.alone():
            return self._settling.unattributed_j()

    def snapshot(self, take: Callable[[Sequence[Trace]], T]) -> T:
        """Return what `take` makes of the traces while nobody changes them."""

        def alone() -> T:
            with self.alone():
                return take(self.readers.traces)

        return shielded(alone)

    def retire(self) -> None:
        """Have no thread serve this sampler any more; calls that come all the same look after themselves."""
        self.unattended = True
        self.ready = False
        self._driver.leave()

    def close(self) -> None:
        """Stop reading and release the sensors."""
        self.retire()
        self.readers.close()

    def let_go(self) -> None:
        """Release what the sensors hold, until a call comes: nobody meters with them for now."""
        with self.alone() as alone:
            if not alone or self.intake.backlog or self.intake.open_calls:
                return
            self._let_go, self.ready = True, False
        self.readers.let_go()

    def after_fork(self) -> None:
        """In a forked child: start afresh; open calls, queue and figures are the parent's business."""
        now_s = self.now()
        self.ready = False
        self.refreshed_s = -math.inf
        self.cpu_s = 0.0
        self._lock.begin()
        self.intake.begin(now_s)
        self.pace.begin(now_s)
        self._driver.begin()
        self.search.begin()
        self._settling.begin(now_s)
        self.readers.after_fork(found=self.search.found)


_samplers: weakref.WeakSet[Sampler] = weakref.WeakSet()


def retire_all() -> None:
    """Have no thread serve any sampler any more: the interpreter is about to end."""
    for sampler in list(_samplers):
        sampler.retire()


@after_fork_in_child
def _after_fork_in_child() -> None:
    worker.after_fork()
    for sampler in list(_samplers):
        sampler.after_fork()
