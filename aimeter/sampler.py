"""The sampler: reads every sensor when it is due, and settles the calls whose time has become certain.

One daemon thread a process serves every sampler. It runs while calls are open or unsettled, lingers for a
moment to see the devices idle, and ends; the next call starts it again. No lock is held while a sensor is
read, so a sensor that hangs delays figures but never a caller.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .call import Call, Pause
    from .sensors.base import Clock, Finding, Reading, Sensor
    from .settle import Entry, Figures, Ledger
    from .trace import Trace

logger = logging.getLogger("aimeter")

LINGER_S = 2.0
"""How long the sensors are read after the last call, which is also when the idle power is learned."""

SETTLE_EVERY_S = 0.1
"""Settled rows reach the sinks at least this often while there are any."""

GUARD_S = 0.01
"""A thread may be preempted between taking a call's timestamp and queueing it; settling stays this far behind."""

OPEN_TIMEOUT_S = 10.0
"""How long the first call waits for the sensors to be found. Drivers that must load take seconds."""

MOST_BACKLOG = 20_000
"""Unsettled events beyond which callers are slowed to the pace of settling."""

MOST_QUEUED = 500_000
"""Unsettled events beyond which new calls are not metered, since settling makes no progress."""

_SLACK_S = 0.002
"""Sensors due within this time of each other are read in one go."""


class SteppedClock(Protocol):
    """A clock that only moves when told to, as in tests; it drives its samplers and no thread is started."""

    def __call__(self) -> float:
        """Return the time in seconds."""
        ...

    def advance(self, seconds: float) -> None:
        """Move on, running what falls due on the way."""
        ...

    def attach(self, sampler: Sampler) -> None:
        """Drive this sampler from now on."""
        ...


