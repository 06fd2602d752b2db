"""The curve of one channel: cumulative joules against time, and how wrong each point may be.

A counter tells the energy at the moment its value changes and nothing in between. So a curve is a list of
*knots* - a time, the joules counted up to it, and the uncertainty of those joules - and two rules for the
stretch between two knots:

* the counter gives the amount: whatever happened in between, the energy of the stretch is the difference of
  its knots, which bounds the true curve from both sides because energy never falls;
* the calls give the shape: outside every call the device draws a power that has been measured, its idle
  power and what decays after a call; what a stretch holds above that belongs to the time in which
  a call was open.

A channel that reports power has no such bounds: its knots are sums of sampled power, and their uncertainty
is what the averaging window and the update period of the sensor may hide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aimeter._curve.activity import NO_ACTIVITY, UNKNOWN, Activity, Array, IdlePower
from aimeter._curve.step_shape import (
    COVERED,
    DECAY,
    HALF,
    IDLE,
    JOULES,
    LINES,
    NOTHING_J,
    PHASE,
    ROUND,
    SHIFT,
    SPREAD,
    TAU,
    TIME,
    UNCERTAINTY,
    VARIANCE,
    Shape,
    Step,
    StepRefiner,
    shape_of,
)

_CAPACITY = 4096
_WHOLE = 0.9
"""A sensor that looks at this part of the time misses nothing worth mentioning."""

_LOAD = 0.1
"""A load makes the power swing by this part of the limit at least."""

_UNSEEN = 0.5
"""A swing below this part of the greatest one is next to nothing."""

_HEADROOM = 10.0
"""A device whose limit is unknown may draw this many times the highest mean power seen between two knots."""


class Points(NamedTuple):
    """The curve read at some times; arrays of one shape.

    Attributes:
        energy_j: Best estimate of the joules since the curve began.
        low_j: What the true value cannot be below, with 95 % confidence or better, but for `phase_j` and `shift_j`.
        high_j: What the true value cannot be above.
        covered_s: Seconds since the curve began in which it was really metered.
        variance_j2: Running variance of the sampling error; a difference of two belongs to the time between.
    """

    energy_j: Array
    low_j: Array
    high_j: Array
    covered_s: Array
    variance_j2: Array
    phase_j: Array
    """95 % half-width of what the energy is off by if knots near one another are off in time by the same."""
    shift_j: Array
    """95 % half-width of what the energy is off by if all knots are off in time by the same."""


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
        self.steady_s = 0.0
        """For about so long knots are off in time by the same; 0 if they are not."""
        self.refiner: StepRefiner | None = None
        """What shapes steps in which calls meet."""
        self.doubted_s = -np.inf
        """End of the newest of those, if there is something to shape them."""
        self.end_s = -np.inf
        """Time of the newest knot."""
        self.energy_j = 0.0
        """Joules at the newest knot, counted from the first one ever."""
        self._covered_s = self._variance_j2 = 0.0
        self._buffer = np.zeros((LINES, 2 * _CAPACITY))
        self._first = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size - self._first

    @property
    def knots(self) -> Array:
        """Time, joules and uncertainty of every knot kept, shape (3, n)."""
        return self._buffer[:3, self._first : self._size]

    def between(self, begin_s: float, end_s: float) -> Array:
        """Return the knots between two times, shape (4, n).

        Time, joules, the 95 % half-width of the time, and that of the joules if the time were exact.
        """
        times = self._buffer[TIME, self._first : self._size]
        first, last = np.searchsorted(times, begin_s), np.searchsorted(times, end_s, side="right")
        block = self._buffer[:, self._first + first : self._first + last]
        return np.vstack([block[[TIME, JOULES]], block[HALF] + block[PHASE], block[ROUND]])

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
        phase_s: float = 0.0,
        shift_s: float = 0.0,
        idle: IdlePower = UNKNOWN,
        variance_j2: float = 0.0,
        seen: bool = True,
    ) -> None:
        """Add a knot that ends a stretch.

        Args:
            time_s: After the newest knot.
            energy_j: Not below the newest knot's.
            uncertainty_j: 95 % half-width of `energy_j` at `time_s`.
            half_s: 95 % half-width of `time_s`.
            rounding_j: 95 % half-width of `energy_j` if its time were exact.
            phase_s: 95 % half-width of what the times of this knot and those near it are off by, in addition.
            shift_s: 95 % half-width of what the times of all knots are off by, in addition.
            idle: What the device draws while no call is open; shapes the stretch.
            variance_j2: Variance that sampling adds over the stretch.
            seen: Whether the stretch was metered; if not, its energy is a guess and it is not covered.
        """
        span_s = time_s - self.end_s if len(self) else 0.0
        if span_s and seen and not self._limit_known:
            self._limit_w = max(self._limit_w, _HEADROOM * (energy_j - self.energy_j) / span_s)
        self._put(
            (time_s, energy_j, uncertainty_j, half_s, rounding_j, phase_s, shift_s, *idle),
            self._covered_s + (span_s if seen else 0.0),
            self._variance_j2 + variance_j2,
        )

    def append_gap(self, time_s: float) -> None:
        """Add a knot that ends an unmetered stretch: no energy, no coverage."""
        errors = self._buffer[[UNCERTAINTY, HALF, ROUND, PHASE, SHIFT], self._size - 1].tolist()
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
        times = self._buffer[TIME, self._first : self._size]
        after = int(np.searchsorted(times, horizon_s, side="right"))
        return float(times[after - 1]) - reach_s if after else -np.inf

    def at(self, times_s: Array, activity: Activity = NO_ACTIVITY, *, finely: bool = True) -> Points:
        """Read the curve at `times_s` (ascending or not), any shape of one dimension.

        Before the first knot and after the last the energy is held and nothing is covered. Unless `finely`, nothing
        shapes the curve but its knots and the calls.
        """
        return read([self], times_s, activity, finely=finely)[0]

    def around(self, times_s: Array) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Return for each time the number of the knot after it, that knot, and the one before; of two knots or more."""
        block = self._buffer[:, self._first : self._size]
        right = np.minimum(np.maximum(block[TIME].searchsorted(times_s), 1), block.shape[1] - 1)
        return right, block[:, right - 1], block[:, right]

    def held(self, times_s: Array) -> Points:
        """Read a curve of less than two knots."""
        energy = np.full(times_s.shape, self._buffer[JOULES, self._first] if len(self) else 0.0)
        nothing = np.zeros_like(energy)
        return Points(energy, energy, energy, nothing, nothing, nothing, nothing)

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
            half = self._sampled_half_width(right, block) + np.maximum(
                before[UNCERTAINTY], after[UNCERTAINTY]
            )
            low, high = energy - half, energy + half
        return np.minimum(low, energy), np.maximum(high, energy)

    def _counted_bounds(self, time: Array, before: Array, after: Array) -> tuple[Array, Array]:
        """Bound a rising curve by its knots, and by the most that the device can draw between them."""
        span = np.maximum(after[TIME] - before[TIME], 1e-12)
        floor, ceiling = before[JOULES] - before[UNCERTAINTY], after[JOULES] + after[UNCERTAINTY]
        # A stretch may exceed the nominal limit (a wrong one, a late update): its own mean is then the limit.
        limit = np.maximum(self._limit_w, (ceiling - floor) / span)
        low = np.maximum(floor, after[JOULES] - after[UNCERTAINTY] - limit * (after[TIME] - time))
        high = np.minimum(ceiling, before[JOULES] + before[UNCERTAINTY] + limit * (time - before[TIME]))
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
        power = np.diff(block[JOULES]) / np.maximum(np.diff(block[TIME]), 1e-12)
        ends = block[TIME, 1:]
        first = np.searchsorted(ends, block[TIME, right - 1] - reach, side="left")
        last = np.searchsorted(block[TIME, :-1], block[TIME, right] + reach, side="right")
        swing = np.array([np.ptp(power[a:b]) if b > a else 0.0 for a, b in zip(first, last, strict=True)])
        if self.seen < _WHOLE:
            greatest = max(self._swing_w, float(np.ptp(power)))
            if self._limit_known and greatest < _LOAD * self._limit_w:
                greatest = self._limit_w  # no load was seen yet: the first one may be any
            swing = np.where(swing < _UNSEEN * greatest, greatest, swing)
        return np.asarray(swing[back] * self.reach_s)


