"""The sampler: reads every sensor when it is due, and settles the calls whose time has become certain.

It runs in rounds, in the worker's thread, while calls are open or unsettled, lingers for a moment to see the
devices idle, and rests; the next call wakes it again. No lock is held while a sensor is asked, and nobody
waits for the lock without a limit: a sensor that hangs delays figures but never a caller.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from aimeter._sampling.lock import Alone, is_held_here
from aimeter._sampling.source import SILENCE_S, Question, Source
from aimeter._sampling.worker import Worker
from aimeter._support.clocks import time
from aimeter._support.files import none_can_be_opened
from aimeter._support.log import warn_once
from aimeter._support.shield import shielded

if TYPE_CHECKING:
    from pathlib import Path

    from aimeter._attribution.attribution import Ledger
    from aimeter._attribution.figures import Figures
    from aimeter._calls.call import Call, Pause
    from aimeter._curve.calibration import Calibration
    from aimeter._curve.trace import Trace
    from aimeter._sampling.protocols import Selection, SteppedClock
    from aimeter.sensors.base import Channel, Clock, Finding, Reading, Sensor

logger = logging.getLogger("aimeter")

LINGER_S = 2.0
"""How long the sensors are read after the last call, which is also when the idle power is learned."""

SETTLE_EVERY_S = 0.1
"""Settled rows reach the sinks at least this often while there are any."""

GUARD_S = 0.01
"""A thread may be preempted between taking a call's timestamp and queueing it; settling stays this far behind."""

OPEN_TIMEOUT_S = 10.0
"""How long the first call waits for the sensors to be found. Drivers that must load take seconds."""

BOOKS_TIMEOUT_S = 10.0
"""How long flushing waits for a round of settling to end: on a busy machine one takes seconds."""

MOST_BACKLOG = 20_000
"""Unsettled events beyond which callers are slowed to the pace of settling."""

MOST_QUEUED = 500_000
"""Unsettled events beyond which new calls are not metered, if settling makes no progress."""

_SLACK_S = 0.002
"""Sensors due within this time of each other are read in one go."""

_CALM = 0.2
"""In the middle of a long call counters need not be read often: the time between two readings doubles as long as
it is at most this part of the time in which nothing began or ended. What does is then attended to at once."""

_LONGEST_PACE = 8
"""It doubles to this many intervals at most: a sensor that is lost is to be missed soon."""

_BREATH_S, _REST_S = 0.001, 0.02
"""How long a call sleeps that finds a backlog, and one that finds it twice as long: with many threads."""

_NEWEST = 4
"""So many of the newest events are looked at by a call that wants to know whether its own is among them."""

_STALLED_S = 10.0
"""Callers are slowed for so long while nothing is settled: with threads that never pause, a round may take seconds."""

_ALERT_S = 1.0
"""For so long after calls came too fast each of them looks at the backlog, so that they do not come in bursts."""

_PATIENCE_S = 0.5
"""How long a caller waits for others to finish with the books, e.g. with a disk that is slow to take rows."""


