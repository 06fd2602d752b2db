"""The curve of one channel: cumulative joules against time, and how wrong each point may be.

A counter tells the energy at the moment its value changes and nothing in between. So a curve is a list of
*knots* - a time, the joules counted up to it, and the uncertainty of those joules - and two rules for the
stretch between two knots:

* the counter gives the amount: whatever happened in between, the energy of the stretch is the difference of
  its knots, which bounds the true curve from both sides because energy never falls;
* the calls give the shape: outside every call the device draws a power that has been measured, its idle
  power and an afterglow that fades after a call; what a stretch holds above that belongs to the time in which
  a call was open.

A channel that reports power has no such bounds: its knots are sums of sampled power, and their uncertainty
is what the averaging window and the update period of the sensor may hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_CAPACITY = 4096
_WHOLE = 0.9
"""A sensor that looks at this part of the time misses nothing worth mentioning."""

_UNSEEN = 0.5
"""A swing below this part of the greatest one is next to nothing."""

_NOTHING_J = 1e-9
"""A step of next to nothing has no shape worth dividing by."""

_HEADROOM = 10.0
"""A device whose limit is unknown may draw this many times the highest mean power seen between two knots."""

_T, _E, _U, _HALF, _ROUND, _IDLE, _GLOW, _TAU, _SPREAD, _COVERED, _VARIANCE = range(11)
_COLUMNS = 11


class Points(NamedTuple):
    """The curve read at some times; arrays of one shape.

    Attributes:
        energy_j: Best estimate of the joules since the curve began.
        low_j: What the true value cannot be below, with 95 % confidence or better.
        high_j: What the true value cannot be above.
        covered_s: Seconds since the curve began in which it was really metered.
        variance_j2: Running variance of the sampling error; a difference of two belongs to the time between.
    """

    energy_j: Array
    low_j: Array
    high_j: Array
    covered_s: Array
    variance_j2: Array


class Quiet(NamedTuple):
    """What a device draws while no call is open: ``idle_w + glow_w * exp(-s / tau_s)``, s after the last call.

    After work a device does not fall to idle at once: clocks and fans take their time, tenths of a second to
    seconds. NaN for `idle_w` means that nothing is known.
    """

    idle_w: float
    glow_w: float
    tau_s: float
    spread_w: float = 0.0
    """Standard deviation of the mean power of quiet stretches around that."""


UNKNOWN = Quiet(np.nan, 0.0, 1.0)

_UNLIKE = 1.3
"""Two calls, or two parts of one, that meet inside a step draw powers that differ by less than this part of their
mean, in 95 % of cases: the spike that begins one call meets the plateau that ends another. Our judgement, from
published traces of prefill spikes of 385 to 508 W over plateaus of 295 W and below."""

_SIGMAS = 3.0
"""Half-width of the quiet power in standard deviations: 1.96, and half as much again because the two ends of a
short call lie in one step and share its deviation."""


class Activity(NamedTuple):
    """When calls were open: from each of `time_s` (ascending) to the next, at least one if `open` is true.

    At each of `shift_s` (ascending) calls began or ended while others were open.
    """

    time_s: Array
    open: npt.NDArray[np.bool_]
    shift_s: Array = np.empty(0)

    def open_s(self, times_s: Array) -> Array:
        """Return for how many seconds a call was open up to each of `times_s`."""
        if not self.time_s.size:
            return np.zeros_like(times_s)
        spans = np.append(np.diff(self.time_s) * self.open[:-1], 0.0)
        at = np.clip(np.searchsorted(self.time_s, times_s, side="right") - 1, 0, None)
        since = np.maximum(times_s - self.time_s[at], 0.0)
        before = np.concatenate([[0.0], np.cumsum(spans)])[at]
        return np.asarray(before + since * self.open[at])

    def glow_s(self, times_s: Array, tau_s: float) -> Array:
        """Return the integral of ``exp(-s / tau_s)`` over the quiet time up to each of `times_s`.

        s is the time since a call was last open. Before the first of `time_s` there is no glow.
        """
        if not self.time_s.size:
            return np.zeros_like(times_s)
        # Quiet stretches follow one another (a generator may be suspended in one): the last open edge counts.
        ends = np.concatenate([[False], self.open[:-1] & ~self.open[1:]])
        index = np.maximum.accumulate(np.where(ends, np.arange(ends.size), -1))
        last = np.where(index >= 0, self.time_s[np.maximum(index, 0)], -np.inf)
        begin = np.exp((last - self.time_s) / tau_s)
        spans = np.append(tau_s * (begin[:-1] - np.exp((last[:-1] - self.time_s[1:]) / tau_s)), 0.0)
        spans *= ~self.open
        at = np.clip(np.searchsorted(self.time_s, times_s, side="right") - 1, 0, None)
        now = np.exp((last[at] - np.maximum(times_s, self.time_s[at])) / tau_s)
        before = np.concatenate([[0.0], np.cumsum(spans)])[at]
        return np.asarray(before + tau_s * (begin[at] - now) * ~self.open[at])


NO_ACTIVITY = Activity(np.empty(0), np.empty(0, dtype=bool))


class Curve:
    """Knots of one channel in a bounded buffer; the oldest fall out.

    Args:
        counted: True if energy between knots is bounded by them (counters and models), False if it is sampled.
        max_power_w: The most the device can draw; narrows the bounds of a counted curve. Where it is unknown,
            a multiple of the highest mean power seen takes its place.
        reach_s: For a sampled curve, how far around a time its readings still depend on the power at that
            time: averaging window plus update period.
        seen: For a sampled curve, which part of the time its sensor looks at, 0 to 1.
        swing_w: How far the device's power is known to swing before the first knot.
    """

    def __init__(
        self,
        *,
        counted: bool,
        max_power_w: float | None = None,
        reach_s: float = 0.0,
        seen: float = 1.0,
        swing_w: float = 0.0,
    ) -> None:
        self.counted = counted
        self.seen = seen
        self._swing_w = swing_w
        self._limit_w = max_power_w or 0.0
        self._limit_known = max_power_w is not None
        self.reach_s = reach_s
        self.end_s = -np.inf
        """Time of the newest knot."""
        self.energy_j = 0.0
        """Joules at the newest knot, counted from the first one ever."""
        self._covered_s = self._variance_j2 = 0.0
        self._buffer = np.zeros((_COLUMNS, 2 * _CAPACITY))
        self._first = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size - self._first

    @property
    def knots(self) -> Array:
        """Time, joules and uncertainty of every knot kept, shape (3, n)."""
        return self._buffer[:3, self._first : self._size]

    @property
    def limit_w(self) -> float:
        """The most that the device can draw, or many times the most seen where that is unknown; infinite before that."""
        return self._limit_w or np.inf

    @property
    def swing_w(self) -> float:
        """How far the mean power between knots has swung."""
        times, joules, _ = self.knots
        power = np.diff(joules) / np.maximum(np.diff(times), 1e-12)
        return max(self._swing_w, float(np.ptp(power)) if power.size else 0.0)

    def append(
        self,
        time_s: float,
        energy_j: float,
        uncertainty_j: float,
        *,
        half_s: float = 0.0,
        rounding_j: float = 0.0,
        quiet: Quiet = UNKNOWN,
        variance_j2: float = 0.0,
    ) -> None:
        """Add a knot that ends a metered stretch.

        Args:
            time_s: After the newest knot.
            energy_j: Not below the newest knot's.
            uncertainty_j: 95 % half-width of `energy_j` at `time_s`.
            half_s: 95 % half-width of `time_s`.
            rounding_j: 95 % half-width of `energy_j` if its time were exact.
            quiet: What the device draws while no call is open; shapes the stretch.
            variance_j2: Variance that sampling adds over the stretch.
        """
        span_s = time_s - self.end_s if len(self) else 0.0
        if span_s and not self._limit_known:
            self._limit_w = max(self._limit_w, _HEADROOM * (energy_j - self.energy_j) / span_s)
        self._put(
            (time_s, energy_j, uncertainty_j, half_s, rounding_j, *quiet),
            self._covered_s + span_s,
            self._variance_j2 + variance_j2,
        )

    def append_gap(self, time_s: float) -> None:
        """Add a knot that ends an unmetered stretch: no energy, no coverage."""
        errors = self._buffer[[_U, _HALF, _ROUND], self._size - 1].tolist()
        knot = (time_s, self.energy_j, *errors, *UNKNOWN)
        self._put(knot, self._covered_s, self._variance_j2)

    def _put(self, knot: tuple[float, ...], covered_s: float, variance_j2: float) -> None:
        if self._size == self._buffer.shape[1]:
            kept = self._buffer[:, -_CAPACITY:].copy()
            self._buffer[:, :_CAPACITY] = kept
            self._first, self._size = 0, _CAPACITY
        self._buffer[:, self._size] = *knot, covered_s, variance_j2
        self.end_s, self.energy_j = knot[:2]
        self._covered_s, self._variance_j2 = covered_s, variance_j2
        self._size += 1
        if self._size - self._first > _CAPACITY:
            self._first += 1

    def certain_until(self, horizon_s: float) -> float:
        """Return the newest time up to `horizon_s` at which the curve will not change any more."""
        reach_s = 0.0 if self.counted else self.reach_s
        if horizon_s >= self.end_s:
            return self.end_s - reach_s
        times = self._buffer[_T, self._first : self._size]
        after = int(np.searchsorted(times, horizon_s, side="right"))
        return float(times[after - 1]) - reach_s if after else -np.inf

    def at(self, times_s: Array, activity: Activity = NO_ACTIVITY) -> Points:
        """Read the curve at `times_s` (ascending or not), any shape of one dimension.

        Before the first knot and after the last the energy is held and nothing is covered.
        """
        return read([self], times_s, activity)[0]

    def around(self, times_s: Array) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Return for each time the number of the knot after it, that knot, and the one before; of two knots or more."""
        block = self._buffer[:, self._first : self._size]
        right = np.minimum(np.maximum(block[_T].searchsorted(times_s), 1), block.shape[1] - 1)
        return right, block[:, right - 1], block[:, right]

    def held(self, times_s: Array) -> Points:
        """Read a curve of less than two knots."""
        energy = np.full(times_s.shape, self._buffer[_E, self._first] if len(self) else 0.0)
        return Points(energy, energy, energy, np.zeros_like(energy), np.zeros_like(energy))

    def bounds(
        self,
        right: npt.NDArray[np.intp],
        time: Array,
        energy: Array,
        likely: Array,
        before: Array,
        after: Array,
    ) -> tuple[Array, Array]:
        """Return what the true energy cannot be below and above.

        Args:
            right: Numbers of the knots `after`.
            time: Times.
            energy: Best estimate at each time.
            likely: 95 % half-width of the shape between the knots of a counted curve.
            before: The knot before each time.
            after: The knot after each time.
        """
        if self.counted:
            low, high = self._counted_bounds(time, before, after)
            low, high = np.maximum(low, energy - likely), np.minimum(high, energy + likely)
        else:
            block = self._buffer[:, self._first : self._size]
            half = self._sampled_half_width(right, block) + np.maximum(before[_U], after[_U])
            low, high = energy - half, energy + half
        return np.minimum(low, energy), np.maximum(high, energy)

    def _counted_bounds(self, time: Array, before: Array, after: Array) -> tuple[Array, Array]:
        """Bound a rising curve by its knots, and by the most that the device can draw between them."""
        span = np.maximum(after[_T] - before[_T], 1e-12)
        floor, ceiling = before[_E] - before[_U], after[_E] + after[_U]
        # A stretch may exceed the nominal limit (a wrong one, a late update): its own mean is then the limit.
        limit = np.maximum(self._limit_w, (ceiling - floor) / span)
        low = np.maximum(floor, after[_E] - after[_U] - limit * (after[_T] - time))
        high = np.minimum(ceiling, before[_E] + before[_U] + limit * (time - before[_T]))
        return low, high

    def _sampled_half_width(self, right: npt.NDArray[np.intp], block: Array) -> Array:
        """Bound what a moving average hides at each time: its reach times the swing of power seen around it.

        A burst of energy Q, however short, shows in an average over W as an excess of Q / W for a time W:
        so the swing seen within the reach, times the reach, is at least the energy that may lie on the other
        side of the time. A sensor that looks at a part of the time only may have missed the burst, again and
        again if calls keep step with it: where it has seen next to nothing of a call's begin or end, the swing is
        taken over all that is remembered, and else over as many looks as it takes to see the whole of the time once.
        """
        reach = self.reach_s / self.seen
        right, back = np.unique(right, return_inverse=True)
        power = np.diff(block[_E]) / np.maximum(np.diff(block[_T]), 1e-12)
        ends = block[_T, 1:]
        first = np.searchsorted(ends, block[_T, right - 1] - reach, side="left")
        last = np.searchsorted(block[_T, :-1], block[_T, right] + reach, side="right")
        swing = np.array([np.ptp(power[a:b]) if b > a else 0.0 for a, b in zip(first, last, strict=True)])
        if self.seen < _WHOLE:
            greatest = max(self._swing_w, float(np.ptp(power)))
            swing = np.where(swing < _UNSEEN * greatest, greatest, swing)
        return np.asarray(swing[back] * self.reach_s)

    def energy(self, t0_s: Array, t1_s: Array, activity: Activity = NO_ACTIVITY) -> tuple[Array, Array]:
        """Return the joules between pairs of times and their resolution.

        Args:
            t0_s: Starts, shape (n,).
            t1_s: Ends, shape (n,), not before the starts.
            activity: When calls were open, for the shape between knots.

        Returns:
            Joules and their 95 % half-width (calibration not included), each of shape (n,).
        """
        start, end = self.at(np.asarray(t0_s, float), activity), self.at(np.asarray(t1_s, float), activity)
        joules = end.energy_j - start.energy_j
        return joules, resolution(start, end, joules)


