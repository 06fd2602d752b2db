"""The energy of a power averaged over all of the time: its publications are the steps of a counter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._curve.integrate.knots import later
from aimeter._curve.moving_average import MovingAverage
from aimeter._curve.update_times import Interval

if TYPE_CHECKING:
    from aimeter._curve.integrate.knots import KnotWriter
    from aimeter.sensors.base import Reading

_MOST_IDLE = 0.1
"""Until it is known, a device is taken to rest at no more than this part of its limit: an H100 of 700 W does at 75 W."""


class AverageIntegrator:
    """Takes the values of a power that is the mean over a window no shorter than its period.

    Args:
        knots: Adds knots to the curve.
    """

    def __init__(self, knots: KnotWriter) -> None:
        self._knots = knots
        self._average = self._moving_average()
        self._same_s = -math.inf
        """Since when the published value has been the same."""
        self._torn, self._torn_s = False, -math.inf
        """Until when an average was not seen, so that means over a window which begins before tell little."""

    def _moving_average(self) -> MovingAverage:
        channel, window_s = self._knots.channel, self._knots.learned.window.value_s
        most_idle_w = _MOST_IDLE * (channel.max_power_w or math.inf)
        return MovingAverage(window_s, channel.period_s, most_idle_w=most_idle_w)

    def use(self, *, anew: bool) -> None:
        """Integrate from now on over the window that is learned; `anew` if something else was done until now."""
        if anew:
            self._average = self._moving_average()
        self._average.window_s = self._knots.learned.window.value_s
        self._knots.curve.counted = True

    def take(self, reading: Reading, watts: float) -> None:
        """Add what a mean tells of to the curve, if it was published since the last reading."""
        knots, readings, learned, curve = (
            self._knots,
            self._knots.readings,
            self._knots.learned,
            self._knots.curve,
        )
        readings.moved_s = reading.after_s
        missed, returned, knots.returned = readings.missed(reading), knots.returned, False
        anew = returned or (missed and reading.before_s - readings.answered_s > learned.window.value_s)
        if anew:
            learned.published_s = math.nan
            learned.forget_updates()
        if returned:
            self._torn_s = curve.end_s
        before_w = readings.value
        if watts != before_w or missed or returned:
            published = self._changed(reading, anew=anew)
        else:
            unchanged = self._unchanged(reading)
            if unchanged is None:
                return
            published = unchanged
        readings.value = watts
        reach_s = learned.window.value_s + learned.latency.value_s
        if published.earliest_s - reach_s < self._torn_s:
            return  # it tells of a time that was not seen as well, in unknown parts
        since_s = published.middle_s - learned.published_s
        torn = False
        if math.isnan(since_s) and len(curve):
            self._average.forget()
            guess_w = watts if before_w is None else min(watts, before_w)
            knots.leave_open(published.middle_s - reach_s, guess_w)
        elif missed and len(curve):
            # All of what was not seen is in this mean, but when it was drawn is in none of the next ones.
            self._torn_s, torn = published.middle_s - learned.latency.value_s - learned.period_s / 2, True
        seen, self._torn = not (torn or self._torn), torn
        self._add(published, since_s, watts, seen=seen)

    def _changed(self, reading: Reading, *, anew: bool) -> Interval:
        """Return when a mean was published that differs from the last one, or is the first after some were missed."""
        readings, updates = self._knots.readings, self._knots.learned.updates
        self._same_s = reading.after_s
        published = self._knots.published(reading)
        if updates is not None and readings.value is not None and readings.last is not None and not anew:
            published = updates.see(published)
        return published

    def _unchanged(self, reading: Reading) -> Interval | None:
        """Return when the same mean was published again; None if it has not been since the newest knot.

        That cannot be seen; it is known to have come when the staircase says so, or, as long as that is not known,
        once a period has passed.
        """
        learned = self._knots.learned
        updates = learned.updates
        due = None if updates is None else updates.passed(reading.before_s)
        if due is not None:
            return due
        short = learned.window.value_s < 2 * learned.period_s
        patience = 2 if short or (updates is not None and updates.known) else 1
        since_s = max(self._knots.curve.end_s, self._same_s if short else -math.inf)
        if reading.before_s - since_s < patience * learned.period_s:
            return None
        earliest_s = reading.before_s - learned.period_s
        # Of a short window: whenever it was published again, up to there the power was the same.
        return Interval(earliest_s, earliest_s if short else reading.after_s)

    def _add(self, published: Interval, since_s: float, watts: float, *, seen: bool) -> None:
        """Add the knot of a mean, or begin with it."""
        knots, learned, curve, average = (
            self._knots,
            self._knots.learned,
            self._knots.curve,
            self._average,
        )
        # By its publications, so that no joule is lost while the curve draws back to a latency.
        at_s = published.middle_s
        if not math.isnan(since_s):
            at_s = max(at_s, later(learned.published_s))
        learned.note_published(published, watts)
        time_s, half_s = knots.time_of(published, since_s)
        if len(curve):
            time_s = max(time_s, later(curve.end_s))
        if learned.updates is not None and learned.updates.known:
            average.period_s = learned.updates.period_s
        before = average.joules
        joules = average.publish(at_s, watts, half_s=published.half_s, least_w=knots.idle.least_w) - before
        if not len(curve):
            knots.begin(time_s)
            knots.last_power_w = watts
            return
        knots.append(
            time_s, half_s, joules, rounding_j=average.error_j, variance_j2=average.step_j2, seen=seen
        )
