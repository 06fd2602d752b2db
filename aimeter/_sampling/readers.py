"""The sensors that are read, and what is known of their channels: asks each when it is due, and goes on without those that fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._sampling.source import SILENCE_S, Source
from aimeter._support.log import logger
from aimeter._support.notes import class_name, raised

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aimeter._curve.calibration import Calibration
    from aimeter._curve.trace import Trace
    from aimeter._sampling.lock import StateLock
    from aimeter._sampling.pace import Pace
    from aimeter._sampling.protocols import Driver
    from aimeter.sensors.base import Channel, Clock, Finding, Kind, Reading, Sensor

_SLACK_S = 0.002
"""Sensors due within this time of each other are read in one go."""

_FOUND_HERE = "aimeter.sensors."
"""Sensors of these modules are those that `aimeter doctor` knows; a program may hand over others."""


class Readers:
    """See the module's description.

    Args:
        calibration: The setting of that name: where idle powers measured on purpose are kept.
        now: Monotonic seconds.
        pace: How often to read.
        lock: Held while traces are changed.
        driver: Lets one thread at a time ask a sensor.
        warn_once: Logs a warning, once for each key.

    Attributes:
        traces: What is known of every channel so far, in the order in which they came; changed alone.
        sources: The sensors that are read.
        covered: What is to be told of those that are not, as the figure of another covers their devices.
    """

    def __init__(
        self,
        calibration: Path | str,
        *,
        now: Clock,
        pace: Pace,
        lock: StateLock,
        driver: Driver,
        warn_once: Callable[[str, str], None],
    ) -> None:
        self.traces: list[Trace] = []
        self.sources: list[Source] = []
        self.covered: list[Finding] = []
        self._calibration = calibration
        self._calibrated: dict[Channel, Calibration | None] = {}
        self._now, self._pace, self._lock, self._driver = now, pace, lock, driver
        self._warn_once = warn_once

    # Which sensors

    def look_up(self, sensors: list[Sensor]) -> None:
        """Look up what a calibration knows of sensors that are to be added."""
        from aimeter._curve.calibration import Calibrations, path_of  # noqa: PLC0415 - looked at once there are sensors

        stored = Calibrations(path_of(self._calibration))
        self._calibrated |= {channel: stored.of(channel) for sensor in sensors for channel in sensor.channels}

    def add(self, sensors: list[Sensor]) -> list[Source]:
        """Use sensors from now on, but for those whose devices others cover already."""
        beside = [_beside(sensor) for sensor in sensors]
        with self._lock.alone(-1):
            added = [Source(sensor=sensor) for sensor in sensors]
            sources = [*self.sources, *added]
            counters = zip(added, beside, strict=True)
            sources += [Source(sensor=one, counter=counter) for counter, one in counters if one]
            self.sources = sources
            channels = [channel for one in sources for channel in one.sensor.channels]
            covered = {kind: channel.id for channel in channels for kind in channel.covers}
            self._trace_all()
        for source in sources:
            kinds = {channel.kind for channel in source.sensor.channels if not channel.covers}
            if kinds and kinds <= covered.keys():
                self.withdraw(source)
                if source.counter is None:
                    self.covered += _left_out(source.sensor, covered)
        return added

    def withdraw(self, source: Source) -> None:
        """Use a sensor no more: it is not among those that meter this process, and rows do not miss it."""
        with self._lock.alone(-1):
            dropped = [source, *(one for one in self.sources if one.counter is source)]
            self.sources = [one for one in self.sources if one not in dropped]
            for trace in [*source.past.values(), *source.traces]:
                trace.withdraw()
        for one in dropped:
            self._driver.release(one)

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
                        source.sensor.channels[0], trace.curve, self._pace.interval_s
                    )
                continue
            source.traces = [
                Trace(channel, self._pace.interval_s, self._calibrated.get(channel))
                for channel in source.sensor.channels
            ]
            source.past = {trace.channel: trace for trace in source.traces}
            self.traces.extend(source.traces)

    def set_interval(self, interval_s: float) -> None:
        """Read at this interval from now on."""
        self._pace.interval_s = interval_s
        for trace in self.traces:
            trace.readings.interval_s = interval_s
        for source in self.sources:
            source.due_s = -math.inf
            if source.power_windows is not None:
                source.power_windows.interval_s = interval_s

    # When

    def resume(self) -> None:
        """Go on after a rest, in which nothing was read."""
        for trace in self.traces:
            trace.resume(self._now())
        for source in self.sources:
            if source.power_windows is not None:
                source.power_windows.resume()

    def hasten(self) -> None:
        """Have every counter read in the next round."""
        for source in self.sources:
            if source.counter is None:
                source.due_s = -math.inf

    def read_all(self) -> None:
        """Read every sensor."""
        for source in self.sources:
            self.read(source)

    def read_due(self, now_s: float, *, force: bool) -> None:
        """Read the sensors that are due, or all of them, but for those that have not answered yet."""
        for source in self.sources:
            if source.asked_s is not None:
                self._note_silence(source)
            elif force or source.due_s <= now_s + _SLACK_S:
                self.read(source)

    def due_s(self) -> list[float]:
        """Return when each sensor is due that is not being asked."""
        return [source.due_s for source in self.sources if source.asked_s is None]

    def plan_windows(self) -> None:
        """Have powers that tell more of a counter read again, now that it is known what there is to tell."""
        for source in self.sources:
            if source.power_windows is not None and source.due_s == math.inf:
                source.plan(self._now(), self._pace.interval_s)

    # Reading one

    def read(self, source: Source) -> None:
        """Ask one sensor, if it is this thread's turn, and take what it answers."""
        with self._driver.asking(source) as granted:
            if not granted:
                return
            if source.gone:
                self._try_again(source)
            readings = self._answer(source)
        died = []
        with self._lock.alone(-1):
            if source.power_windows is not None and readings:
                source.power_windows.take(readings[0])
            for trace, reading in zip(source.traces, readings, strict=False):
                was_alive = trace.alive
                trace.take(reading)
                if was_alive and not trace.alive:
                    died.append(trace)
        for trace in died:
            if not self._fall_back(source, trace):
                self._report_lost(source, trace)
        source.plan(self._now(), self._pace.counters_s())

    def _answer(self, source: Source) -> list[Reading]:
        from aimeter.sensors.base import Outcome, Reading, heard  # noqa: PLC0415 - importing aimeter loads no sensors

        sensor = source.sensor
        try:
            if source.inherited:
                source.inherited = False
                sensor.reopen()
            answer = sensor.read()
            return heard(answer, max(len(source.traces), 1), self._now(), class_name(type(sensor)))
        except BaseException as error:  # noqa: BLE001 - the one boundary: a sensor by somebody else may raise anything
            now, reason = self._now(), f"{class_name(type(sensor))} raised {raised(error)}"
            return [Reading(now, now, Outcome.GONE, None, reason) for _ in range(max(len(source.traces), 1))]

    def _try_again(self, source: Source) -> None:
        """Take a sensor up again that had said that it will not answer any more: drivers are reset, files come back."""
        from aimeter.sensors.base import Retakes  # noqa: PLC0415 - importing aimeter loads no sensors

        sensor = source.sensor
        try:
            sensor.reopen()
            if isinstance(sensor, Retakes):
                sensor.retake()
        except BaseException as error:  # noqa: BLE001 - a sensor by somebody else may raise anything
            logger.debug("taking up %s again raised %s", class_name(type(sensor)), raised(error))
        if sensor.channels:
            self._trace_anew(source)
        for trace in source.traces:
            trace.health.gone = trace.health.barred

    def _trace_anew(self, source: Source) -> None:
        """Follow the channels that a sensor has now; what is known of one that it had before is used again."""
        from aimeter._curve.trace import Trace  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

        swing_w = max((trace.curve.swing_w for trace in source.traces), default=0.0)
        with self._lock.alone(-1):
            known = set(source.past)
            for channel in source.sensor.channels:
                if channel not in known:
                    source.past[channel] = trace = Trace(channel, self._pace.interval_s, swing_w=swing_w)
                    for other in source.traces:
                        if (other.channel.id, other.channel.covers) == (channel.id, channel.covers):
                            trace.inherit(other)
                    self.traces.append(source.past[channel])
            source.traces = [source.past[channel] for channel in source.sensor.channels]

    def _fall_back(self, source: Source, trace: Trace) -> bool:
        """Go on with the next best way to read the device of a trace that died; False if there is none."""
        from aimeter.sensors.base import FallsBack  # noqa: PLC0415 - importing aimeter loads no sensors

        sensor, channel = source.sensor, trace.channel
        if not isinstance(sensor, FallsBack):
            return False
        with self._driver.asking(source) as granted:
            if not granted or not sensor.fall_back():
                return False
        self._warn_once(
            f"fell-back-{channel.id}",
            f"{channel.id} ({channel.name}): its {sensor.channels[0].method} is used instead of its "
            f"{channel.method}. {trace.reason}",
        )
        with self._lock.alone(-1):
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
        with self._lock.alone(-1):
            silent = [trace for trace in source.traces if trace.alive]
            for trace in silent:
                trace.fall_silent(reason)
            if source.power_windows is not None:
                source.power_windows.resume()
        for trace in silent:
            self._report_lost(source, trace)

    def _report_lost(self, source: Source, trace: Trace) -> None:
        """Say once that a channel died."""
        channel = trace.channel
        where = "Rows say so in `coverage`"
        if type(source.sensor).__module__.startswith(_FOUND_HERE):
            where += "; `aimeter doctor` looks for the cause"
        self._warn_once(
            f"died-{channel.id}",
            f"{channel.id} ({channel.name}) is not metered any more: {trace.reason}. {where}.",
        )

    # The end

    def close(self) -> None:
        """Read no sensor any more, and release them."""
        sources, self.sources = self.sources, []
        for source in sources:
            self._driver.release(source)

    def let_go(self) -> None:
        """Release what the sensors hold until they are read again."""
        for source in self.sources:
            source.inherited = True
            self._driver.release(source)

    def after_fork(self, *, found: bool) -> None:
        """In a forked child: forget what was read, and reopen the sensors if they were found."""
        self.traces = []
        if not found:
            return
        for source in self.sources:
            source.traces, source.past, source.power_windows = [], {}, None
        self._trace_all()
        for source in self.sources:
            source.inherited, source.asked_s = True, None


def _left_out(sensor: Sensor, covered: dict[Kind, str]) -> list[Finding]:
    """Return what is to be told of a sensor whose kinds of devices others cover, which are given by their ids."""
    from aimeter.sensors.base import Finding  # noqa: PLC0415 - importing aimeter loads no sensors

    return [
        Finding(
            channel.source,
            f"{channel.id} {channel.name}",
            "unused",
            f"It works, but the figure of {covered[channel.kind]} covers the {channel.kind}.",
        )
        for channel in sensor.channels
        if not channel.covers
    ]


def _beside(sensor: Sensor) -> Sensor | None:
    """Return the sensor that tells more of a sensor's counter, if it has one that works."""
    from aimeter.sensors.base import Accompanied  # noqa: PLC0415 - importing aimeter loads no sensors

    try:
        return sensor.beside() if isinstance(sensor, Accompanied) else None
    except BaseException as error:  # noqa: BLE001 - a sensor by somebody else may raise anything; nothing is lost
        logger.debug("%s has nothing beside it: %s", class_name(type(sensor)), raised(error))
        return None
