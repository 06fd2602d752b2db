"""The energy of a power that sees a part of the time: of the period before it appeared, or held while it stays."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from aimeter._curve.integrate.knots import later
from aimeter._support.statistics import SIGMAS_95

if TYPE_CHECKING:
    from aimeter._curve.integrate.knots import KnotWriter
    from aimeter.sensors.base import Reading

_STUCK = 5
"""A power that stays the same for so many of its periods, or of the longest time that it has been known to, is stuck."""

_CHANGES = 32
"""Changes of a power that this is judged by; below a quarter of them nothing is said."""


class PowerIntegrator:
    """Takes the values of a power that is sampled.

    Args:
        knots: Adds knots to the curve.
    """

    def __init__(self, knots: KnotWriter) -> None:
        self._knots = knots
        self._changed_s = math.nan
        self._unchanged_s: deque[float] = deque(maxlen=_CHANGES)
        self._range_w = math.inf, -math.inf
        self._stuck_j2 = 0.0

    def use(self, *, anew: bool) -> None:  # noqa: ARG002 - as of all integrators
        """Integrate from now on: the curve has no bounds but what the window and the latency that are learned may hide."""
        curve, channel, learned = self._knots.curve, self._knots.channel, self._knots.learned
        window_s = learned.window.value_s
        # What is not known of the latency is as if the sensor reached so much further.
        curve.reach_s = window_s + channel.period_s + learned.latency.error_s
        curve.seen = min(window_s / channel.period_s, 1.0) if window_s else 1.0
        curve.counted = False

    def take(self, reading: Reading, watts: float) -> None:
        """Add the energy of a published power to the curve.

        What was published at t is a mean over the window before t, so it belongs to the time around the
        middle of the window: knots are shifted back by what the window exceeds the period.
        """
        knots, readings, learned, curve = (
            self._knots,
            self._knots.readings,
            self._knots.learned,
            self._knots.curve,
        )
        period_s = knots.channel.period_s
        shift_s = learned.latency.value_s + max(learned.window.value_s - period_s, 0.0) / 2
        previous = readings.value
        readings.advance(reading, watts)
        time_s = knots.published(reading).middle_s - shift_s
        middle_s = (reading.before_s + reading.after_s) / 2 - shift_s
        if previous is None or not len(curve):
            knots.begin(middle_s)
            knots.last_power_w = watts
            return
        if readings.missed(reading):
            # It may have been something else in between, whether it is the same now or not.
            knots.leave_open(time_s - period_s, min(watts, previous))
            self._changed_s, previous = math.nan, watts
        end_s = curve.end_s
        if watts == previous:
            time_s = middle_s
        elapsed_s = max(time_s, later(end_s)) - end_s
        fresh_s = min(elapsed_s, period_s) if watts != previous else elapsed_s
        joules = watts * fresh_s + previous * (elapsed_s - fresh_s)
        # Of what is only looked at for an instant, when it changed between two looks is open.
        unseen = 1.0 if learned.continuous and not learned.window.value_s else 1 - curve.seen
        variance_j2 = unseen * (0.5 * (watts - previous) * elapsed_s) ** 2
        variance_j2 += self._doubt_j2(end_s + elapsed_s, watts, changed=watts != previous)
        knots.append_sampled(elapsed_s, joules, variance_j2, watts)

    def _doubt_j2(self, time_s: float, watts: float, *, changed: bool) -> float:
        """Return by how much the variance of the energy grows because a power that stays the same may be stuck.

        Noise changes a power of milliwatts at every update. One that stands still for much longer than it ever
        did may really be anything that it has been before: an error that grows with the time, not its root.
        """
        least, most = self._range_w
        self._range_w = min(least, watts), max(most, watts)
        if changed or math.isnan(self._changed_s):
            if not math.isnan(self._changed_s) and not self._stuck_j2:
                self._unchanged_s.append(time_s - self._changed_s)
            self._changed_s, self._stuck_j2 = time_s, 0.0
            return 0.0
        still_s = time_s - self._changed_s
        usual_s = max([self._knots.learned.period_s, self._knots.readings.interval_s, *self._unchanged_s])
        if len(self._unchanged_s) < _CHANGES // 4 or still_s < _STUCK * usual_s:
            return 0.0
        before, self._stuck_j2 = self._stuck_j2, (max(watts - least, most - watts) * still_s / SIGMAS_95) ** 2
        return self._stuck_j2 - before
