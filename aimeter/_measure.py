"""The energy of one call of a function that is far shorter than any sensor's step: repeat it until it is known.

Repetitions are grouped in batches, each of them one metered call that is long enough for the sensors, and
batches follow each other without a pause in one call around them. So what a sensor's steps leave open is the
two ends of the whole, however many batches lie between, and how the batches differ from each other tells the
rest: chance in the function, in the devices and in the sensors alike.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from aimeter._calls.decorate import name_of
from aimeter._support.public import public
from aimeter._support.statistics import Drift, Mean, calibration_of, drift, error_j2, mean_of
from aimeter._support.units import quantity

if TYPE_CHECKING:
    from aimeter._calls.call import Call
    from aimeter.meter import Meter
    from aimeter.record import Record

_FEWEST = 8
"""Batches from which their scatter is first judged."""

_CONFIDENCE = 0.97
"""Confidence of the interval from the batches' scatter. Who looks again and again whether the scatter is small
enough yet stops when it happens to look small: normal noise, looked at after each batch from the eighth on, lies
inside a 95 % interval in 93 % of cases, and inside this one in 95 % (by simulation; Chow and Robbins 1965,
doi:10.1214/aoms/1177700156, for long series)."""

_PERIODS = 4
"""Updates of the slowest sensor in a batch."""

_WINDOWS = 2
"""Averaging windows of the slowest sensor in a batch."""

_SHORTEST_BATCH_S = 0.1
"""Batches are at least this long, so that metering them costs nothing and the log has few rows."""

_STEADY = 0.1
"""Warm-up is over when the time of a repetition has changed by less than this part."""

_WARM_UP_PART = 0.25
"""Warm-up takes no more than this part of the time limit, steady or not."""

_STANDS_STILL = 10_000
"""So many repetitions take some time on any clock that moves."""


_JOULES = ("energy_j", "error_j", "interval_j", "resolution_j", "calibration_j", "idle_j")


@public
@dataclass(frozen=True, slots=True)
class Measurement:
    """What one call of a function takes, from many of them.

    Attributes:
        name: What was measured.
        energy_j: Mean joules of one call; None if no meter works, and then every other figure in joules is.
        error_j: 95 % half-width of `energy_j`: resolution and calibration together.
        interval_j: The interval that follows, from low to high.
        resolution_j: 95 % half-width of the mean: what the sensors' steps leave open, and the scatter of the
            batches. More repetitions make it smaller. Infinite if there was time for one batch only.
        calibration_j: 95 % half-width of the sensors' calibration, which no repetition makes smaller and
            which cancels when two measurements on one machine are compared.
        idle_j: The part of `energy_j` that the devices would have drawn anyway; None until an idle power is known.
        duration_s: Mean seconds of one call.
        repetitions: Calls that the means are of, without the warm-up.
        batches: In how many metered batches they were made.
        relative_error: The wanted half-width of the mean, as a part of it.
        reached: Whether `resolution_j` is within that.
        drift: How the mean power changed from the first batch to the last, as temperature and clocks make it; None
            for a few batches only.
        coverage: Least part of the time that every metered device's curve really covers, 0 to 1.
        methods: How each kind of device was measured: ``{"gpu": "counter"}``; "" for ``other``, as rows do not say how.
    """

    name: str
    energy_j: float | None
    error_j: float | None
    interval_j: tuple[float, float] | None
    resolution_j: float | None
    calibration_j: float | None
    idle_j: float | None
    duration_s: float
    repetitions: int
    batches: int
    relative_error: float
    reached: bool
    drift: Drift | None
    coverage: float
    methods: Mapping[str, str]

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"

    def __str__(self) -> str:
        times = "repetition" if self.repetitions == 1 else "repetitions"
        made = f"{quantity(self.duration_s, 's', largest=0)} a call, {self.repetitions} {times} in {self.batches} "
        made += "batch" if self.batches == 1 else "batches"
        if self.energy_j is None or self.error_j is None or self.resolution_j is None:
            return f"{self.name}: energy unknown (see `aimeter doctor`), {made}."
        how = ", ".join(f"{kind} {method}".rstrip() for kind, method in self.methods.items())
        if math.isinf(self.error_j):
            energy = f"{quantity(self.energy_j, 'J')} ± unknown"
        else:
            energy = quantity(self.energy_j, "J", self.error_j)
        remarks = []
        if not self.reached:
            got = self.resolution_j / self.energy_j if self.energy_j else math.inf
            reached = "how far by chance is unknown" if math.isinf(got) else f"±{got:.1%} by chance"
            remarks.append(f"{reached}, not the ±{self.relative_error:.1%} wanted")
        if self.drift is not None and self.drift.significant:
            remarks.append(f"its power drifted by {self.drift.relative:+.1%} ± {self.drift.error:.1%}")
        if self.coverage < 1:
            remarks.append(f"only {self.coverage:.0%} of the time covered")
        return (
            "; ".join([f"{self.name}: {energy} a call ({how}), {made.replace(' a call', '', 1)}", *remarks])
            + "."
        )


@public
def measure(
    fn: Callable[..., object],
    /,
    *args: object,
    relative_error: float = 0.05,
    time_limit_s: float = 30.0,
    warm_up: int = 1,
    name: str | None = None,
    meter: Meter | None = None,
    **kwargs: object,
) -> Measurement:
    """Repeat ``fn(*args, **kwargs)`` until the joules of one call are known, and return them.

    A warm-up is dropped: the first repetition, and more until their time is steady, for at most a quarter of
    `time_limit_s`. What `fn` returns is thrown away; what it raises passes through. The log gets a row for the
    warm-up, one for all repetitions together and, inside it, one for each batch, with the repetitions as `items`.

    Measure one function at a time: power is shared among all calls that are open.

    Args:
        fn: The function. It must have done its work when it returns: to measure a coroutine function, give one
            that runs it, ``lambda: asyncio.run(f(x))``; for a generator, ``lambda: list(f(x))``. Work queued on a
            GPU is waited for at the end of a batch, as for any call.
        *args: Its arguments. A keyword argument that is called like one of those below goes in a lambda.
        relative_error: Wanted 95 % half-width of the mean as a part of it, above 0 and below 1; calibration not
            included.
        time_limit_s: No batch begins after so many seconds, warm-up included; one always does.
        warm_up: At least so many repetitions are dropped, 1 or more, if the time limit allows.
        name: Name of the measurement and its rows; by default the function's.
        meter: The meter to use; by default the default one.
        **kwargs: The function's keyword arguments.

    Raises:
        TypeError: `fn` is no function, or returned a coroutine or generator, whose work had not been done; or
            another argument is of a wrong type.
        ValueError: An argument is out of range.
    """
    _check(fn, relative_error, time_limit_s, warm_up)
    if name is not None and not isinstance(name, str):
        message = f"name must be text, not {name!r}"
        raise TypeError(message)
    if meter is None:
        from aimeter._api import default_meter  # noqa: PLC0415 - makes the default meter's module, if nobody has

        meter = default_meter()
    label = name_of(fn) if name is None else name
    series = _Series(partial(fn, *args, **kwargs), label, meter, relative_error, time_limit_s)
    series.warm_up(warm_up)
    while True:
        series.run()
        found = series.result()
        if found.reached or found.energy_j is None or series.late:
            return found


def _check(fn: object, relative_error: float, time_limit_s: float, warm_up: int) -> None:
    if not callable(fn):
        message = (
            f"measure() takes a function and its arguments, not {fn!r}: measure(f, x), not measure(f(x))"
        )
        raise TypeError(message)
    for what, value in (("relative_error", relative_error), ("time_limit_s", time_limit_s)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            message = f"{what} must be a number, not {value!r}"
            raise TypeError(message)
    if not 0 < relative_error < 1:
        message = f"relative_error must be above 0 and below 1, such as 0.05 for 5 %, not {relative_error!r}"
        raise ValueError(message)
    if not 0 < time_limit_s < math.inf:
        message = f"time_limit_s must be a number of seconds above 0, not {time_limit_s!r}"
        raise ValueError(message)
    if isinstance(warm_up, bool) or not isinstance(warm_up, int) or warm_up < 1:
        message = f"warm_up must be a whole number of repetitions, at least 1, not {warm_up!r}"
        raise ValueError(message)


def _mean(batches: Sequence[Record], size: int, ends_j: float) -> Mean:
    """Return the joules of one repetition, of `size` in each batch, whose ends together leave `ends_j` open."""
    each_j = [(row.energy_j or 0.0) / size for row in batches]
    return mean_of(each_j, _CONFIDENCE, common=ends_j / (size * len(batches)))


class _Series:
    """One function being repeated.

    Attributes:
        size: Repetitions in a batch.
    """

    def __init__(
        self, work: Callable[[], object], name: str, meter: Meter, wanted: float, limit_s: float
    ) -> None:
        self.size = 1
        self._work = work
        self._name = name
        self._meter = meter
        self._wanted = wanted
        self._now = meter.sampler.now
        began_s = self._now()
        self._warm_until_s = began_s + _WARM_UP_PART * limit_s
        self._until_s = began_s + limit_s
        self._runs: list[Call] = []
        self._batches: list[Call] = []
        self._inner: list[Call] = []
        self._spent_s = 0.0

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self._now() >= self._until_s

    def warm_up(self, least: int) -> None:
        """Repeat until the time of a repetition is steady, and find how many make a batch."""
        with self._meter.call(f"{self._name} (warm-up)"):
            _refuse_unfinished(self._work())
            done, before_s = 1, math.inf
            while self._now() < (self._until_s if done < least else self._warm_until_s):
                seconds = self._repeat()
                done += self.size
                each_s = seconds / self.size
                long_enough = seconds >= self._batch_s()
                if long_enough and done >= least and abs(each_s - before_s) <= _STEADY * each_s:
                    return
                before_s = each_s
                if not long_enough:
                    self.size *= 2

    def run(self) -> None:
        """Repeat in batches, without a pause, until that seems enough."""
        with self._meter.call(self._name) as run:
            calls: list[Call] = []
            while not calls or not (self.late or self._seems_enough(calls)):
                with self._meter.call(f"{self._name} (batch)", {"items": self.size}) as call:
                    self._spent_s += self._repeat()
                calls.append(call)
            run.count(items=self.size * len(calls))
        self._batches += calls
        # The first and the last end where the load changes, inside a step: what that leaves open looks like a trend.
        self._inner += calls[1:-1]
        self._runs.append(run)

    def result(self) -> Measurement:
        """Return what is known by now."""
        self._meter.flush()
        runs, batches = _rows(self._runs), _rows(self._batches)
        repetitions = self.size * len(self._batches)
        figures: dict[str, Any] = dict.fromkeys(_JOULES)
        mean = Mean(0.0, math.inf)
        if runs and batches:
            mean = _mean(batches, self.size, _ends_j(runs))
            calibration_j = mean.value * _calibration(runs)
            error_j = math.sqrt(error_j2(mean.half_width**2, [calibration_j]))
            idle_j = [row.idle_j for row in batches if row.idle_j is not None]
            figures = {
                "energy_j": mean.value,
                "error_j": error_j,
                "interval_j": (max(mean.value - error_j, 0.0), mean.value + error_j),
                "resolution_j": mean.half_width,
                "calibration_j": calibration_j,
                "idle_j": math.fsum(idle_j) / (self.size * len(idle_j)) if idle_j else None,
            }
        return Measurement(
            name=self._name,
            **figures,
            duration_s=self._spent_s / repetitions,
            repetitions=repetitions,
            batches=len(self._batches),
            relative_error=self._wanted,
            reached=mean.half_width <= self._wanted * mean.value,
            drift=self._drift(),
            coverage=min([row.coverage for row in runs], default=0.0),
            methods=_methods(runs),
        )

    def _seems_enough(self, calls: Sequence[Call]) -> bool:
        """Say whether the batches settled so far are enough, or no batch ever will be.

        Args:
            calls: The batches of the run that is still open.
        """
        settled = [call for call in calls if call.settled is not None]
        fresh = _rows(settled)
        if not self._meter.settings.enabled or len(fresh) < len(settled):
            return True  # there is no meter
        if len(fresh) < _FEWEST:
            return False
        # The run is not known before it has ended. Its ends are those of its first and last batch.
        ends_j = math.hypot(_ends_j(_rows(self._runs)), _ends_j([fresh[0], fresh[-1]]))
        mean = _mean([*_rows(self._batches), *fresh], self.size, ends_j)
        return mean.half_width <= self._wanted * mean.value

    def _drift(self) -> Drift | None:
        """Return how the power of the batches changed."""
        known = [call for call in self._inner if _rows([call]) and call.duration_s]
        middle_s = [(call.start_s + call.end_s) / 2 for call in known]
        return drift(middle_s, [(row.energy_j or 0.0) / row.duration_s for row in _rows(known)])

    def _repeat(self) -> float:
        """Make one batch's repetitions and return the seconds that they took."""
        work, began_s = self._work, self._now()
        for _ in range(self.size):
            work()
        seconds = self._now() - began_s
        if seconds <= 0 and self.size > _STANDS_STILL:
            message = (
                "the meter's clock does not move while the function runs: with a FakeClock, have it advance()"
            )
            raise RuntimeError(message)
        return seconds

    def _batch_s(self) -> float:
        """Return how long a batch must be for the slowest sensor."""
        sampler = self._meter.sampler
        slowest = sampler.snapshot(
            lambda traces: [
                max(_PERIODS * trace.learned.period_s, _WINDOWS * trace.channel.window_s)
                for trace in traces
                if trace.alive
            ]
        )
        return max(sampler.pace.interval_s * _PERIODS, _SHORTEST_BATCH_S, *slowest)


