"""Measure on purpose what metering otherwise learns by and by: idle powers, and the periods of the sensors.

First every sensor is read quickly, to see when its values change. Then it is read as in metering, for some
seconds, and what the devices draw meanwhile is their idle power. So that includes what metering itself costs.
Last, if a load is given, the ends of calls of it show how late the sensors are and how far back they look.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import psutil
from rich.table import Table
from rich.text import Text

from aimeter import settings as settings_module
from aimeter._curve.calibration import MAX_AGE_S, Calibration, path_of, store, this_machine
from aimeter._curve.update_times import Interval
from aimeter._support.clocks import time
from aimeter._support.units import printable, quantity
from aimeter.calibration.load import Load, load_named, not_learned, run_calls
from aimeter.calibration.rest import Rest, Steps, not_at_rest, rest_of, steps_of
from aimeter.errors import ConfigurationError
from aimeter.meter import Meter
from aimeter.sensors.base import Channel, Clock, Outcome, Reading, Sensor
from aimeter.sensors.discover import discover
from aimeter.sensors.estimate import busy_s

if TYPE_CHECKING:
    from rich.console import Console

    from aimeter._curve.response_fit import Estimate, Ramp
    from aimeter._curve.trace import Trace
    from aimeter._sampling.protocols import SteppedClock

ALL, SOME, NONE = 0, 1, 2
"""Exit statuses: every channel was measured; some were; none was."""

_LOOKS = 16
"""Readings in each of a sensor's periods while its changes are looked for."""

_STEPS = 24
"""Periods in which they are looked for, if that is not too short or too long a time."""
_LEAST_LOOK_S, _MOST_LOOK_S = 0.2, 5.0
_LEAST_PAUSE_S = 1e-4

_STEP_S = 0.1

Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What calibrating came to.

    Attributes:
        path: The file that it was stored in; None if there was nothing to store.
        seconds: How long the devices were watched at rest.
        channels: What was measured.
        problems: What could not be, and why.
        exit_status: `ALL`, `SOME` or `NONE`.
    """

    path: Path | None
    seconds: float
    channels: tuple[Calibration, ...]
    problems: tuple[str, ...]
    exit_status: int


def calibrate(
    seconds: float, arguments: Mapping[str, object], progress: Progress = iter, *, load: str | None = None
) -> Outcomes:
    """Measure all sensors of this machine and store what they show.

    Args:
        seconds: How long to watch the devices at rest.
        arguments: Settings given as options.
        progress: Shows the steps of the time as they pass, as `rich.progress.track` does.
        load: ``MODULE:FUNCTION`` or ``auto``: what to load the devices with, so as to learn latencies and windows.

    Raises:
        ConfigurationError: A setting or the load is unusable, or the calibration cannot be stored.
    """
    settings = settings_module.load(arguments)
    path = path_of(settings.calibration)
    if path is None:
        message = (
            "The setting calibration is 'off': no calibration would be used. Set AIMETER_CALIBRATION=auto."
        )
        raise ConfigurationError(message)
    with _told_if_not_written(path):
        _try_to_write(path)
    function = None if load is None else load_named(load)

    def keep(measured: Iterable[Calibration]) -> None:
        with _told_if_not_written(path):
            store(path, this_machine(), measured)

    sensors = discover(powercap=settings.powercap).sensors
    measured, problems = measure_at_rest(
        sensors, seconds, {**arguments, "log": None}, progress=progress, load=function, keep=keep
    )
    if measured:
        keep(measured)
    status = NONE if not measured else SOME if problems else ALL
    return Outcomes(path if measured else None, seconds, tuple(measured), tuple(problems), status)


@contextmanager
def _told_if_not_written(path: Path) -> Iterator[None]:
    """Make an error of the system one that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        message = f"{path} cannot be written: {reason}. Choose another file: AIMETER_CALIBRATION=FILE"
        raise ConfigurationError(message) from error


