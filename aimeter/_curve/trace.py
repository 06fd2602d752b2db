"""From readings to a curve: what each reading of a channel adds to what is known of its energy.

A value is known to have been published between the reading that did not yet show it and the one that did,
and not longer ago than the sensor's update period; what is known of a staircase's other steps narrows that
further. The middle of that interval is the time of the knot; half of it, times the power around it, is the
knot's uncertainty.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aimeter._curve.activity import UNKNOWN, Quiet
from aimeter._curve.curve import Curve
from aimeter._curve.idle_fit import TAUS_S, UNSEEN_GLOW, Power, quiet_power
from aimeter._curve.moving_average import MovingAverage
from aimeter._curve.response import Published, Response
from aimeter._curve.response_fit import Estimate, Ramp
from aimeter._curve.update_probe import UpdateProbe
from aimeter._curve.update_times import Interval, UpdateTimes
from aimeter.sensors.base import MOST_POWER_W, Channel, Outcome, Reading

if TYPE_CHECKING:
    from aimeter._curve.calibration import Calibration

DEAD_AFTER_S = 2.0
"""A source that has not advanced for this long while it was read is unavailable, however present it looks."""

RETRY_S = 1.0
"""A channel that died is looked at this often, in case it comes back."""

_WHOLE = 0.9
"""A sensor whose averaging window is at least this part of its period sees all of the time."""

_ADOPTIONS = 4
"""What is learned of latency and window is put to use so many times at most: a curve is not to waver."""

_LEAST_PAUSE_S = 0.0005
"""Two readings of one channel are never closer."""

_INSTANT_S = 1e-9
"""Knots are at least so far apart."""

_STEPPED_S = 0.005
"""Counters renewed less often than this are staircases, whose steps are worth finding."""

_STUCK = 5
"""A power that stays the same for so many of its periods, or of the longest time that it has been known to, is stuck."""

_CHANGES = 32
"""Changes of a power that this is judged by; below a quarter of them nothing is said."""

_QUIET_STRETCHES = 64
"""Quiet stretches remembered for the afterglow."""

_IDLE_MEMORY_S = 600.0
"""The idle power is the lowest seen in this time, and beyond it until the device has rested again: it must outlast
hours without a pause, and follow a device whose idle power a loaded model has raised."""

_MOST_IDLE = 0.1
"""Until it is known, a device is taken to rest at no more than this part of its limit: an H100 of 700 W does at 75 W."""

_REST_S = 1.0
"""So long after the last call a device is taken to have come to rest."""

_IDLE_SLOTS = 60
"""The memory of the idle power is kept as the lowest of each of so many slots."""

_LIKELY = 0.85
"""Where steps are foretold, bounds from many of them overlap, and 95 % of the steps lie within this part of what is
left: see tests/curve/test_update_times.py."""

_MEMORY = 4
"""For about so many steps the phase of a staircase stays off by the same: until a look corrects it."""

_SLOWER = 1.2
"""How much longer the shortest look is taken to be from one look to the next, so that long ones are not forgotten."""

_UNSEEN_S, _UNSEEN = 0.05, 1.5
"""What was published while nobody read for longer than this, and than so many periods, is not guessed from what was
published before and after."""

_LEAPS, _LEAPS_S = 4, 60.0
"""A counter that falls or jumps so often in this time is not one meter. One garbled value makes two leaps, there and
back; one register that shows now this package, now that (hubblo-org/scaphandre#134) leaps every few seconds."""

_LATE_S, _LATE_PERIODS = 0.5, 5.0
"""A published value may be so old when it appears: for that time, or for so many periods where that is shorter, a
counter may have gained in addition to the time between two readings."""

_BELOW = 0.9
"""A short gap in which less than this part of the calibrated idle power was drawn contradicts it."""

_STANDS_S, _STANDS = 0.1, 3.0
"""A counter that stands still for longer than this, and than so many periods, has to catch up what it did not count."""

_LEAST_W = 0.5
"""No device that is metered draws less while it is on, whatever its idle power."""

_IDLE_STRETCH_S = 0.1
"""A quiet stretch teaches the idle power if its knots are this far apart, or a period of the sensor."""


def _later(time_s: float) -> float:
    """Return a time just after; a machine that has been up for a year resolves nanoseconds no more."""
    return max(time_s + _INSTANT_S, math.nextafter(time_s, math.inf))


class Step(Enum):
    """What a counter's new value means."""

    FIRST = "first"
    SAME = "same"
    FORWARD = "forward"
    WRAPPED = "wrapped"
    RESET = "reset"
    ABSURD = "absurd"
    LOST = "lost"
    """It may have wrapped more than once: any amount is possible."""


class Difference(NamedTuple):
    """A counter's difference that says how it came about, so that none is mistaken for another."""

    step: Step
    joules: float


def difference(
    previous_j: float | None,
    value_j: float,
    elapsed_s: float,
    wrap_j: float | None,
    max_power_w: float | None,
    late_s: float = _LATE_S,
) -> Difference:
    """Return what a counter's new value means.

    Args:
        previous_j: The value before, None if there is none.
        value_j: The value now.
        elapsed_s: Time between the two.
        wrap_j: Where the counter starts again from 0; None if it never does, so that a fall is a reset.
        max_power_w: The most the device can draw. A difference above twice that is absurd: counters have been
            seen to jump by 1e14 J.
        late_s: How old the value may be when it is published.
    """
    if previous_j is None:
        return Difference(Step.FIRST, 0.0)
    joules, step = value_j - previous_j, Step.FORWARD
    if joules == 0:
        return Difference(Step.SAME, 0.0)
    if joules < 0:
        if wrap_j is None:
            return Difference(Step.RESET, 0.0)
        joules, step = joules + wrap_j, Step.WRAPPED
    most_w = max_power_w or MOST_POWER_W
    if wrap_j is not None and most_w * elapsed_s > wrap_j:
        return Difference(Step.LOST, 0.0)
    # A published value can be a whole period old when it appears, which no short interval may be blamed for.
    limit_j = 2 * most_w * (elapsed_s + late_s)
    if joules < 0 or joules > limit_j:
        return Difference(Step.RESET if step is Step.WRAPPED else Step.ABSURD, 0.0)
    return Difference(step, joules)


class Trace:
    """One channel over time: its curve, its health, its idle power, and when to read it next.

    Attributes:
        channel: What is traced.
        curve: Its knots; None until the first value.
        alive: False once the channel is dead or gone; its curve then ends.
        gone: True once the device said that it will not answer any more, until it is tried again.
        barred: It is not tried again: it is not a meter.
        died_s: Until when the curve is known, if it is not alive.
        reason: Why it is not alive, or the last thing that went wrong.
        idle_w: Lowest power seen over a quiet stretch, as far as they are certain; until one was seen, that of the
            calibration.
        calibration: Where `idle_w` comes from; None if it was seen, or nothing is known.
        quiet: What the device draws while no call is open, for the shape of the curve.
        unclaimed_j: Energy that came to light after its time had been settled without it.
        latency: How late the published value is, as it is used; documented values have no error.
        window: Time over which a published power is the mean, as it is used.
        response: What was learned of both; None where nothing can be.
    """

    def __init__(  # noqa: PLR0915 - what is known of a channel
        self,
        channel: Channel,
        interval_s: float,
        calibration: Calibration | None = None,
        *,
        swing_w: float = 0.0,
    ) -> None:
        self.channel = channel
        self.interval_s = interval_s
        self.alive = True
        self.gone = False
        self.died_s = math.inf
        self.reason = ""
        self.unclaimed_j = 0.0
        self.faults = 0
        self.resets = 0
        self.last_power_w = 0.0
        self.latency = Estimate(channel.latency_s, channel.latency_error_s)
        self.window = Estimate(channel.window_s, 0.0)
        self._adoptions = 0
        self.curve = Curve(counted=True, max_power_w=channel.max_power_w, swing_w=swing_w)
        self._average: MovingAverage | None = None
        self._respond()
        stepped = channel.method == "counter" or channel.quantity == "power"
        stepped = stepped and channel.period_s > _STEPPED_S
        # An average over many periods is level too seldom, and a counter of a millisecond is never late enough.
        self.response = Response() if stepped and channel.window_s < 2 * channel.period_s else None
        if calibration is not None and self.response is not None:
            self._adopt(calibration.latency, calibration.window)
            self.response.sated = calibration.latency is not None
        period_s = (calibration and calibration.period_s) or channel.period_s
        self._updates = UpdateTimes(period_s, silent=channel.quantity == "power") if stepped else None
        self._probe: UpdateProbe | None = None
        if self._updates is not None and self.response is not None and channel.quantity == "power":
            self._probe = UpdateProbe(self._updates, self.response, channel.period_s)
        self._published_s = math.nan
        self._published_half_s = 0.0
        self._value: float | None = None
        self._read: Reading | None = None
        self._integrated: Reading | None = None
        self._moved_s = 0.0
        self._looked_s = math.inf
        self._returned = False
        self._still_s = -math.inf
        """When a counter was last seen not to have moved."""
        self._same_s = -math.inf
        """Since when the published value has been the same."""
        self._torn, self._torn_s = False, -math.inf
        """Until when an average was not seen, so that means over a window which begins before tell little."""
        self.barred = False
        self._leaps: deque[float] = deque(maxlen=_LEAPS)
        self._settled_gap_s: float | None = None
        self._look_s = math.inf
        self._idle: dict[int, Power] = {}
        self._lowest: Power | None = None
        self._changed_s = math.nan
        self._unchanged_s: deque[float] = deque(maxlen=_CHANGES)
        self._range_w = math.inf, -math.inf
        self._stuck_j2 = 0.0
        self._quiet: list[tuple[float, float, float, float]] = []
        self.quiet = UNKNOWN
        self.idle_w: float | None = None
        self._idle_error_w = 0.0
        self.calibration = calibration
        if calibration is not None:
            self.idle_w = calibration.idle_w
            self._idle_error_w = calibration.spread_w
            spread_w = max(calibration.spread_w, UNSEEN_GLOW * self.idle_w)
            self.quiet = Quiet(self.idle_w, 0.0, TAUS_S[0], spread_w)

    def inherit(self, other: Trace) -> None:
        """Take over what another trace of the same device saw of its idle power; the two differ by their gains."""
        if self.calibration is not None or not other._idle:
            return
        gain = math.hypot(self.channel.relative_error, other.channel.relative_error)
        self._idle = {
            slot: Power(power.watts, math.hypot(power.error_w, gain * power.watts))
            for slot, power in other._idle.items()
        }
        self.idle_w, self._idle_error_w = functools.reduce(Power.lower, self._idle.values())

    def _respond(self) -> None:
        """Integrate as latency and window ask for."""
        channel, window_s = self.channel, self.window.value_s
        self._sampled = channel.quantity == "power" and window_s < _WHOLE * channel.period_s
        if channel.quantity == "energy":
            return
        if self._sampled:
            self._average = None
            # What is not known of the latency is as if the sensor reached so much further.
            self.curve.reach_s = window_s + channel.period_s + self.latency.error_s
            self.curve.seen = min(window_s / channel.period_s, 1.0) if window_s else 1.0
        elif self._average is None:
            most_idle_w = _MOST_IDLE * (channel.max_power_w or math.inf)
            self._average = MovingAverage(window_s, channel.period_s, most_idle_w=most_idle_w)
        else:
            self._average.window_s = window_s
        self.curve.counted = not self._sampled

    def _adopt(self, latency: Estimate | None, window: Estimate | None) -> None:
        """Use what is learned in place of what is used, if that is not a possible value or much less certain."""
        better = [
            found if found and found.replaces(used) else None
            for found, used in ((latency, self.latency), (window, self.window))
        ]
        if self.channel.quantity == "energy":
            better[1] = None
        if better == [None, None] or self._adoptions == _ADOPTIONS:
            return
        self._adoptions += 1
        self.latency, self.window = better[0] or self.latency, better[1] or self.window
        self._respond()

    @property
    def period_s(self) -> float:
        """Time between updates of the published value, as far as it is known."""
        return self.channel.period_s if self._updates is None or self._sampled else self._updates.period_s

    @property
    def learned_period(self) -> Interval | None:
        """Between which times the period lies, by the updates seen; None where they are not foretold."""
        return None if self._updates is None else self._updates.learned_period

    @property
    def contradiction(self) -> str:
        """What another meter of the same device says against this one; empty if nothing."""
        return "" if self.curve.refiner is None else self.curve.refiner.contradiction

    @property
    def relative_error(self) -> float:
        """95 % half-width of the calibration relative to the energy: what another meter says against it included."""
        refiner = self.curve.refiner
        return max(self.channel.relative_error, 0.0 if refiner is None else refiner.disagreement)

    def resume(self, now_s: float) -> None:
        """Start watching the channel's health anew after a time without readings."""
        self._moved_s = now_s
        self._read = self._integrated = None
        if self._updates is not None:
            self._updates.forget()
        if self._probe is not None:
            self._probe.forget()

    def due_s(self, now_s: float, pace_s: float = 0.0) -> float:
        """Return when to read next: at the interval, or where a staircase's next step is best seen.

        Args:
            now_s: The time.
            pace_s: How often to look at a counter, if that is less often than the interval.
        """
        if self._read is None:
            return now_s
        last = self._read.after_s
        if not self.alive:
            return last + RETRY_S
        if self._sampled:
            interval_s = min(self.interval_s, self.period_s)
            return last + interval_s if self._probe is None else self._probe.due_s(last, interval_s)
        # A power is lost unless it is read; a counter that seems to have died is looked at closely.
        stalled = last - self._moved_s > pace_s + self.period_s
        hasty = stalled or self.channel.quantity == "power"
        interval_s = self.interval_s if hasty else max(self.interval_s, pace_s)
        if self._updates is None or self._updates.period_s < _STEPPED_S:
            # On a grid, so that many sensors are read in one go.
            return math.floor(last / interval_s + 1.0) * interval_s
        if self._read.outcome is not Outcome.OK:
            return last + min(interval_s, self.period_s)
        takes_s = last - self._read.before_s
        sparing = interval_s > self.interval_s
        look_s = self._updates.next_look_s(last, interval_s, takes_s, sparing=sparing)
        return max(look_s, last + _LEAST_PAUSE_S)

    def take(self, reading: Reading) -> None:
        """Add one reading to what is known."""
        if self.gone:
            return
        self._look_s = min(reading.after_s - reading.before_s, _SLOWER * max(self._look_s, _INSTANT_S))
        reading = self._plausible(reading)
        integrated = not self._sampled or self._probe is None or self._probe.take(reading)
        if reading.outcome is Outcome.OK and reading.value is not None:
            if not self.alive:
                self._revive(reading, reading.value)
            elif self._average is not None:
                self._take_average(reading, reading.value, self._average)
            elif self._sampled:
                if integrated:
                    self._take_power(reading, reading.value)
            else:
                self._take_energy(reading, reading.value)
        else:
            self.faults += 1
            self.reason = reading.reason
            if reading.outcome is Outcome.GONE:
                self.gone = True
                self._die()
        if self._read is None:
            self._moved_s = reading.after_s
        self._read = reading
        if integrated:
            self._integrated = reading
        if reading.outcome is Outcome.OK:
            self._looked_s = reading.after_s
        if self.alive and reading.after_s - self._moved_s >= DEAD_AFTER_S:
            self.reason = reading.reason or f"has not advanced for {DEAD_AFTER_S:g} s"
            self._die()

    def _plausible(self, reading: Reading) -> Reading:
        """Return a reading, or a failed one in its place if no device can draw what it says."""
        value, channel = reading.value, self.channel
        if reading.outcome is not Outcome.OK or value is None:
            return reading
        most = MOST_POWER_W if channel.max_power_w is None else 2 * channel.max_power_w
        if math.isfinite(value) and (channel.quantity == "energy" or 0 <= value <= most):
            return reading
        reason = f"reads {value:.6g} {'W' if channel.quantity == 'power' else 'J'}, which cannot be"
        return reading._replace(outcome=Outcome.AGAIN, value=None, reason=reason)

    def fall_silent(self, reason: str) -> None:
        """End the curve for now, as the sensor does not answer; its next answer revives it."""
        self.reason = reason
        self._die()

    def withdraw(self) -> None:
        """End the curve for good: the device is none of this process's, and nobody misses it."""
        self.alive, self.gone, self.died_s = False, True, -math.inf
        self.reason = ""

    def _die(self) -> None:
        self.alive = False
        self.died_s = self.curve.end_s if len(self.curve) else -math.inf

    def _revive(self, reading: Reading, value: float) -> None:
        """Go on after a time of silence, which stays uncovered; its energy, if counted, is nobody's."""
        if not self._sampled and value == self._value:
            return
        if not self._sampled and self._value is not None and value > self._value:
            self.unclaimed_j += value - self._value
        self.alive, self._value, self._moved_s = True, value, reading.after_s
        self._published_s = math.nan
        if self._updates is not None:
            self._updates.forget()
        if len(self.curve):
            self.curve.append_gap(max(reading.after_s, _later(self.curve.end_s)))
            self._settled_gap_s = None
            self._returned = True

    def settle_gap(self, time_s: float) -> None:
        """Close the curve at `time_s` without energy: somebody cannot wait for the next reading."""
        if len(self.curve) and time_s > self.curve.end_s:
            self.curve.append_gap(time_s)
            self._settled_gap_s = time_s

    def note_quiet(self, start_s: float, end_s: float, since_s: float) -> None:
        """Learn what the device draws from the knots inside a stretch in which no call was open.

        Args:
            start_s: Begin of the stretch.
            end_s: End of the stretch.
            since_s: When a call was last open.
        """
        self._note_response(since_s, end_s)
        if self.curve.refiner is not None:
            self.curve.refiner.rest(since_s, end_s)
        times, joules, half, rounding = self.curve.between(start_s, end_s)
        if times.size < 2:  # noqa: PLR2004 - a stretch has two ends
            return
        spans = np.diff(times)
        watts = np.diff(joules) / spans
        error = np.sqrt(watts**2 * (half[1:] ** 2 + half[:-1] ** 2) + rounding[1:] ** 2 + rounding[:-1] ** 2)
        self._quiet += zip(times[:-1] - since_s, times[1:] - since_s, watts, error / spans, strict=True)
        del self._quiet[:-_QUIET_STRETCHES]
        span_s = float(times[-1] - times[0])
        if span_s >= 0.9 * min(self.period_s, _IDLE_STRETCH_S):
            watts_w = float(joules[-1] - joules[0]) / span_s
            error_j = math.hypot(watts_w * half[0], watts_w * half[-1], rounding[0], rounding[-1])
            if watts_w > 0:
                power = Power(watts_w, error_j / span_s)
                self._note_idle(end_s, power, rested=start_s - since_s >= _REST_S)
        if self.idle_w is not None:
            quiet = quiet_power(np.array(self._quiet), self.idle_w)
            self.quiet = quiet._replace(spread_w=max(quiet.spread_w, self._idle_error_w / 1.96))

    def _note_response(self, since_s: float, until_s: float) -> None:
        """Learn latency and window from what was published after a call."""
        response = self.response
        if response is not None and response.rest(since_s, until_s, **self._known()):
            self._adopt(*response.ramp)

    def _known(self) -> dict[str, float]:
        return {
            "latency_s": self.latency.value_s,
            "window_s": self.window.value_s,
            "period_s": self.period_s,
        }

    def conclude(self) -> Ramp | None:
        """Return latency and window by all ends of calls so far; None where neither can be learned."""
        if self.response is None:
            return None
        self.response.conclude(**self._known())
        return self.response.ramp

    def _note_published(self, published: Interval, watts: float, span_s: float = math.nan) -> None:
        """Keep a published mean power for learning."""
        if self.response is not None:
            half = math.hypot(published.half_s, 0.0 if math.isnan(span_s) else self._published_half_s)
            self.response.publish(Published(published.middle_s, half, watts, span_s))
        self._published_s, self._published_half_s = published.middle_s, published.half_s

    def _note_idle(self, time_s: float, power: Power, *, rested: bool) -> None:
        """Keep the lowest power of a device at rest; a short gap between calls only bounds it from above."""
        if rested:
            slot = int(time_s * _IDLE_SLOTS / _IDLE_MEMORY_S)
            self._idle[slot] = power.lower(self._idle.get(slot))
            for old in [known for known in self._idle if known <= slot - _IDLE_SLOTS]:
                del self._idle[old]
        else:
            self._lowest = power.lower(self._lowest)
        most_w = power.watts + power.error_w
        if self.calibration is not None and not rested and most_w > _BELOW * self.calibration.idle_w:
            return
        self.calibration = None
        idle = self._lowest or power
        if self._idle:
            first, *others = self._idle.values()
            idle = functools.reduce(Power.lower, others, first)
        if most_w < idle.watts - idle.error_w:
            idle = power
        self.idle_w, self._idle_error_w = idle

    def _published(self, reading: Reading) -> Interval:
        """Return when the value just read was published."""
        earliest = reading.before_s - 1.05 * self.period_s
        last = self._integrated if self._sampled else self._read
        if last is not None and last.outcome is Outcome.OK:
            earliest = max(earliest, last.before_s)
        if len(self.curve):
            known = not self._sampled and not math.isnan(self._published_s)
            earliest = max(earliest, self._published_s if known else self.curve.end_s + self.latency.value_s)
        return Interval(min(earliest, reading.after_s), reading.after_s)

    def _take_energy(self, reading: Reading, value: float) -> None:
        channel = self.channel
        elapsed = max(reading.after_s - self._looked_s, 0.0)
        late_s = min(_LATE_S, _LATE_PERIODS * channel.period_s)
        stood_s = self._still_s - self._moved_s
        if stood_s > late_s:  # what it did not count meanwhile may come at once
            late_s = min(stood_s, DEAD_AFTER_S)
        found = difference(self._value, value, elapsed, channel.wrap_j, channel.max_power_w, late_s)
        if found.step is Step.SAME:
            self._still_s = reading.before_s
            return
        if found.step in {Step.FORWARD, Step.WRAPPED} and stood_s > max(_STANDS_S, _STANDS * self.period_s):
            least_w = max(0.5 * (self.idle_w or 0.0), _LEAST_W)
            if found.joules < least_w * (reading.after_s - self._moved_s):
                # It stood still and has not caught up: what was drawn meanwhile is lost.
                self._leave_open(self._still_s - self.latency.value_s, 0.0)
        if found.step is Step.ABSURD:
            self.faults += 1
            self.reason = f"jumped from {self._value:.6g} J to {value:.6g} J, more than the device can draw"
            self._value = value
            self.settle_gap(reading.after_s)
            self._leap(reading.after_s)
            return
        published = self._published(reading)
        self._value, self._moved_s = value, reading.after_s
        if found.step is Step.FIRST:
            self.curve.append(published.middle_s - self.latency.value_s, 0.0, 0.0)
            self._published_s, self._published_half_s = published.middle_s, published.half_s
            return
        if found.step in {Step.RESET, Step.LOST}:
            self.resets += found.step is Step.RESET
            self.reason = "the counter was reset"
            if found.step is Step.LOST:
                self.reason = f"was not read for {elapsed:.0f} s, in which it may have wrapped more than once"
            self.settle_gap(published.middle_s - self.latency.value_s)
            self._published_s = math.nan
            if found.step is Step.RESET:
                self._leap(reading.after_s)
            return
        if self._updates is not None and self._read is not None:
            published = self._updates.see(published)
        since_s = published.middle_s - self._published_s
        if since_s > 0:
            self._note_published(published, found.joules / since_s, since_s)
        self._append(*self._true(published, since_s), found.joules)

    def _leap(self, time_s: float) -> None:
        """Note that the counter fell, or jumped further than it can; give it up if that happens again and again."""
        self._leaps.append(time_s)
        if len(self._leaps) == _LEAPS and time_s - self._leaps[0] <= _LEAPS_S:
            self.reason = (
                f"fell or jumped {_LEAPS} times in {time_s - self._leaps[0]:.0f} s: it is not one meter"
            )
            self.gone = self.barred = True
            self._die()

    def _missed(self, reading: Reading) -> bool:
        """Return whether publications of a power were missed before this reading, so that nobody knows what they said."""
        return reading.before_s - self._looked_s > max(_UNSEEN_S, _UNSEEN * self.period_s)

    def _leave_open(self, time_s: float, watts: float) -> None:
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
        least_w = max((self.idle_w or 0.0) - self._idle_error_w, 0.0)
        half_j = max(most_w - watts, watts - least_w, 0.0) * span_s
        self._settled_gap_s = None
        curve.append(
            time_s, curve.energy_j + watts * span_s, 0.0, variance_j2=(half_j / 1.96) ** 2, seen=False
        )

    def _true(self, published: Interval, since_s: float) -> tuple[float, float]:
        """Return the time that a published value tells of, and how far off that may be but for the latency's error.

        Knots come at least half as far apart as publications: when a latency is put to use, the curve draws back
        to it step by step.
        """
        time = published.middle_s - self.latency.value_s
        earliest = time if math.isnan(since_s) else self.curve.end_s + max(since_s, 0.0) / 2
        return max(time, earliest), published.half_s + max(earliest - time, 0.0)

    def _append(self, time: float, half: float, joules: float, *, seen: bool = True) -> None:
        """Add a knot, after giving up the part of its energy whose time has been settled without it."""
        curve, end = self.curve, self.curve.end_s
        time = max(time, _later(end))
        if self._settled_gap_s is not None:
            known_since = float(curve.knots[0, -2]) if len(curve) > 1 else end
            part = (end - known_since) / max(time - known_since, _INSTANT_S)
            self.unclaimed_j += joules * part
            joules *= 1 - part
            self._settled_gap_s = None
        power = joules / (time - end)
        around = max(power, self.last_power_w)
        self.last_power_w = power
        rounding = self.channel.quantum_j
        if self._average is not None:
            rounding += self._average.error_j
        uncertainty = (half + self.latency.error_s) * around + rounding
        # Which moment of a look its value is of, is the sensor's habit: the knots are off by the same, and by latency.
        habit, phase = min(half, self._look_s / 2), 0.0
        own, shift = half - habit, math.hypot(habit, self.latency.error_s)
        if self._updates is not None and self._updates.known:
            # Steps that are foretold from one another are off together, but for the sensor's jitter.
            own, phase = min(half, 2 * self._updates.jitter_s), _LIKELY * own
            curve.steady_s = _MEMORY * self.period_s
        curve.append(
            time,
            curve.energy_j + joules,
            uncertainty,
            half_s=own,
            rounding_j=rounding,
            phase_s=phase,
            shift_s=shift,
            quiet=self.quiet,
            seen=seen,
            variance_j2=0.0 if self._average is None else self._average.step_j2,
        )

    def _take_average(  # noqa: PLR0915 - read from top to bottom
        self, reading: Reading, watts: float, average: MovingAverage
    ) -> None:
        """Add the energy of a power averaged over all of the time: its publications are the steps of a counter.

        A publication of the same value cannot be seen; it is known to have come when the staircase says so, or,
        as long as that is not known, once a period has passed.
        """
        updates = self._updates
        self._moved_s = reading.after_s
        missed, returned, self._returned = self._missed(reading), self._returned, False
        anew = returned or (missed and reading.before_s - self._looked_s > self.window.value_s)
        if anew:
            self._published_s = math.nan
            if updates is not None:
                updates.forget()
        if returned:
            self._torn_s = self.curve.end_s
        if watts != self._value or missed or returned:
            self._same_s = reading.after_s
            published = self._published(reading)
            if updates is not None and self._value is not None and self._read is not None and not anew:
                published = updates.see(published)
        else:
            due = None if updates is None else updates.passed(reading.before_s)
            if due is None:
                short = self.window.value_s < 2 * self.period_s
                patience = 2 if short or (updates is not None and updates.known) else 1
                if reading.before_s - max(self.curve.end_s, self._same_s if short else -math.inf) < (
                    patience * self.period_s
                ):
                    return
                due = Interval(reading.before_s - self.period_s, reading.after_s)
                if short:
                    # Whenever it was published again, up to there the power was the same.
                    due = Interval(due.earliest_s, due.earliest_s)
            published = due
        guess_w = watts if self._value is None else min(watts, self._value)
        self._value = watts
        reach_s = self.window.value_s + self.latency.value_s
        if published.earliest_s - reach_s < self._torn_s:
            return  # it tells of a time that was not seen as well, in unknown parts
        since_s = published.middle_s - self._published_s
        torn = False
        if math.isnan(since_s) and len(self.curve):
            average.forget()
            self._leave_open(published.middle_s - reach_s, guess_w)
        elif missed and len(self.curve):
            # All of what was not seen is in this mean, but when it was drawn is in none of the next ones.
            self._torn_s, torn = published.middle_s - self.latency.value_s - self.period_s / 2, True
        seen, self._torn = not (torn or self._torn), torn
        # By its publications, so that no joule is lost while the curve draws back to a latency.
        at = published.middle_s if math.isnan(since_s) else max(published.middle_s, _later(self._published_s))
        self._note_published(published, watts)
        time, half = self._true(published, since_s)
        if len(self.curve):
            time = max(time, _later(self.curve.end_s))
        if updates is not None and updates.known:
            average.period_s = updates.period_s
        before = average.joules
        least_w = None if self.idle_w is None else max(self.idle_w - self._idle_error_w, 0.0)
        joules = average.publish(at, watts, half_s=published.half_s, least_w=least_w) - before
        if not len(self.curve):
            self.curve.append(time, 0.0, 0.0)
            self.last_power_w = watts
            return
        self._append(time, half, joules, seen=seen)

    def _take_power(self, reading: Reading, watts: float) -> None:
        """Add the energy of a published power: of the period before it appeared, or held while it stays.

        What was published at t is a mean over the window before t, so it belongs to the time around the
        middle of the window: knots are shifted back by what the window exceeds the period.
        """
        shift = self.latency.value_s + max(self.window.value_s - self.channel.period_s, 0.0) / 2
        self._moved_s = reading.after_s
        previous, self._value = self._value, watts
        time = self._published(reading).middle_s - shift
        middle = (reading.before_s + reading.after_s) / 2 - shift
        if previous is None or not len(self.curve):
            self.curve.append(middle, 0.0, 0.0)
            self.last_power_w = watts
            return
        if self._missed(reading):
            # It may have been something else in between, whether it is the same now or not.
            self._leave_open(time - self.channel.period_s, min(watts, previous))
            self._changed_s, previous = math.nan, watts
        end = self.curve.end_s
        if watts == previous:
            time = middle
        elapsed = max(time, _later(end)) - end
        fresh = min(elapsed, self.channel.period_s) if watts != previous else elapsed
        joules = watts * fresh + previous * (elapsed - fresh)
        variance = (1 - self.curve.seen) * (0.5 * (watts - previous) * elapsed) ** 2
        variance += self._doubt(end + elapsed, watts, changed=watts != previous)
        if self._settled_gap_s is not None:
            self._settled_gap_s = None
        self.last_power_w = watts
        self.curve.append(
            end + elapsed,
            self.curve.energy_j + joules,
            self.channel.quantum_j * elapsed,
            quiet=self.quiet,
            variance_j2=variance,
        )

    def _doubt(self, time_s: float, watts: float, *, changed: bool) -> float:
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
        usual_s = max([self.period_s, self.interval_s, *self._unchanged_s])
        if len(self._unchanged_s) < _CHANGES // 4 or still_s < _STUCK * usual_s:
            return 0.0
        before, self._stuck_j2 = self._stuck_j2, (max(watts - least, most - watts) * still_s / 1.96) ** 2
        return self._stuck_j2 - before
