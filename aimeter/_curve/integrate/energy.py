"""The energy of a counter: each of its steps is a knot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._curve.counter import LATE_PERIODS, LATE_S, Difference, Leaps, Step, difference
from aimeter._curve.health import DEAD_AFTER_S

if TYPE_CHECKING:
    from aimeter._curve.health import Health
    from aimeter._curve.integrate.knots import KnotWriter
    from aimeter.sensors.base import Reading

_STANDS_S, _STANDS = 0.1, 3.0
"""A counter that stands still for longer than this, and than so many periods, has to catch up what it did not count."""

_LEAST_W = 0.5
"""No device that is metered draws less while it is on, whatever its idle power."""


class CounterIntegrator:
    """Takes the values of a counter.

    Args:
        knots: Adds knots to the curve.
        health: Is told of what is no difference.
    """

    def __init__(self, knots: KnotWriter, health: Health) -> None:
        self._knots, self._health = knots, health
        self._leaps = Leaps()
        self._still_s = -math.inf
        """When the counter was last seen not to have moved."""

    def use(self, *, anew: bool) -> None:
        """Integrate from now on; nothing that is learned makes a difference."""

    def take(self, reading: Reading, value: float) -> None:
        """Add what a counter counted to the curve."""
        knots, readings, learned = self._knots, self._knots.readings, self._knots.learned
        stood_s = self._still_s - readings.moved_s
        elapsed_s = max(reading.after_s - readings.answered_s, 0.0)
        found = self._difference(value, elapsed_s, stood_s)
        if found.step is Step.SAME:
            self._still_s = reading.before_s
            return
        if found.step in {Step.FORWARD, Step.WRAPPED}:
            self._leave_open_if_not_caught_up(reading, found.joules, stood_s)
        if found.step is Step.ABSURD:
            self._jump(reading, value)
            return
        published = knots.published(reading)
        readings.advance(reading, value)
        if found.step is Step.FIRST:
            knots.begin(published.middle_s - learned.latency.value_s)
            learned.published_s, learned.published_half_s = published.middle_s, published.half_s
            return
        if found.step in {Step.RESET, Step.LOST}:
            self._reset(reading, found.step, published.middle_s, elapsed_s)
            return
        if learned.updates is not None and readings.last is not None:
            published = learned.updates.see(published)
        since_s = published.middle_s - learned.published_s
        if since_s > 0:
            learned.note_published(published, found.joules / since_s, since_s)
        knots.append(*knots.time_of(published, since_s), found.joules)

    def _difference(self, value: float, elapsed_s: float, stood_s: float) -> Difference:
        channel = self._knots.channel
        late_s = min(LATE_S, LATE_PERIODS * channel.period_s)
        if stood_s > late_s:  # what it did not count meanwhile may come at once
            late_s = min(stood_s, DEAD_AFTER_S)
        before = self._knots.readings.value
        return difference(before, value, elapsed_s, channel.wrap_j, channel.max_power_w, late_s)

    def _leave_open_if_not_caught_up(self, reading: Reading, joules: float, stood_s: float) -> None:
        """Note that what was drawn while the counter stood still is lost, if it has not caught up."""
        knots = self._knots
        if stood_s <= max(_STANDS_S, _STANDS * knots.learned.period_s):
            return
        least_w = max(0.5 * (knots.idle.power_w or 0.0), _LEAST_W)
        if joules < least_w * (reading.after_s - knots.readings.moved_s):
            knots.leave_open(self._still_s - knots.learned.latency.value_s, 0.0)

    def _jump(self, reading: Reading, value: float) -> None:
        """Go on from a value that cannot be, as from any other."""
        before = self._knots.readings.value
        self._health.fail(f"jumped from {before:.6g} J to {value:.6g} J, more than the device can draw")
        self._knots.readings.value = value
        self._knots.break_off(reading.after_s)
        self._leap(reading.after_s)

    def _reset(self, reading: Reading, step: Step, published_s: float, elapsed_s: float) -> None:
        """Close the curve where the counter began again, or may have."""
        knots, health = self._knots, self._health
        health.resets += step is Step.RESET
        health.reason = "the counter was reset"
        if step is Step.LOST:
            health.reason = f"was not read for {elapsed_s:.0f} s, in which it may have wrapped more than once"
        knots.break_off(published_s - knots.learned.latency.value_s)
        knots.learned.published_s = math.nan
        if step is Step.RESET:
            self._leap(reading.after_s)

    def _leap(self, time_s: float) -> None:
        """Note that the counter fell, or jumped further than it can; give it up if that happens again and again."""
        reason = self._leaps.note(time_s)
        if reason:
            self._health.bar(reason, self._knots.curve.end_s)