def _refuse_unfinished(result: object) -> None:
    """Refuse a function that returns before its work is done.

    Raises:
        TypeError: It returned a coroutine, another awaitable or a generator.
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that it was never awaited
        message = (
            "measure() got a function that only returns an awaitable: measure(lambda: asyncio.run(f(x)))"
        )
        raise TypeError(message)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        message = "measure() got a function that only returns a generator: measure(lambda: list(f(x)))"
        raise TypeError(message)


def _rows(calls: Sequence[Call]) -> list[Record]:
    """Return the rows that have an energy, of calls that are settled."""
    rows = [call.settled for call in calls]
    return [row for row in rows if row is not None and row.energy_j is not None]


def _ends_j(runs: Sequence[Record]) -> float:
    """Return what the sensors' steps leave open of several calls together."""
    return math.sqrt(math.fsum((row.resolution_j or 0.0) ** 2 for row in runs))


def _calibration(runs: Sequence[Record]) -> float:
    """Return the 95 % half-width of the calibration of some calls, as a part of their energy."""
    total_j = math.fsum(row.energy_j or 0.0 for row in runs)
    each_j = (calibration_of(row.error_j or 0.0, row.resolution_j or 0.0) for row in runs)
    return math.fsum(each_j) / total_j if total_j else 0.0


def _methods(runs: Sequence[Record]) -> dict[str, str]:
    """Return how each kind of device was measured in the last of the runs."""
    kinds = ("gpu", "cpu", "dram")
    found = {kind: getattr(row, f"{kind}_method") for row in runs[-1:] for kind in kinds}
    if any(row.other_j is not None for row in runs[-1:]):
        found["other"] = ""
    return {kind: method for kind, method in found.items() if method != "none"}