class Sampler:
    """Sensors, their traces and the ledger of the calls that they meter.

    Args:
        discover: Returns the sensors and what was found while looking for them; called once, in the background.
        clock: Monotonic seconds. A `SteppedClock` takes the place of the thread.
        interval_s: Longest time between two readings of a channel while calls are open.
    """

    def __init__(
        self,
        discover: Callable[[], tuple[list[Sensor], list[Finding]]],
        *,
        clock: Clock | SteppedClock = time.perf_counter,
        interval_s: float = 0.05,
    ) -> None:
        self.now: Clock = clock
        self.interval_s = interval_s
        self.queue: deque[Call | Pause] = deque()
        self.put = self.queue.append
        self.ready = False
        self.synchronise = True
        self.findings: list[Finding] = []
        self.sensors: list[Sensor] = []
        self.traces: list[Trace] = []
        self.lost_calls = 0
        self.cpu_s = 0.0
        self.lock = threading.RLock()
        self._stepped: SteppedClock | None = clock if hasattr(clock, "attach") else None  # type: ignore[assignment]
        self._discover = discover
        self._ledger: Ledger | None = None
        self._by_sensor: list[list[Trace]] = []
        self._opened = threading.Event()
        self._settled = threading.Condition(self.lock)
        self._reopen = False
        self._waiting = 0
        self._refresh_s = -1.0
        self._refreshed_s = -1.0
        self._busy_s = self.now()
        self._settled_at_s = self.now()
        self._progress_s = self.now()
        self._complained: set[str] = set()
        self._deliver: Callable[[Figures], None] = lambda figures: None
        _samplers.add(self)
        if self._stepped is not None:
            self._stepped.attach(self)

    # Asked by calls

    def attend(self) -> None:
        """Make sure that somebody reads the sensors; called by calls that find nobody does."""
        if self._stepped is not None:
            self._open()
            self.ready = True
            return
        backlog = len(self.queue)
        if backlog > MOST_QUEUED:
            self._drop_newest()
        elif backlog > MOST_BACKLOG // 2 and self.now() - self._progress_s < 1.0:
            # Settling holds the lock: wait for this round of it, but not for a disk that hangs.
            if self.lock.acquire(timeout=0.02):
                self.lock.release()
        _worker.serve(self)

    def _drop_newest(self) -> None:
        """Give up the newest event: memory is bounded whatever happens to the sensors."""
        try:
            self.queue.pop()
        except IndexError:
            return
        self.lost_calls += 1
        self.complain("lost", "calls come faster than they can be settled: some are not metered.")

    def wait_until_open(self, timeout_s: float = OPEN_TIMEOUT_S) -> bool:
        """Start the sampler and wait until the sensors were found and read once; False on a timeout."""
        self.attend()
        return self._stepped is not None or self._opened.wait(timeout_s)

    # The rounds of the thread

    def tick(self) -> float | None:
        """Read what is due and settle what is certain.

        Returns:
            Seconds until there is something to do, or None if nothing will be until the next call.
        """
        started = time.thread_time()
        self._open()
        now = self.now()
        if self._reopen:
            self._reopen = False
            for sensor in self.sensors:
                sensor.reopen()
        force = self._refresh_s > self._refreshed_s
        for index, sensor in enumerate(self.sensors):
            if force or min(trace.due_s(now) for trace in self._by_sensor[index]) <= now + _SLACK_S:
                self._read(index, sensor)
        if force:
            with self._settled:
                self._refreshed_s = now
                self._settled.notify_all()
        now = self.now()
        if self._waiting or now - self._settled_at_s >= SETTLE_EVERY_S or self._backlog() > MOST_BACKLOG // 4:
            self.settle()
        delay = self._next_due(now)
        self.cpu_s += time.thread_time() - started
        return delay

    def settle(self, *, until_s: float | None = None) -> None:
        """Settle and deliver what has become certain, or everything up to `until_s`."""
        with self._settled:
            ledger = self._books()
            now = self.now()
            self._settled_at_s = now
            guard = 0.0 if self._stepped is not None else GUARD_S
            figures = ledger.settle(now - guard, until_s=until_s)
            if ledger.open_calls or ledger.backlog or figures:
                self._busy_s = now
            if figures:
                self._progress_s = now
                self._deliver(figures)
            self.ready = self._alive() and ledger.backlog < MOST_BACKLOG
            self._settled.notify_all()

    def linger_over(self) -> bool:
        """Return whether nothing is left to do, and stop being ready if so."""
        with self.lock:
            if self._backlog() or self._waiting or self.now() - self._busy_s < LINGER_S:
                return False
            if self._ledger is not None and self._ledger.open_calls:
                return False
            self.ready = False
            # A call may have come between the look at the queue and the line above.
            if self._backlog():
                self.ready = True
                return False
            return True

    def _alive(self) -> bool:
        return self._stepped is not None or _worker.serves(self)

    def _backlog(self) -> int:
        return len(self.queue) if self._ledger is None else self._ledger.backlog

    def _next_due(self, now: float) -> float | None:
        due = [trace.due_s(now) for traces in self._by_sensor for trace in traces if not trace.gone]
        wait = min([*due, now + SETTLE_EVERY_S]) - self.now()
        return max(wait, 0.0005)

    def _open(self) -> None:
        """Find the sensors, once."""
        if self._opened.is_set():
            return
        from .settle import Ledger  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

        with self.lock:
            if self._opened.is_set():
                return
            self.sensors, self.findings = self._discover()
            for finding in self.findings:
                if finding.status not in {"used", "unused"}:
                    logger.info("%s %s: %s %s", finding.source, finding.subject, finding.detail, finding.remedy)
            self._ledger = Ledger(self.traces, self.queue)
            self._trace_all()
            self._busy_s = self.now()
        for index, sensor in enumerate(self.sensors):
            self._read(index, sensor)
        self._opened.set()

    def _trace_all(self) -> None:
        from .trace import Trace  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

        self.traces[:] = []
        self._by_sensor[:] = []
        for sensor in self.sensors:
            traces = [Trace(channel, self.interval_s) for channel in sensor.channels]
            self._by_sensor.append(traces)
            self.traces.extend(traces)

    def _books(self) -> Ledger:
        self._open()
        assert self._ledger is not None  # noqa: S101 - _open() has just made it
        return self._ledger

    def _read(self, index: int, sensor: Sensor) -> None:
        try:
            readings = sensor.read()
        except Exception as error:  # noqa: BLE001 - the one boundary: a sensor by somebody else may raise anything
            self.complain(f"raised-{index}", f"{type(sensor).__name__} raised {error!r} and is left out.")
            readings = _gone(self._by_sensor[index], self.now(), repr(error))
        died: list[Trace] = []
        with self.lock:
            for trace, reading in zip(self._by_sensor[index], readings, strict=False):
                was_alive = trace.alive
                trace.take(reading)
                if was_alive and not trace.alive:
                    died.append(trace)
        for trace in died:
            self._mourn(index, sensor, trace)

    def _mourn(self, index: int, sensor: Sensor, trace: Trace) -> None:
        """Say once that a channel died, and go on with the next best way to read its device, if any."""
        channel = trace.channel
        fall_back: Callable[[], bool] | None = getattr(sensor, "fall_back", None)
        if fall_back is not None and fall_back():
            from .trace import Trace  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

            self.complain(
                f"fell-back-{channel.id}",
                f"{channel.id} ({channel.name}): its {sensor.channels[0].method} is used instead of its "
                f"{channel.method}. {trace.reason}",
            )
            with self.lock:
                trace.gone = True
                fresh = [Trace(one, self.interval_s) for one in sensor.channels]
                self._by_sensor[index] = fresh
                self.traces.extend(fresh)
            return
        self.complain(
            f"died-{channel.id}",
            f"{channel.id} ({channel.name}) is not metered any more: {trace.reason}. "
            "Rows say so in `coverage`; `aimeter doctor` looks for the cause.",
        )

    def complain(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""
        if key not in self._complained:
            self._complained.add(key)
            logger.warning("%s", message)

    # Asked by meters

    def deliver_to(self, deliver: Callable[[Figures], None]) -> None:
        """Hand settled figures to `deliver`, under the sampler's lock."""
        self._deliver = deliver

    def flush(self, timeout_s: float) -> None:
        """Settle every call that has ended, waiting for the sensors up to `timeout_s`; then without them."""
        target = self.now()
        if self._ledger is None and not self.queue:
            return
        if self.wait_for(lambda: self._settled_up_to(target), timeout_s):
            return
        for _ in range(1 + self._backlog() // 1000):
            self.settle(until_s=target)
            if self._settled_up_to(target):
                return

    def refresh(self, timeout_s: float) -> None:
        """Read every sensor now, waiting up to `timeout_s` for it."""
        if self._stepped is not None:
            self.wait_until_open()
            for index, sensor in enumerate(self.sensors):
                self._read(index, sensor)
            return
        target = self._refresh_s = self.now()
        self.wait_for(lambda: self._refreshed_s >= target, timeout_s)

    def so_far(self, call: Call) -> tuple[list[float], list[float]] | None:
        """Return the joules of an open call by trace, share and window; None if it is not open."""
        with self._settled:
            ledger = self._books()
            self.settle()
            return ledger.so_far(call, self.now())

    def open_calls(self) -> list[Call]:
        """Return the calls that are open."""
        with self._settled:
            self.settle()
            return [entry.call for entry in self._books().open_entries()]

    def unattributed_j(self) -> list[float]:
        """Return the energy of each trace that was drawn while no call was open."""
        with self._settled:
            lost = [trace.unclaimed_j for trace in self.traces]
            drawn = [] if self._ledger is None else self._ledger.unattributed_j.tolist()
            return [a + b for a, b in zip(lost, [*drawn, *[0.0] * (len(lost) - len(drawn))], strict=True)]

    def _settled_up_to(self, target_s: float) -> bool:
        return self._ledger is not None and self._ledger.settled_s >= target_s

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done`, which is asked after every settling, for at most `timeout_s`; return whether it is."""
        if self._stepped is not None:
            self._open()
            spent = 0.0
            while not done() and spent < timeout_s:
                self._stepped.advance(self.interval_s / 5)
                self.settle()
                spent += self.interval_s / 5
            return done()
        if done():
            return True
        self._waiting += 1
        try:
            self.attend()
            _worker.wake()
            end = time.monotonic() + timeout_s
            with self._settled:
                while not done():
                    left = end - time.monotonic()
                    if left <= 0:
                        return False
                    self._settled.wait(left)
                return True
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop reading and release the sensors."""
        _worker.leave(self)
        with self.lock:
            self.ready = False
            for sensor in self.sensors:
                sensor.close()

    def after_fork(self) -> None:
        """In a forked child: start afresh; open calls, queue and figures are the parent's business."""
        self.lock = threading.RLock()
        self._settled = threading.Condition(self.lock)
        for event in [*(entry.call for entry in self._open_entries()), *self.queue]:
            (event[0] if isinstance(event, tuple) else event).disown()
        self.queue.clear()
        self.ready = False
        self._waiting = 0
        opened = self._opened.is_set()
        self._opened = threading.Event()
        if opened:
            from .settle import Ledger  # noqa: PLC0415 - loaded already

            self._trace_all()
            self._ledger = Ledger(self.traces, self.queue)
            self._reopen = True
            self._opened.set()

    def _open_entries(self) -> Iterable[Entry]:
        return [] if self._ledger is None else self._ledger.open_entries()


def _gone(traces: list[Trace], now: float, reason: str) -> list[Reading]:
    from .sensors.base import Outcome, Reading  # noqa: PLC0415 - keeps the module's imports to the standard library

    return [Reading(now, now, Outcome.GONE, None, reason) for _ in traces]


class _Worker:
    """The one thread of the process, which runs the rounds of every sampler that has something to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving: list[Sampler] = []
        self._thread: threading.Thread | None = None
        self._bell = threading.Event()

    def serves(self, sampler: Sampler) -> bool:
        return sampler in self._serving

    def serve(self, sampler: Sampler) -> None:
        # A signal handler may have interrupted this very method: it must not wait for itself for long.
        if not self._lock.acquire(timeout=0.1):
            return
        try:
            if sampler not in self._serving:
                self._serving.append(sampler)
                for trace in sampler.traces:
                    trace.resume(sampler.now())
            sampler.ready = len(sampler.queue) < MOST_BACKLOG
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="aimeter", daemon=True)
                self._thread.start()
        except RuntimeError:
            # The interpreter is shutting down: no new threads. What is queued is settled at exit.
            self._thread = None
        finally:
            self._lock.release()

    def leave(self, sampler: Sampler) -> None:
        with self._lock:
            if sampler in self._serving:
                self._serving.remove(sampler)

    def wake(self) -> None:
        self._bell.set()

    def _run(self) -> None:
        while True:
            wait = 1.0
            for sampler in list(self._serving):
                try:
                    delay = sampler.tick()
                except Exception:  # the boundary between aimeter's faults and the program it runs in
                    sampler.complain("tick", "the sampler failed and goes on; this is a bug in aimeter.")
                    logger.debug("sampler failed", exc_info=True)
                    delay = 1.0
                if delay is not None:
                    wait = min(wait, delay)
            over = [sampler for sampler in list(self._serving) if sampler.linger_over()]
            with self._lock:
                # A call that came meanwhile has made its sampler ready again.
                self._serving = [one for one in self._serving if one not in over or one.ready]
                if not self._serving:
                    self._thread = None
                    return
            if self._bell.wait(wait):
                self._bell.clear()

    def after_fork(self) -> None:
        self.__init__()  # type: ignore[misc]


_worker = _Worker()
_samplers: weakref.WeakSet[Sampler] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    _worker.after_fork()
    for sampler in list(_samplers):
        sampler.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
