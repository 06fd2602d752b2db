"""Power windows: what a power that is published now and then tells about the inside of a counter's step.

A counter gives the amount of a step. Where calls meet in a step, how much of it is whose is open; many devices publish
a power as well, the mean over a short window (25 ms of every 100 ms on A100 and H100). Such a window is a second
amount, of a part of the step: together they narrow down what each stretch of calls drew.

The two meters of a device differ in gain, and documents may be wrong about the window. So the gain is learned from
windows in which nothing began or ended, latency and window from the ends of calls, and until they are, what lies at the
edges of a window counts for little.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aimeter._curve.resolution import half_width
from aimeter._curve.response import Published, Response
from aimeter._curve.response_fit import Estimate
from aimeter._curve.step_shape import UNLIKE, Step
from aimeter._curve.update_probe import heard
from aimeter._curve.update_times import UpdateTimes
from aimeter._support.statistics import SIGMAS_95, SIGMAS_PER_MAD
from aimeter.sensors.base import Outcome

if TYPE_CHECKING:
    from aimeter._curve.activity import Activity, Array
    from aimeter._curve.curve import Curve
    from aimeter.sensors.base import Channel, Reading

_WANTED_S = 10.0
"""The power is read for so long after a step in which calls met."""

_REMEMBERED = 64
"""Windows kept: more than there are in the steps that are not settled yet."""

_GAINS, _LEAST_GAINS = 32, 4
"""Windows that the gain is learned from, and without how many nothing is made of it."""

_TRIALS, _LEAST_TRIALS = 16, 4
"""Readings of the power beside a steady counter that tell whether the two agree, and without how many nothing is said."""

_TRY_EVERY_S = 5.0
"""Once there are so many, one more is made this often: meters may begin to contradict each other."""

_STEADY = 0.05
"""A counter is steady if its power over two periods in turn differs by less than this part."""

_CLEAR = 0.03
"""A window whose energy the counter tells to this part teaches the gain."""

_LEAST_GAIN_ERROR, _MOST_GAIN_ERROR = 0.005, 0.2
"""Relative 95 % half-width of the gain: never better, and beyond which the two meters contradict each other."""

_MEDIAN = 1.2533
"""Standard deviation of the median of normal values, times the root of their number, in theirs."""

_BLUR, _LATE = 0.3, 0.5
"""Part of a window by which it may be longer or shorter than documented, and by which it may be late, until both are
learned: 18 instead of 25 ms have been found on nodes with an A100, and a rise from 10 to 90 % in 50 ms, where 25 ms
alone take 20 ("Part-time Power Measurements", arXiv 2312.02741)."""

_SHARP = 0.2
"""A window whose end is known less well than to this part of it is left out."""

_STUCK = 3
"""A power published so many times over without a change is that of a device at rest, or of a sensor that is stuck."""

_PATIENCE = 32
"""After so many readings without a change it is not looked for closely any more."""

_UNEVEN = 0.3
"""Standard deviation of the mean power of a part of a call around that of the whole: spikes, plateaus, pauses."""

_CHILDREN = 1.5
"""The same between calls where some run inside others, as of a host that waits and a kernel that runs."""

_MOST_SEGMENTS = 64
"""In a step with more edges than this no window sees any one of the stretches."""

_CONTRADICTION = 0.1
"""Windows that leave less than nothing for the rest, by this part of the step, are of something else."""


class PowerWindow(NamedTuple):
    """The energy of one window by the power sensor's own scale, and the counter's curve at both ends."""

    begin_s: float
    end_s: float
    energy_j: float
    half_s: float
    begin_j: float
    begin_half_j: float
    end_j: float
    end_half_j: float


class PowerWindows:
    """The published power of a device whose energy is counted.

    Args:
        channel: The power.
        curve: The counter's curve, which it makes finer.
        interval_s: Longest time between two readings.

    Attributes:
        gone: True once the device said that it will not answer any more.
    """

    def __init__(self, channel: Channel, curve: Curve, interval_s: float) -> None:
        self.interval_s = interval_s
        self.gone = False
        self._channel = channel
        self._curve = curve
        self._updates = UpdateTimes(channel.period_s, silent=True)
        self._read: Reading | None = None
        self._same = self._unchanged = 0
        self._new: deque[tuple[float, float, float]] = deque(maxlen=_REMEMBERED)
        self._known: deque[PowerWindow] = deque(maxlen=_REMEMBERED)
        self._latency = Estimate(channel.latency_s, max(channel.latency_error_s, _LATE * channel.window_s))
        self._window = Estimate(channel.window_s, _BLUR * channel.window_s)
        self._response = Response()
        self._gains: deque[float] = deque(maxlen=_GAINS)
        self._rough: deque[float] = deque(maxlen=_GAINS)
        self._trials: deque[tuple[float, float]] = deque(maxlen=_TRIALS)
        self._ratios: deque[float] = deque(maxlen=_TRIALS)
        self._tried_s = -math.inf
        curve.refiner = self

    def due_s(self, now_s: float) -> float:
        """Return when to read next: never, unless calls met in a step not long ago, or few readings were compared."""
        if now_s - self._curve.doubted_s > _WANTED_S:
            many = len(self._ratios) == _TRIALS
            return max(self._tried_s + (_TRY_EVERY_S if many else 2 * self._channel.period_s), now_s)
        read = self._read
        if read is None or read.outcome is not Outcome.OK:
            return now_s if read is None else read.after_s + self._channel.period_s
        look_s = self._updates.next_look_s(read.after_s, self.interval_s, read.after_s - read.before_s)
        return look_s if self._unchanged < _PATIENCE else max(look_s, read.after_s + self.interval_s)

    def resume(self) -> None:
        """Start anew after a time without readings."""
        self._read = None
        self._updates.forget()

    def take(self, reading: Reading) -> None:
        """Add one reading to what is known."""
        self.gone = reading.outcome is Outcome.GONE
        if reading.value is not None:
            self._trials.append((reading.before_s, reading.value))
        self._tried_s = reading.after_s
        if reading.before_s - self._curve.doubted_s > _WANTED_S:
            self._read = None
            return
        last, self._read = self._read, reading
        if last is None or last.value is None or reading.value is None:
            return
        published = heard(self._updates, last, reading)
        if reading.value != last.value:
            self._same = self._unchanged = 0
        else:
            self._same += published is not None
            self._unchanged += 1
        if published is None:
            return
        half_s = published.half_s
        self._response.publish(Published(published.middle_s, half_s, reading.value, math.nan))
        if self._same < _STUCK and half_s <= _SHARP * self._window.value_s:
            self._new.append((published.middle_s, half_s, reading.value))

    def rest(self, since_s: float, until_s: float) -> None:
        """Learn how late the power is and how far back it looks, from what was published after a call.

        Args:
            since_s: When a call was last open.
            until_s: Until when none has been since.
        """
        late_s, window_s, period_s = self._latency.value_s, self._window.value_s, self._updates.period_s
        if self._response.rest(since_s, until_s, latency_s=late_s, window_s=window_s, period_s=period_s):
            latency, window = self._response.ramp
            if latency is not None and latency.error_s < self._latency.error_s:
                self._latency = latency
                self._gains.clear()
            if window is not None and window.error_s < self._window.error_s:
                self._window = window
                self._gains.clear()

    def compare(self, activity: Activity) -> None:
        """Hold new windows against the counter's curve, as far as that is known: the gain is learned from them."""
        self._try(activity)
        until_s, window_s = self._curve.end_s + self._latency.value_s, self._window.value_s
        new = [self._new.popleft() for _ in range(sum(end <= until_s for end, _, _ in self._new))]
        if not new:
            return
        ends, half, watts = np.array(new).T
        ends -= self._latency.value_s
        begins = ends - window_s
        points = self._curve.at(np.concatenate([begins, ends]), activity, finely=False)
        energy = points.energy_j.reshape(2, -1)
        half_j = half_width(points).reshape(2, -1)
        by_power = watts * window_s
        counted = energy[1] - energy[0]
        steady = activity.edges(begins - half, ends + half) == 0
        drawn = (counted > 0) & (by_power > 0)
        gains = np.divide(counted, by_power, out=np.zeros_like(counted), where=drawn)
        clear = drawn & (np.hypot(*half_j) <= _CLEAR * counted)
        self._gains.extend(gains[steady & clear].tolist())
        self._rough.extend(gains[drawn].tolist())
        columns = (begins, ends, by_power, half, energy[0], half_j[0], energy[1], half_j[1])
        self._known.extend(PowerWindow(*row) for row in np.column_stack(columns).tolist())

    def _try(self, activity: Activity) -> None:
        """Compare what was read with the counter where that was steady: then any window near it saw the same power."""
        period_s = self._channel.period_s
        while self._trials and self._trials[0][0] <= self._curve.end_s:
            read_s, watts = self._trials.popleft()
            times_s = read_s + period_s * np.array([-2.0, -1.0, 0.0])
            if activity.edges(times_s[:1], times_s[-1:])[0]:
                continue
            before_w, after_w = (np.diff(self._curve.at(times_s, finely=False).energy_j) / period_s).tolist()
            if watts > 0 and before_w > 0 and abs(after_w - before_w) <= _STEADY * before_w:
                self._ratios.append((before_w + after_w) / 2 / watts)

    @property
    def compared(self) -> bool:
        """Whether enough readings were compared to say whether counter and power agree."""
        return len(self._ratios) >= _LEAST_TRIALS

    @property
    def contradiction(self) -> str:
        """What counter and power say against each other, if they differ by more than their calibration allows."""
        if not self.disagreement:
            return ""
        return f"its counter gives {100 * self._ratio():.0f} % of what its power gives: one of them is wrong"

    @property
    def disagreement(self) -> float:
        """By which part of the counter's energy the truth is more or less if the power is right; 0 if both may be."""
        if not self.compared:
            return 0.0
        ratio = self._ratio()
        return abs(1 / ratio - 1) if abs(ratio - 1) > math.sqrt(2) * self._channel.relative_error else 0.0

    def _ratio(self) -> float:
        return float(np.median(self._ratios))

    @property
    def gain(self) -> tuple[float, float] | None:
        """The counter's energy over the power's, and its 95 % half-width; None if unknown, or if they contradict."""
        if len(self._gains) >= _LEAST_GAINS:
            gain, error = _middle(self._gains)
        elif len(self._rough) == _GAINS:
            # A device that never rests: calls are as often before a window as in it.
            gain, error = _middle(self._rough)
            error *= _MEDIAN / math.sqrt(_GAINS)
        else:
            return None
        return (gain, max(error, _LEAST_GAIN_ERROR * gain)) if error <= _MOST_GAIN_ERROR * gain else None

    def refine(self, times_s: Array, step: Step) -> tuple[Array, Array] | None:
        """Return how much of a step's excess lies before each time, and its 95 % half-width; None if that is open.

        The mean powers of the stretches between edges are taken to be around one mean with a known scatter. What
        windows saw, and that all stretches add up to the excess, are conditions on them.

        Args:
            times_s: Times inside the step.
            step: What is known of it.
        """
        gain = self.gain
        seen = [one for one in self._known if one.begin_s < step.end_s and one.end_s > step.begin_s]
        bounds = step.bounds()
        if gain is None or not seen or bounds.size > _MOST_SEGMENTS:
            return None
        open_then = step.activity.is_open((bounds[1:] + bounds[:-1]) / 2)
        begins, lengths = bounds[:-1][open_then], np.diff(bounds)[open_then]
        mean_w = step.excess_j / float(lengths.sum())
        scatter = (_CHILDREN if step.mixed else UNLIKE / SIGMAS_95) * mean_w
        conditions = [lengths]
        amounts, variances = [step.excess_j], [0.0]
        for one in seen:
            window_s = np.clip(np.array([one.begin_s, one.end_s]), step.begin_s, step.end_s)
            part = np.clip(window_s[1] - begins, 0, lengths) - np.clip(window_s[0] - begins, 0, lengths)
            if not part.any():
                continue
            idle_j = np.diff(step.idle_j(window_s))[0]
            amount = gain[0] * one.energy_j - idle_j
            variance = (gain[1] * one.energy_j / SIGMAS_95) ** 2
            if one.begin_s < step.begin_s:
                amount -= step.begin_j - one.begin_j
                variance += (one.begin_half_j / SIGMAS_95) ** 2
            if one.end_s > step.end_s:
                amount -= one.end_j - step.end_j
                variance += (one.end_half_j / SIGMAS_95) ** 2
            blur_s = self._window.error_s + self._latency.error_s + one.half_s
            if step.mixed and self._response.ramp.latency is None:
                # A call beside a window may draw many times what is in it.
                blur_s = max(blur_s, one.end_s - one.begin_s)
            if step.activity.edges(*(window_s[:, None] + [[-blur_s], [blur_s]]))[0]:
                variance += (mean_w * blur_s / SIGMAS_95) ** 2
            variance += float(np.sum((_UNEVEN * mean_w * part * (1 - part / lengths)) ** 2))
            conditions.append(part)
            amounts.append(amount)
            variances.append(variance)
        if len(conditions) == 1:
            return None
        powers, covariance = conditioned(
            np.full(lengths.size, mean_w),
            scatter,
            np.array(conditions),
            np.array(amounts),
            np.array(variances),
        )
        kept = np.maximum(powers, 0.0)
        if float((kept - powers) @ lengths) > _CONTRADICTION * step.excess_j:
            return None
        kept *= step.excess_j / float(kept @ lengths)
        before = np.clip(times_s[:, None] - begins, 0, lengths)
        inside = UNLIKE / SIGMAS_95 * kept * before * (1 - before / lengths)
        variance_j2 = np.einsum("ij,jk,ik->i", before, covariance, before) + np.sum(inside**2, axis=1)
        return before @ kept, SIGMAS_95 * np.sqrt(np.maximum(variance_j2, 0.0))


def _middle(values: Iterable[float]) -> tuple[float, float]:
    """Return the median, and the 95 % half-width of one value around it, by the median distance from it."""
    known = np.array(values)
    middle = float(np.median(known))
    return middle, SIGMAS_95 * SIGMAS_PER_MAD * float(np.median(np.abs(known - middle)))


def conditioned(
    means: Array, deviation: float, conditions: Array, amounts: Array, variances: Array
) -> tuple[Array, Array]:
    """Return mean and covariance of independent normal quantities, given linear conditions on them.

    With prior N(m, s² I), conditions H x = z ± r: x = m + K (z - H m), C = s² (I - K H), K = s² Hᵀ (s² H Hᵀ + R)⁻¹
    (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, appendix A.2).

    Args:
        means: Prior means, shape (n,).
        deviation: Prior standard deviation of each.
        conditions: H, shape (m, n).
        amounts: z, shape (m,).
        variances: Diagonal of R, shape (m,); 0 for what is exact.
    """
    prior = deviation**2
    spread = prior * conditions @ conditions.T + np.diag(variances)
    gain = prior * np.linalg.solve(spread, conditions).T
    return means + gain @ (amounts - conditions @ means), prior * (np.eye(means.size) - gain @ conditions)