class Sampler:
    """Sensors, their traces and the ledger of the calls that they meter.

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
        ready: Somebody will settle what is queued; if not, calls must `attend`.
        unattended: No thread serves this sampler any more: calls read the sensors themselves.
    """

    def __init__(
        self,
        discover: Callable[[], tuple[list[Sensor], list[Finding]]],
        *,
        gpus: Selection | None = None,
        calibration: Path | str = "off",
        clock: Clock | SteppedClock = time.perf_counter,
        interval_s: float = 0.05,
    ) -> None:
        self.now: Clock = clock
        self.interval_s = interval_s
        self.unattended = False
        self.findings: list[Finding] = []
        self.traces: list[Trace] = []
        self.sources: list[Source] = []
        self._stepped: SteppedClock | None = clock if hasattr(clock, "attach") else None  # type: ignore[assignment]
        self._discover = discover
        self._gpus = gpus
        self._gpus_wanted = False
        self._gpus_state: object = None
        self._gpus_unsought = False
        """Whether they were wanted at the limit of open files, where no driver can be asked."""
        """What the GPUs in use were selected by; None until they were."""
        self._gpu_sources: list[Source] = []
        self._calibration = calibration
        self._calibrated: dict[Channel, Calibration | None] = {}
        self._deliver: Callable[[Figures], None]
        self._complained: set[object] = set()
        self._found = self._let_go = False
        self._begin()
        _samplers.add(self)
        if self._stepped is not None:
            self._stepped.attach(self)

    def _begin(self) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""
        self.queue: deque[Call | Pause] = deque()
        self.put = self.enqueue = self.queue.append
        self.ready = False
        self.lost_calls = 0
        self.cpu_s = 0.0
        self._ledger: Ledger | None = None
        self._lock = threading.RLock()
        self._waiters: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self._search = Question()
        self._opened = False
        self._refresh_s = self._refreshed_s = -math.inf
        self._busy_s = self._settled_at_s = self._progress_s = self._event_s = self.now()
        self._flooded_s = -math.inf
        self._calm = False
        self._settle_every_s = SETTLE_EVERY_S

    def alone(self, timeout_s: float = _PATIENCE_S) -> Alone:
        """Keep all others from the books; False if that cannot be had in time.

        False, too, if this very thread is at the books already: then a signal handler or a finaliser has
        interrupted it in the middle of a change.
        """
        return Alone(self._lock, timeout_s)

    def _interrupted(self) -> bool:
        """Return whether this thread was interrupted while it was at the books."""
        return is_held_here(self._lock)

    # Asked by calls

    def attend(self) -> None:
        """Make sure that somebody reads the sensors; called by calls that find nobody does."""
        shielded(self._attend)

    def _attend(self) -> None:
        try:
            self._let_go = False
            self._note_wants(_NEWEST)
            if self._calm:
                self._hurry()
            if self._stepped is not None:
                self._open()
                self.ready = True
            elif self.unattended or not _worker.serve(self):
                self._attend_oneself()
            elif not self._is_open():
                self._opened = self._wait(self._is_open, OPEN_TIMEOUT_S) or _worker.is_working()
            else:
                self._slow_down()
        except BaseException:
            self.complain("attend", "the sampler cannot be started; this is a bug in aimeter.")
            logger.debug("attend failed", exc_info=True)

    def resume(self) -> None:
        """Go on after a rest."""
        for trace in self.traces:
            trace.resume(self.now())
        for source in self.sources:
            if source.power_windows is not None:
                source.power_windows.resume()
        self._hurry()

    def _hurry(self) -> None:
        """Read all sensors now and often from now on, as something begins or ends."""
        self._event_s, self._calm = self.now(), False
        for source in self.sources:
            if source.counter is None:
                source.due_s = -math.inf
        if self._stepped is not None:
            self._stepped.wake(self)
        else:
            _worker.ring()

    def _pace_s(self) -> float:
        """Return how often counters are to be read: a power of two of intervals, so that all fall together."""
        pace_s = self.interval_s
        # While lingering the idle power is learned, for which all readings are welcome.
        if self._ledger is not None and self._ledger.open_calls:
            most_s = min(_CALM * (self.now() - self._event_s), _LONGEST_PACE * self.interval_s)
            while 2 * pace_s <= most_s:
                pace_s *= 2
        return pace_s

    def be_ready(self) -> None:
        """Be ready, unless calls come so fast that they must be slowed, or none has told yet which devices it uses."""
        undecided = self._gpus is not None and self._gpus_state is None
        now, backlog = self.now(), self._backlog()
        if backlog >= MOST_BACKLOG:
            self._flooded_s = now
        self.ready = now - self._flooded_s > _ALERT_S and not undecided

    def watch_pace(self) -> None:
        """Slow callers down if there is a backlog, also while the thread that settles it is kept from that."""
        backlog = self._backlog()
        if backlog >= MOST_BACKLOG:
            self.ready = False
        if backlog <= MOST_QUEUED // 2:
            self.put = self.enqueue

    def _slow_down(self) -> None:
        """Let the thread that settles calls catch up if there is a backlog, but do not wait for a disk that hangs."""
        backlog = self._backlog()
        if self.now() - self._settled_at_s < _STALLED_S:
            if backlog > MOST_BACKLOG:
                time.sleep(_BREATH_S if backlog < 2 * MOST_BACKLOG else _REST_S)
        elif backlog > MOST_QUEUED:
            self.put = self._refuse

    def _refuse(self, event: Call | Pause) -> None:
        """Take the place of the queue: memory is bounded, whatever keeps calls from being settled."""
        if not isinstance(event, tuple) and not event.ended:
            self.lost_calls += 1
            self.complain("lost", "calls come faster than they can be settled: some are not metered.")

    def _attend_oneself(self) -> None:
        """Read the sensors here and now, and settle the calls that have ended without waiting for anything."""
        if self._interrupted():
            return
        self._open()
        for source in self.sources:
            self._read(source)
        now = self.now()
        ended = any(not isinstance(event, tuple) and event.ended for event in list(self.queue))
        self.settle(until_s=now if ended else None, timeout_s=_PATIENCE_S)
        self._refreshed_s = now

    # The rounds

    def tick(self) -> float:
        """Read what is due and settle what is certain; return the seconds until there is something to do."""
        started = time.thread_time()
        self._open()
        now = self.now()
        force = self._refresh_s > self._refreshed_s
        for source in [] if self._let_go else self.sources:
            if source.asked_s is not None:
                self._note_silence(source)
            elif force or source.due_s <= now + _SLACK_S:
                self._read(source)
        if (
            self._waiters
            or self._behind()
            or now - self._settled_at_s >= self._settle_every_s
            or self._backlog() > MOST_BACKLOG // 4
        ):
            self.settle()
        if force:
            self._refreshed_s = now
            self._tell_waiters()
        now, pace_s = self.now(), self._pace_s()
        if pace_s > self.interval_s and not self._calm:
            self._calm = True
            self.ready = False  # so that the next event is attended to
        self._settle_every_s = max(SETTLE_EVERY_S, pace_s) if self._calm else SETTLE_EVERY_S
        wait_s = 0.0 if self._behind() else GUARD_S if self._waiters else self._settle_every_s
        due = [source.due_s for source in self.sources if source.asked_s is None and not self._let_go]
        wait_s = min([now + wait_s, *due]) - self.now()
        self.cpu_s += time.thread_time() - started
        return max(wait_s, 0.0005)

    def settle(self, *, until_s: float | None = None, timeout_s: float = -1) -> None:
        """Settle and deliver some of what has become certain, or everything up to `until_s`."""
        with self.alone(timeout_s) as alone:
            if alone:
                try:
                    self._settle(until_s)
                    while until_s is not None and self._behind():
                        self._settle(until_s)
                except BaseException:
                    self.complain("settle", "calls could not be settled; this is a bug in aimeter.")
                    logger.debug("settling failed", exc_info=True)
        self._tell_waiters()

    def _settle(self, until_s: float | None) -> None:
        ledger = self._books()
        now = self.now()
        self._settled_at_s = now
        self._note_wants()
        guard = 0.0 if self._stepped is not None else GUARD_S
        figures = ledger.settle(now - guard, until_s=until_s)
        if ledger.open_calls or ledger.backlog or figures is not None:
            self._busy_s = now
        if figures is not None:
            self._progress_s = now
            self._deliver(figures)
            self._settled_at_s = self.now()
        if ledger.newest_s > self._event_s:
            self._event_s = ledger.newest_s
            if self._calm:
                self._hurry()
        for source in self.sources:
            if source.power_windows is not None and source.due_s == math.inf:
                source.plan(self.now(), self.interval_s)
        self.watch_pace()

    def linger_over(self) -> bool:
        """Return whether nothing is left to do, and stop being ready if so."""
        with self.alone() as alone:
            if not alone or self._backlog() or self._waiters or self.now() - self._busy_s < LINGER_S:
                return False
            if self._ledger is not None and self._ledger.open_calls:
                return False
            self.ready = False
            # A call may have come between the look at the queue and the line above.
            if self._backlog():
                self.ready = True
                return False
            return True

    def _behind(self) -> bool:
        return self._ledger is not None and self._ledger.behind

    def _backlog(self) -> int:
        return len(self.queue) if self._ledger is None else self._ledger.backlog

    def _books(self) -> Ledger:
        """Return the ledger; called alone."""
        if self._ledger is None:
            from aimeter._attribution.attribution import Ledger  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

            self._ledger = Ledger(self.traces, self.queue)
        return self._ledger

    # The sensors

    def _is_open(self) -> bool:
        """Return whether the sensors are found, those that are wanted by what selects them now."""
        return self._opened and not self._is_to_select()

    def _open(self) -> None:
        """Find the sensors and read them, once; GPUs again when others are selected."""
        if self._opened and not self._is_to_select():
            return
        self._find()
        if self._is_to_select():
            self._select()
        if self._opened:
            return
        for source in self.sources:
            self._read(source)
        self._busy_s = self.now()
        self._opened = True
        self._tell_waiters()

    def _find(self) -> None:
        with self._asking(self._search, OPEN_TIMEOUT_S) as granted:
            if self._found or not granted:
                return
            sensors, self.findings = self._ask_for(self._discover)
            self._add(sensors)
            self._found = True
        self._tell_findings(self.findings)

    def _ask_for(
        self, discover: Callable[[], tuple[list[Sensor], list[Finding]]]
    ) -> tuple[list[Sensor], list[Finding]]:
        try:
            sensors, findings = discover()
            self._calibrated |= self._calibrations(sensors)
        except BaseException as error:  # noqa: BLE001 - whatever drivers and kernels answer, the program goes on
            self.complain("search", f"looking for sensors raised {error!r}: nothing is metered.")
            return [], []
        return sensors, findings

    def _add(self, sensors: list[Sensor]) -> list[Source]:
        """Use sensors from now on, but for those whose devices others cover already."""
        beside = [_beside(sensor) for sensor in sensors]
        with self.alone(-1):
            added = [Source(sensor=sensor) for sensor in sensors]
            sources = [*self.sources, *added]
            counters = zip(added, beside, strict=True)
            sources += [Source(sensor=one, counter=counter) for counter, one in counters if one]
            self.sources = sources
            covered = {kind for one in sources for channel in one.sensor.channels for kind in channel.covers}
            self._trace_all()
        for source in sources:
            kinds = {channel.kind for channel in source.sensor.channels if not channel.covers}
            if kinds and kinds <= covered:
                self._withdraw(source)
        return added

    def _tell_findings(self, findings: list[Finding]) -> None:
        for finding in findings:
            if finding.status not in {"used", "unused"}:
                logger.info("%s %s: %s %s", finding.source, finding.subject, finding.detail, finding.remedy)

    # GPUs, which are found when they are wanted

    def _note_wants(self, newest: int | None = None) -> None:
        """Take note of a queued call that may use GPUs, among all or so many of the newest."""
        if self._gpus is None or self._gpus_wanted:
            return
        queue = self.queue
        with suppress(IndexError):  # the queue is being emptied
            events = (
                list(queue) if newest is None else [queue[-1 - k] for k in range(min(newest, len(queue)))]
            )
            self._gpus_wanted = any(map(_may_use_gpus, events))

    def _is_to_select(self) -> bool:
        """Return whether GPUs are wanted and not found yet, or others are selected than those in use."""
        if self._gpus is None or not self._gpus_wanted:
            return False
        if self._gpus_unsought and not none_can_be_opened():
            return True
        return self._gpus_state is None or self._gpus.state() != self._gpus_state

    def _select(self) -> None:
        """Use the GPUs that are selected now, and those alone."""
        gpus = self._gpus
        with self._asking(self._search, OPEN_TIMEOUT_S) as granted:
            if gpus is None or not granted:
                return
            self._gpus_state = gpus.state()
            self._gpus_unsought = none_can_be_opened()
            if self._gpus_unsought:
                self.complain("files", "no more files can be opened: GPUs are looked for when they can.")
                self._tell_waiters()
                return
            sensors, findings = self._ask_for(gpus.find)
            used = {
                channel.device: source for source in self._gpu_sources for channel in source.sensor.channels
            }
            chosen = {channel.device for sensor in sensors for channel in sensor.channels}
            fresh = [s for s in sensors if not any(channel.device in used for channel in s.channels)]
            for sensor in sensors:
                if sensor not in fresh:
                    sensor.close()
            for device, source in used.items():
                if device not in chosen:
                    self._withdraw(source)
            added = self._add(fresh)
            self._gpu_sources = [one for one in [*self._gpu_sources, *added] if one in self.sources]
            sources = {finding.source for finding in findings}
            self.findings = [*findings, *(one for one in self.findings if one.source not in sources)]
        for source in added:
            self._read(source)
        self._tell_findings(findings)
        self._tell_waiters()

    def _withdraw(self, source: Source) -> None:
        """Use a sensor no more: it is not among those that meter this process, and rows do not miss it."""
        with self.alone(-1):
            dropped = [source, *(one for one in self.sources if one.counter is source)]
            self.sources = [one for one in self.sources if one not in dropped]
            for trace in [*source.past.values(), *source.traces]:
                trace.withdraw()
        for one in dropped:
            _worker.release(one)

    def _calibrations(self, sensors: list[Sensor]) -> dict[Channel, Calibration | None]:
        from aimeter._curve.calibration import Calibrations, path_of  # noqa: PLC0415 - looked at once there are sensors

        stored = Calibrations(path_of(self._calibration))
        return {channel: stored.of(channel) for sensor in sensors for channel in sensor.channels}

    def _trace_all(self) -> None:
        from aimeter._curve.power_windows import PowerWindows  # noqa: PLC0415 - loads NumPy, which importing aimeter must not
        from aimeter._curve.trace import Trace  # noqa: PLC0415 - the same

        for source in self.sources:
            if source.traces or source.power_windows is not None:
                continue
            if source.counter is not None:
                trace = source.counter.traces[0]
                if trace.channel.quantity == "energy":  # it may have fallen back to a power
                    source.power_windows = PowerWindows(
                        source.sensor.channels[0], trace.curve, self.interval_s
                    )
                continue
            source.traces = [
                Trace(channel, self.interval_s, self._calibrated.get(channel))
                for channel in source.sensor.channels
            ]
            source.past = dict(zip(source.sensor.channels, source.traces, strict=True))
            self.traces.extend(source.traces)

    def pace(self, interval_s: float) -> None:
        """Read at this interval from now on."""
        self.interval_s = interval_s
        for trace in self.traces:
            trace.readings.interval_s = interval_s
        for source in self.sources:
            source.due_s = -math.inf
            if source.power_windows is not None:
                source.power_windows.interval_s = interval_s

    def _asking(self, question: Question, patience_s: float = SILENCE_S) -> AbstractContextManager[bool]:
        return (
            nullcontext(enter_result=True)
            if self._stepped is not None
            else _worker.asking(self, question, patience_s)
        )

    def _read(self, source: Source) -> None:
        """Ask one sensor, if it is this thread's turn, and take what it answers."""
        with self._asking(source) as granted:
            if not granted:
                return
            if source.gone:
                self._try_again(source)
            readings = self._answer(source)
        died = []
        with self.alone(-1):
            if source.power_windows is not None and readings:
                source.power_windows.take(readings[0])
            for trace, reading in zip(source.traces, readings, strict=False):
                was_alive = trace.alive
                trace.take(reading)
                if was_alive and not trace.alive:
                    died.append(trace)
        for trace in died:
            if not self._fall_back(source, trace):
                self._mourn(trace)
        source.plan(self.now(), self._pace_s())

    def _answer(self, source: Source) -> list[Reading]:
        from aimeter.sensors.base import Outcome, Reading, heard  # noqa: PLC0415 - importing aimeter loads no sensors

        sensor = source.sensor
        try:
            if source.inherited:
                source.inherited = False
                sensor.reopen()
            answer = sensor.read()
            return heard(answer, max(len(source.traces), 1), self.now(), type(sensor).__name__)
        except BaseException as error:  # noqa: BLE001 - the one boundary: a sensor by somebody else may raise anything
            now, reason = self.now(), f"{type(sensor).__name__} raised {error!r}"
            return [Reading(now, now, Outcome.GONE, None, reason) for _ in range(max(len(source.traces), 1))]

    def _try_again(self, source: Source) -> None:
        """Take a sensor up again that had said that it will not answer any more: drivers are reset, files come back."""
        sensor = source.sensor
        try:
            sensor.reopen()
            retake: Callable[[], bool] | None = getattr(sensor, "retake", None)
            if retake is not None:
                retake()
        except BaseException as error:  # noqa: BLE001 - a sensor by somebody else may raise anything
            logger.debug("taking up %s again raised %r", type(sensor).__name__, error)
        if sensor.channels:
            self._trace_anew(source)
        for trace in source.traces:
            trace.health.gone = trace.health.barred

    def _trace_anew(self, source: Source) -> None:
        """Follow the channels that a sensor has now; what is known of one that it had before is used again."""
        from aimeter._curve.trace import Trace  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

        swing_w = max((trace.curve.swing_w for trace in source.traces), default=0.0)
        with self.alone(-1):
            known = set(source.past)
            for channel in source.sensor.channels:
                if channel not in known:
                    source.past[channel] = trace = Trace(channel, self.interval_s, swing_w=swing_w)
                    for other in source.traces:
                        if (other.channel.id, other.channel.covers) == (channel.id, channel.covers):
                            trace.inherit(other)
                    self.traces.append(source.past[channel])
            source.traces = [source.past[channel] for channel in source.sensor.channels]

    def _fall_back(self, source: Source, trace: Trace) -> bool:
        """Go on with the next best way to read the device of a trace that died; False if there is none."""
        sensor, channel = source.sensor, trace.channel
        fall_back: Callable[[], bool] | None = getattr(sensor, "fall_back", None)
        if fall_back is None:
            return False
        with self._asking(source) as granted:
            if not granted or not fall_back():
                return False
        self.complain(
            f"fell-back-{channel.id}",
            f"{channel.id} ({channel.name}): its {sensor.channels[0].method} is used instead of its "
            f"{channel.method}. {trace.reason}",
        )
        with self.alone(-1):
            trace.health.gone = True
            self._trace_anew(source)
            for other in self.sources:
                if other.counter is source:
                    other.power_windows = None
        return True

    def _note_silence(self, source: Source) -> None:
        """Go on without a sensor for whose answer another thread has been waiting for too long."""
        if not source.overdue:
            return
        reason = f"has not answered for {SILENCE_S:g} s"
        with self.alone(-1):
            silent = [trace for trace in source.traces if trace.alive]
            for trace in silent:
                trace.fall_silent(reason)
            if source.power_windows is not None:
                source.power_windows.resume()
        for trace in silent:
            self._mourn(trace)

    def _mourn(self, trace: Trace) -> None:
        """Say once that a channel died."""
        channel = trace.channel
        self.complain(
            f"died-{channel.id}",
            f"{channel.id} ({channel.name}) is not metered any more: {trace.reason}. "
            "Rows say so in `coverage`; `aimeter doctor` looks for the cause.",
        )

    def complain(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""
        warn_once(message, key, said=self._complained)

    # Asked by meters

    def deliver_to(self, deliver: Callable[[Figures], None]) -> None:
        """Hand settled figures to `deliver`, alone."""
        self._deliver = deliver

    def flush(self, timeout_s: float) -> None:
        """Settle every call that has ended, waiting for the sensors up to `timeout_s`; then without them."""
        target = self.now()
        with self.alone(min(timeout_s, _PATIENCE_S)) as alone:
            if alone and not self._backlog():
                return
        began_s = self.now()
        while not self.wait_for(lambda: self._settled_up_to(target), timeout_s):
            if self._progress_s <= began_s:
                self.settle(until_s=target, timeout_s=BOOKS_TIMEOUT_S)
                if self._progress_s <= began_s:
                    return
            began_s = self.now()

    def refresh(self, timeout_s: float) -> bool:
        """Read every sensor now, waiting up to `timeout_s` for it; return whether that was long enough."""
        if self._stepped is not None:
            self._open()
            for source in self.sources:
                self._read(source)
            return True
        target = self.now()
        return self.wait_for(lambda: self._refreshed_s >= target, timeout_s)

    def so_far(
        self, calls: list[Call], timeout_s: float
    ) -> list[tuple[list[float | None], list[float | None]] | None]:
        """Return the joules of open calls by trace, share and window; None for one that is not open.

        Waits up to `timeout_s` for a reading of every sensor.
        """
        if self._stepped is None:  # until the newest is in the books
            time.sleep(max(max(call.start_s for call in calls) + GUARD_S - self.now(), 0.0))
        if not self.refresh(timeout_s) or self._stepped is not None:
            self.settle(timeout_s=_PATIENCE_S)
        with self.alone() as alone:
            if not alone:
                return [None] * len(calls)
            ledger, now = self._books(), self.now()
            return [ledger.so_far(call, now) for call in calls]

    def open_calls(self) -> list[Call]:
        """Return the calls that were open when calls were settled last."""
        with self.alone() as alone:
            return self._books().calls_open() if alone else []

    def unattributed_j(self) -> list[float]:
        """Return the energy of each trace that was drawn while no call was open."""
        with self.alone():
            lost = [trace.unclaimed_j for trace in self.traces]
            drawn = [] if self._ledger is None else self._ledger.unattributed_j
            return [a + b for a, b in zip(lost, [*drawn, *[0.0] * (len(lost) - len(drawn))], strict=True)]

    def _settled_up_to(self, target_s: float) -> bool:
        return self._ledger is not None and self._ledger.settled_s >= target_s

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done`, which is asked after every settling, for at most `timeout_s`; return whether it is."""
        if self._stepped is not None:
            return self._step_until(done, self._stepped, timeout_s)
        if done():
            return True
        self._refresh_s = self.now()
        self.attend()
        return self._wait(done, timeout_s)

    def _step_until(self, done: Callable[[], bool], clock: SteppedClock, timeout_s: float) -> bool:
        self._open()
        spent_s = 0.0
        while not done() and spent_s < timeout_s:
            clock.advance(self.interval_s / 5)
            self.settle()
            spent_s += self.interval_s / 5
        return done()

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        interrupted = self._interrupted() or _worker.is_held_here()
        if interrupted or self.unattended or _worker.is_here() or not _worker.is_working():
            return done()  # there is nobody to wait for
        # Unlike an Event, a SimpleQueue may be used by whatever interrupts its use.
        news: SimpleQueue[None] = SimpleQueue()
        waiter = (done, lambda: news.put(None))
        self._waiters.append(waiter)
        try:
            _worker.ring()
            if not done():
                with suppress(Empty):
                    news.get(timeout=timeout_s)
            return done()
        finally:
            self._waiters.remove(waiter)

    def _tell_waiters(self) -> None:
        for done, tell in list(self._waiters):
            if done():
                tell()

    def retire(self) -> None:
        """Have no thread serve this sampler any more; calls that come all the same look after themselves."""
        self.unattended = True
        self.ready = False
        _worker.leave(self)

    def close(self) -> None:
        """Stop reading and release the sensors."""
        self.retire()
        sources, self.sources = self.sources, []
        for source in sources:
            _worker.release(source)

    def let_go(self) -> None:
        """Release what the sensors hold, until a call comes: nobody meters with them for now."""
        with self.alone() as alone:
            if not alone or self._backlog() or (self._ledger is not None and self._ledger.open_calls):
                return
            self._let_go, self.ready = True, False
        for source in self.sources:
            source.inherited = True
            _worker.release(source)

    def after_fork(self) -> None:
        """In a forked child: start afresh; open calls, queue and figures are the parent's business."""
        self._begin()
        self.traces = []
        if not self._found:
            return
        for source in self.sources:
            source.traces, source.past, source.power_windows = [], {}, None
        self._trace_all()
        for source in self.sources:
            source.inherited, source.asked_s = True, None


def _may_use_gpus(event: Call | Pause) -> bool:
    """Return whether a call may use GPUs: it names none, or more than the CPU and its memory."""
    if isinstance(event, tuple):
        return False
    devices = event.devices
    return devices is None or any(not name.startswith(("cpu", "dram")) for name in devices)


def _beside(sensor: Sensor) -> Sensor | None:
    """Return the sensor that tells more of a sensor's counter, if it has one that works."""
    beside: Callable[[], Sensor | None] | None = getattr(sensor, "beside", None)
    try:
        return None if beside is None else beside()
    except BaseException as error:  # noqa: BLE001 - a sensor by somebody else may raise anything; nothing is lost
        logger.debug("%s has nothing beside it: %r", type(sensor).__name__, error)
        return None


_worker = Worker()
_samplers: weakref.WeakSet[Sampler] = weakref.WeakSet()


def retire_all() -> None:
    """Have no thread serve any sampler any more: the interpreter is about to end."""
    for sampler in list(_samplers):
        sampler.retire()


def _after_fork_in_child() -> None:
    _worker.after_fork()
    for sampler in list(_samplers):
        sampler.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
