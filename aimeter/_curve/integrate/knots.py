"""Where a value's knot lies and how wrong it may be, whatever kind of value it is.

A value is known to have been published between the reading that did not yet show it and the one that did, and not
longer ago than the sensor's update period; what is known of a staircase's other steps narrows that further. The middle
of that interval is the time of the knot; half of it, times the power around it, is the knot's uncertainty.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._curve.update_times import Interval
from aimeter._support.statistics import SIGMAS_95
from aimeter.sensors.base import MOST_POWER_W, Outcome

if TYPE_CHECKING:
    from aimeter._curve.curve import Curve
    from aimeter._curve.idle import Idle
    from aimeter._curve.learned import Learned
    from aimeter._curve.readings import Readings
    from aimeter.sensors.base import Channel, Reading

_INSTANT_S = 1e-9
"""Knots are at least so far apart."""

_LIKELY = 0.85
"""Where steps are foretold, bounds from many of them overlap, and 95 % of the steps lie within this part of what is
left: see tests/curve/test_update_times.py."""

_MEMORY = 4
"""For about so many steps the phase of a staircase stays off by the same: until a look corrects it."""


def later(time_s: float) -> float:
    """Return a time just after; a machine that has been up for a year resolves nanoseconds no more."""
    return max(time_s + _INSTANT_S, math.nextafter(time_s, math.inf))


class KnotWriter:
    """Adds the knots of one channel to its curve.

    Attributes:
        channel: Whose knots.
        curve: Where they go.
        readings: What was read.
        learned: What is known of how the sensor publishes.
        idle: What is known of the device's idle power.
        last_power_w: Mean power up to the newest knot.
        unseen_w: Mean power around the newest gap, before or after it, whichever is more; NaN if there was none.
        unclaimed_j: Energy that came to light after its time had been settled without it.
        returned: The channel was silent for a time, and an average has not been told yet.
    """

    def __init__(
        self, channel: Channel, curve: Curve, readings: Readings, learned: Learned, idle: Idle
    ) -> None:
        self.channel, self.curve = channel, curve
        self.readings, self.learned, self.idle = readings, learned, idle
        self.last_power_w = 0.0
        self.unseen_w = math.nan
        self.unclaimed_j = 0.0
        self.returned = False
        self._after_gap = False
        self._settled_gap_s: float | None = None

    def published(self, reading: Reading) -> Interval:
        """Return when the value just read was published."""
        readings, learned = self.readings, self.learned
        earliest = reading.before_s - 1.05 * learned.period_s
        last = readings.integrated if learned.sampled else readings.last
        if last is not None and last.outcome is Outcome.OK:
            earliest = max(earliest, last.before_s)
        if len(self.curve):
            known = not learned.sampled and not math.isnan(learned.published_s)
            ended_s = self.curve.end_s + learned.latency.value_s
            earliest = max(earliest, learned.published_s if known else ended_s)
        return Interval(min(earliest, reading.after_s), reading.after_s)

    def time_of(self, published: Interval, since_s: float) -> tuple[float, float]:
        """Return the time that a published value tells of, and how far off that may be but for the latency's error.

        Knots come at least half as far apart as publications: when a latency is put to use, the curve draws back
        to it step by step.

        Args:
            published: When it was published.
            since_s: How long after the value before; NaN if there is none.
        """
        time = published.middle_s - self.learned.latency.value_s
        earliest = time if math.isnan(since_s) else self.curve.end_s + max(since_s, 0.0) / 2
        return max(time, earliest), published.half_s + max(earliest - time, 0.0)

    def begin(self, time_s: float) -> None:
        """Add the first knot."""
        self.curve.append(time_s, 0.0, 0.0)

    def append(
        self,
        time_s: float,
        half_s: float,
        joules: float,
        *,
        rounding_j: float = 0.0,
        variance_j2: float = 0.0,
        seen: bool = True,
    ) -> None:
        """Add a knot, after giving up the part of its energy whose time has been settled without it.

        Args:
            time_s: When.
            half_s: How far off that may be, but for the latency's error.
            joules: Energy since the newest knot.
            rounding_j: 95 % half-width of the energy if its time were exact, beside the channel's quantum.
            variance_j2: Variance that the stretch adds to all that follows.
            seen: Whether the stretch was metered.
        """
        curve, end, learned = self.curve, self.curve.end_s, self.learned
        time_s = max(time_s, later(end))
        if self._settled_gap_s is not None:
            known_since = float(curve.knots[0, -2]) if len(curve) > 1 else end
            part = (end - known_since) / max(time_s - known_since, _INSTANT_S)
            self.unclaimed_j += joules * part
            joules *= 1 - part
            self._settled_gap_s = None
        power = joules / (time_s - end)
        around = max(power, self.last_power_w)
        if not seen:
            self._note_gap()
        self._draw(power)
        rounding_j += self.channel.quantum_j
        uncertainty = (half_s + learned.latency.error_s) * around + rounding_j
        # Which moment of a look its value is of, is the sensor's habit: the knots are off by the same, and by latency.
        habit, phase = min(half_s, self.readings.look_s / 2), 0.0
        own, shift = half_s - habit, math.hypot(habit, learned.latency.error_s)
        if learned.updates is not None and learned.updates.known:
            # Steps that are foretold from one another are off together, but for the sensor's jitter.
            own, phase = min(half_s, 2 * learned.updates.jitter_s), _LIKELY * own
            curve.steady_s = _MEMORY * learned.period_s
        curve.append(
            time_s,
            curve.energy_j + joules,
            uncertainty,
            half_s=own,
            rounding_j=rounding_j,
            phase_s=phase,
            shift_s=shift,
            idle=self.idle.fitted,
            seen=seen,
            variance_j2=variance_j2,
        )

    def append_sampled(self, elapsed_s: float, joules: float, variance_j2: float, watts: float) -> None:
        """Add the knot of a sampled power.

        Args:
            elapsed_s: How long after the newest knot.
            joules: Energy since then.
            variance_j2: Variance that the stretch adds to all that follows.
            watts: The power now.
        """
        curve = self.curve
        self._settled_gap_s = None
        self._draw(watts)
        curve.append(
            curve.end_s + elapsed_s,
            curve.energy_j + joules,
            self.channel.quantum_j * elapsed_s,
            idle=self.idle.fitted,
            variance_j2=variance_j2,
        )

    def leave_open(self, time_s: float, watts: float) -> None:
        """Lead the curve to a time up to which nobody knows the power: it was between idle and the limit.

        Args:
            time_s: When what is known begins again.
            watts: What is guessed.
        """
        curve = self.curve
        span_s = time_s - curve.end_s
        if span_s <= 0:
            return
        most_w = self.channel.max_power_w or min(curve.limit_w, MOST_POWER_W)
        least_w = self.idle.least_w or 0.0
        half_j = max(most_w - watts, watts - least_w, 0.0) * span_s
        self._note_gap()
        self._settled_gap_s = None
        curve.append(
            time_s, curve.energy_j + watts * span_s, 0.0, variance_j2=(half_j / SIGMAS_95) ** 2, seen=False
        )

    def settle_gap(self, time_s: float) -> None:
        """Close the curve at `time_s` without energy: somebody cannot wait for the next reading."""
        if len(self.curve) and time_s > self.curve.end_s:
            self._note_gap()
            self.curve.append_gap(time_s)
            self._settled_gap_s = time_s

    def break_off(self, time_s: float) -> None:
        """Close the curve at `time_s` without energy: its counter begins anew, so that all that it counts comes after."""
        self.settle_gap(time_s)
        self._settled_gap_s = None

    def go_on(self, time_s: float) -> None:
        """Go on at `time_s` after a silence, which stays uncovered."""
        if len(self.curve):
            self._note_gap()
            self.curve.append_gap(max(time_s, later(self.curve.end_s)))
            self._settled_gap_s = None
            self.returned = True

    def _note_gap(self) -> None:
        """Note what was drawn when a gap began."""
        self.unseen_w, self._after_gap = self.last_power_w, True

    def _draw(self, power_w: float) -> None:
        """Note the mean power up to a knot that is added."""
        self.last_power_w = power_w
        if self._after_gap:
            self.unseen_w, self._after_gap = max(self.unseen_w, power_w), False