def read(
    curves: Sequence[Curve], times_s: Array, activity: Activity = NO_ACTIVITY, *, finely: bool = True
) -> list[Points]:
    """Read several curves at the same times, see `Curve.at`; all in one go, as most of its cost is per operation."""
    known = [curve for curve in curves if len(curve) > 1]
    found = [curve.around(times_s) for curve in known]
    if not found:
        return [curve.held(times_s) for curve in curves]
    before = np.concatenate([one[1] for one in found], axis=1)
    after = np.concatenate([one[2] for one in found], axis=1)
    time = np.concatenate([times_s] * len(found))
    time = np.minimum(np.maximum(time, before[TIME]), after[TIME])
    part = (time - before[TIME]) / np.maximum(after[TIME] - before[TIME], 1e-12)
    limit_w = np.repeat([curve.limit_w for curve in known], times_s.size)
    shape = shape_of(time, part, before, after, activity, limit_w)
    if shape is not None and finely:
        for number, (curve, (right, *_)) in enumerate(zip(known, found, strict=True)):
            if curve.refiner is not None:
                first = number * times_s.size
                _refine(curve, curve.refiner, shape, first, right, time, before, after, activity)
    if shape is None:
        nothing = np.zeros_like(part)
        phase = shift = nothing
        energy, likely = before[JOULES] + (after[JOULES] - before[JOULES]) * part, nothing + np.inf
    else:
        energy, likely, phase, shift = shape.read(before[JOULES], part)
    covered, variance = (before[line] + (after[line] - before[line]) * part for line in (COVERED, VARIANCE))
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
        points.append(Points(one, low, high, covered[own], variance[own], phase[own], shift[own]))
    return points


def _refine(
    curve: Curve,
    refiner: StepRefiner,
    shape: Shape,
    first: int,
    right: npt.NDArray[np.intp],
    time: Array,
    before: Array,
    after: Array,
    activity: Activity,
) -> None:
    """Put what is known better of one curve's steps in the place of the even spread, from the column `first` on."""
    own = slice(first, first + right.size)
    doubtful = shape.fits[own] & shape.known[own] & (shape.unlike_j[own] > NOTHING_J)
    if not doubtful.any():
        return
    curve.doubted_s = max(curve.doubted_s, float(after[TIME, own][doubtful].max()))
    for number in np.unique(right[doubtful]):
        at = first + np.flatnonzero((right == number) & doubtful)
        (begin_s, begin_j), (end_s, end_j, *_) = before[:2, at[0]], after[:, at[0]]
        idle = IdlePower(*after[[IDLE, DECAY, TAU, SPREAD], at[0]].tolist())
        excess_j, mixed = float(shape.excess_j[at[0]]), bool(shape.mixed[at[0]])
        step = Step(begin_s, end_s, begin_j, end_j, excess_j, idle, mixed, activity)
        found = refiner.refine(time[at], step)
        if found is not None:
            shape.worked_j[at], shape.unlike_j[at] = found