def _try_to_write(path: Path) -> None:
    """Make the folder of a file, and a file in it that is gone at once.

    Raises:
        OSError: The file could not be written there.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=path.parent):
        pass


def measure_at_rest(
    sensors: Sequence[Sensor],
    seconds: float,
    settings: Mapping[str, object],
    *,
    clock: Clock | SteppedClock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    cpu_s: Callable[[], float] = lambda: busy_s(psutil.cpu_times()),
    progress: Progress = iter,
    load: Load | None = None,
    keep: Callable[[Iterable[Calibration]], object] = lambda _: None,
) -> tuple[list[Calibration], list[str]]:
    """Watch sensors while nothing runs, then under a load if one is given; return what was seen, and what could not be.

    Args:
        sensors: The sensors; closed in the end.
        seconds: How long to watch.
        settings: Settings of the meter that reads them.
        clock: The meter's clock.
        sleep: Waits.
        cpu_s: Returns the seconds for which the machine's CPUs together have been busy.
        progress: Shows the steps of the time, and the calls of the load.
        load: A function that loads the devices.
        keep: Keeps what was seen while nothing ran, before the load is called: that may be the end of the process.
    """
    changes: dict[Channel, list[Interval]] = {}
    for sensor in sensors:
        changes |= watch_changes(sensor, clock, sleep)
    quiet = {"enabled": True, "memory_rows": 0, "calibration": "off", "summary": False}
    quiet["sync"] = "off" if load is None else "auto"
    measured: dict[Channel, Calibration] = {}
    problems: list[str] = []
    with Meter(sensors=sensors, clock=clock, **{**settings, **quiet}) as meter:  # type: ignore[arg-type]
        with meter.track("calibrate"):
            began_s, used_s = clock(), cpu_s()
            for _ in progress(range(round(seconds / _STEP_S))):
                sleep(_STEP_S)
            busy = (cpu_s() - used_s) / (clock() - began_s) / (psutil.cpu_count() or 1)
        meter.flush()
        seen = meter.sampler.snapshot(lambda traces: [(one.channel, *_rest(one, busy)) for one in traces])
        for channel, rest, fault in seen:
            if fault or rest is None:
                problems.append(f"{channel.id} ({channel.name}) is not calibrated: {fault}.")
            else:
                measured[channel] = _calibration(channel, rest, steps_of(changes.get(channel, [])))
        if load is not None and measured:
            keep(measured.values())
            fault = run_calls(meter, load, clock=clock, sleep=sleep, progress=progress)
            meter.flush()
            learned = meter.sampler.snapshot(
                lambda traces: [
                    (one.channel, not_learned(one, fault), one.conclude())
                    for one in traces
                    if one.channel in measured  # not one that has taken over from another meanwhile
                ]
            )
            for channel, reason, ramp in learned:
                problems += [reason] if reason else []
                measured[channel] = _with_ramp(measured[channel], ramp)
    return list(measured.values()), problems


def _rest(trace: Trace, busy: float) -> tuple[Rest | None, str]:
    """Return what a channel drew at rest, and why that is of no use; empty if it is."""
    times_s = trace.curve.knots[0]
    points = trace.curve.at(times_s)
    rest = rest_of(times_s, points.energy_j, points.covered_s)
    return rest, trace.reason if not trace.alive else not_at_rest(trace.channel, rest, busy)


def _with_ramp(one: Calibration, ramp: Ramp | None) -> Calibration:
    """Add what was learned of a channel to its calibration."""
    if ramp is None:
        return one
    latency, window = ramp
    if latency is not None:
        one = replace(one, latency_s=latency.value_s, latency_error_s=latency.error_s)
    if window is not None:
        one = replace(one, window_s=window.value_s, window_error_s=window.error_s)
    return one


def _calibration(channel: Channel, rest: Rest, steps: Steps | None) -> Calibration:
    return Calibration(
        id=channel.id,
        source=channel.source,
        method=channel.method,
        device=channel.device,
        name=channel.name,
        idle_w=rest.idle_w,
        spread_w=rest.spread_w,
        period_s=None if steps is None else steps.period_s,
        jitter_s=None if steps is None else steps.jitter_s,
        measured_s=time.time(),
    )


def watch_changes(
    sensor: Sensor, clock: Clock, sleep: Callable[[float], object]
) -> dict[Channel, list[Interval]]:
    """Read a sensor quickly, and return when each channel's value was seen to change."""
    periods_s = [channel.period_s for channel in sensor.channels]
    if not periods_s:
        return {}
    until_s = clock() + min(max(_STEPS * max(periods_s), _LEAST_LOOK_S), _MOST_LOOK_S)
    pause_s = max(min(periods_s) / _LOOKS, _LEAST_PAUSE_S)
    changes: dict[Channel, list[Interval]] = {channel: [] for channel in sensor.channels}
    last: dict[Channel, Reading] = {}
    while clock() < until_s:
        for channel, reading in zip(sensor.channels, sensor.read(), strict=False):
            if reading.outcome is not Outcome.OK:
                continue
            before = last.get(channel)
            if before is not None and before.value != reading.value:
                changes[channel].append(Interval(before.before_s, reading.after_s))
            last[channel] = reading
        sleep(pause_s)
    return changes


def show(outcomes: Outcomes, console: Console) -> None:
    """Print what was measured, and where it is."""
    if outcomes.channels:
        console.print(Text(f"Idle power, over {outcomes.seconds:g} s", style="bold"))
        console.print(_table(outcomes.channels))
    for problem in outcomes.problems:
        console.print(Text(f"  {printable(problem)}", style="yellow"), soft_wrap=True)
    if outcomes.path is None:
        console.print(Text("Nothing could be measured. See `aimeter doctor`.", style="bold red"))
    else:
        days = f"{MAX_AGE_S / 86400:.0f} days"
        line = f"Stored in {outcomes.path}; used on this machine for {days}."
        console.print(Text(printable(line), style="bold"), soft_wrap=True)


def _table(channels: Sequence[Calibration]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "device", "measured by"):
        table.add_column(title, overflow="fold")
    for title in ("idle", "renewed every"):
        table.add_column(title, justify="right", no_wrap=True)
    learned = [title for title in ("latency", "window") if any(getattr(one, title) for one in channels)]
    for title in learned:
        table.add_column(title, justify="right", no_wrap=True)
    for one in channels:
        idle = quantity(one.idle_w, "W", one.spread_w)
        period = "" if one.period_s is None else quantity(one.period_s, "s", one.jitter_s, largest=0)
        more = [_estimate(getattr(one, title)) for title in learned]
        cells = (f"  {one.id}", printable(one.name), f"{one.source} {one.method}", idle, period, *more)
        table.add_row(*map(Text, cells))
    return table


def _estimate(known: Estimate | None) -> str:
    return "" if known is None else quantity(known.value_s, "s", known.error_s, largest=0)