def read(curves: Sequence[Curve], times_s: Array, activity: Activity = NO_ACTIVITY) -> list[Points]:
    """Read several curves at the same times, see `Curve.at`; all in one go, as most of its cost is per operation."""
    found = [curve.around(times_s) for curve in curves if len(curve) > 1]
    if not found:
        return [curve.held(times_s) for curve in curves]
    before = np.concatenate([one[1] for one in found], axis=1)
    after = np.concatenate([one[2] for one in found], axis=1)
    time = np.concatenate([times_s] * len(found))
    time = np.minimum(np.maximum(time, before[_T]), after[_T])
    part = (time - before[_T]) / np.maximum(after[_T] - before[_T], 1e-12)
    shape, likely = _shape(time, part, before, after, activity)
    energy = before[_E] + (after[_E] - before[_E]) * shape
    covered, variance = (before[line] + (after[line] - before[line]) * part for line in (_COVERED, _VARIANCE))
    points = []
    stretches = iter(enumerate(found))
    for curve in curves:
        if len(curve) <= 1:
            points.append(curve.held(times_s))
            continue
        number, (right, *_) = next(stretches)
        own = slice(number * times_s.size, (number + 1) * times_s.size)
        one = energy[own]
        low, high = curve.bounds(right, time[own], one, likely[own], before[:, own], after[:, own])
        points.append(Points(one, low, high, covered[own], variance[own]))
    return points


def half_width(points: Points) -> Array:
    """Return the 95 % half-width of the energy at each point."""
    return np.maximum(points.energy_j - points.low_j, points.high_j - points.energy_j)


def resolution(start: Points, end: Points, joules: Array) -> Array:
    """Return the 95 % half-width of the energy between `start` and `end`.

    The errors of the two ends are independent and add in quadrature, with the sampling variance in between.
    No estimate can be further off than the bounds of the two ends allow.
    """
    sampled = 1.96**2 * np.maximum(end.variance_j2 - start.variance_j2, 0.0)
    independent = np.sqrt(half_width(start) ** 2 + half_width(end) ** 2 + sampled)
    most = np.maximum(end.high_j - start.low_j, 0.0)
    least = np.maximum(end.low_j - start.high_j, 0.0)
    bounded: Array = np.minimum(independent, np.maximum(most - joules, joules - least) + np.sqrt(sampled))
    return bounded


def _shape(time: Array, part: Array, before: Array, after: Array, activity: Activity) -> tuple[Array, Array]:
    """Return which part of a stretch's energy lies before each time, 0 to 1, and how wrong that is in joules.

    Outside calls the device draws its quiet power; the rest of the stretch is spread evenly over the time in
    which a call was open. If nothing is left for that, or no call was open, the stretch has the shape of the
    quiet power. If that is unknown it is spread evenly, and only the knots bound the error.

    The 95 % half-width has four independent terms, for a time before which lie a part f of the stretch's open
    time and t of its quiet time T, with an excess X above the quiet power q:

    * the quiet power is off by d: the error is d * (t - f T), because the knots hold the sum;
    * the open time before and after differs in power by a part u of its mean: u f (1 - f) X, or, if calls began or
      ended inside it while others were open, as children do, by all of it: max(f, 1 - f) X;
    * a knot is off in time by h: q h, or the mean power times h where there is no quiet time;
    * a knot is off in energy by what its sensor rounds.
    """
    unbounded = np.full_like(part, np.inf)
    if not activity.time_s.size:
        return part, unbounded
    begin, end, step = before[_T], after[_T], after[_E] - before[_E]
    known = np.isfinite(after[_IDLE]) & (step > _NOTHING_J)
    if not known.any():
        return part, unbounded
    moments = np.concatenate([begin, time, end])
    open_before, open_now, open_all = activity.open_s(moments).reshape(3, -1)
    open_now, open_all = open_now - open_before, open_all - open_before
    rest_now, rest_all = time - begin - open_now, end - begin - open_all
    quiet_now, quiet_all = after[_IDLE] * rest_now, after[_IDLE] * rest_all
    for tau in np.unique(after[_TAU][known]):
        glow = np.where(after[_TAU] == tau, after[_GLOW], 0.0)
        if not glow.any():
            continue
        glow_before, glow_now, glow_all = activity.glow_s(moments, tau).reshape(3, -1)
        quiet_now += glow * (glow_now - glow_before)
        quiet_all += glow * (glow_all - glow_before)
    busy = open_all > 0
    fits = busy & (quiet_all <= step)
    scale = np.divide(step, quiet_all, out=np.zeros_like(step), where=quiet_all > _NOTHING_J)
    open_part = np.divide(open_now, open_all, out=np.zeros_like(step), where=busy)
    excess = np.maximum(step - quiet_all, 0.0)
    shaped = np.where(fits, quiet_now + excess * open_part, quiet_now * scale)
    usable = known & (fits | (quiet_all > _NOTHING_J))
    result: Array = np.clip(np.divide(shaped, step, out=part.copy(), where=usable), 0.0, 1.0)

    held = np.where(busy, open_part, part)
    deviation = _SIGMAS * after[_SPREAD] * np.abs(rest_now - held * rest_all)
    # Without open time the deviation is not of the whole stretch, which the knots hold, but within it.
    deviation = np.where(busy, deviation, _SIGMAS * after[_SPREAD] * (end - begin) * part * (1 - part))
    unlike = np.where(busy, _UNLIKE * excess * held * (1 - held), 0.0)
    # Where calls began or ended beside or inside others, the rest of a step may be any one's.
    shifts = activity.shift_s
    mixed = shifts.searchsorted(end) > shifts.searchsorted(begin, side="right")
    unlike = np.where(busy & mixed, excess * np.maximum(held, 1 - held), unlike)
    resting = rest_all > 0
    local = np.divide(quiet_all, rest_all, out=np.zeros_like(step), where=resting)
    local = np.where(resting, local, step / np.maximum(end - begin, 1e-12))
    timing = local * np.maximum(before[_HALF], after[_HALF])
    rounding = np.maximum(before[_ROUND], after[_ROUND])
    likely = np.sqrt(deviation**2 + unlike**2 + timing**2 + rounding**2)
    return result, np.where(known & (fits | ~busy), likely, unbounded)
