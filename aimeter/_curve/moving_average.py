"""From a published moving average back to energy: what a sensor says that looks at all of the time.

What is published at t is the mean power over the window before it, so with W the width of the window

    E(t) = E(t - W) + W * P(t),

exactly, whatever the power did inside. A sensor that is renewed every T with W = T is a counter in disguise. One
that averages over a second and is renewed every 100 ms holds ten interleaved chains of exact energies; what was
smeared over a second is told apart again to 100 ms.

The chains drift apart by the sensor's rounding, W times its half-width at each link, and how the energy of the window
before the first publication lay in it nobody knows. An average that stands still does not mend that: a load that keeps
step with the window has one, too. But no device draws less than its idle power: of a window with the mean power P only
(P - idle) * W can lie anywhere in it. At rest that is nothing, and the chains are joined again. So each energy is the
mean of what its own chain says and of what the one before says, weighted by the inverse of their variances.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from typing import NamedTuple

from aimeter._support.statistics import SIGMAS_95

ROUNDING_W = 0.5
"""Half-width of a published power around boxcar average, gain and offset: "Part-time Power Measurements", arXiv
2312.02741, artifact; 0.5 W rms in re-analysed records of an RTX 3090."""

_SIGMA_W = ROUNDING_W / SIGMAS_95
"""The same as a standard deviation."""

_UNEVEN = 0.08
"""Standard deviation of a published mean around that of an even window, as a part of what the mean changes by within
one: no real one is even. A step of the power shows in it by 0.09 every 100 ms, and by the missing 0.1 to 0.25 at
once when it is a second old (RTX 3090 and A5000: responses to a step in the recordings of "Part-time Power
Measurements")."""

_WHOLE = 1.5
"""A window of less than so many periods is renewed as a whole."""

_SAME = 0.25
"""Publications whose times are known to this part of the period can be told to be a window apart."""


_BETTER = 4.0
"""The chain before is heard if its variance is less than so many times that of a publication's own: of a load in step
with the window it is wrong in the same way each time, which no number of times mends."""


class _Point(NamedTuple):
    """Joules up to a publication, their variance, the half-width of its time, and the mean that was published."""

    time_s: float
    joules: float
    variance_j2: float
    half_s: float
    watts: float


class MovingAverage:
    """Cumulative energy from a power averaged over `window_s`, published every `period_s` or so.

    Args:
        window_s: Width of the averaging window, not below the period.
        period_s: Time between publications.
        most_idle_w: The most that the device may draw at rest. Until its idle power is known, the lowest mean seen is
            taken for it, but for no more than this.
    """

    def __init__(self, window_s: float, period_s: float, *, most_idle_w: float = math.inf) -> None:
        self.window_s = window_s
        self.period_s = period_s
        self._floor_w = most_idle_w
        self._points: deque[_Point] = deque()
        self._begun = False
        self._last_w = 0.0
        self.joules = 0.0
        """Joules up to the newest publication."""
        self.error_j = 0.0
        """95 % half-width of that, if the publication's time were exact."""
        self.step_j2 = 0.0
        """Variance that the newest publication adds to all later joules: of how long ago the one before it was."""

    def forget(self) -> None:
        """Start anew after a time in which publications were missed: of what is before the next window nothing is known."""
        self._points.clear()

    def publish(
        self, time_s: float, watts: float, *, half_s: float = 0.0, least_w: float | None = None
    ) -> float:
        """Return the joules up to `time_s`, counted from the first publication, at which `watts` was published.

        Args:
            time_s: Time of the publication.
            watts: Power published.
            half_s: Half-width of `time_s`.
            least_w: The least that the device draws; None if nothing is known, so that chains are not joined.
        """
        # Bounds of neighbouring publications overlap where looks are far apart.
        time_s = max(time_s, self._points[-1].time_s) if self._points else time_s
        lapse_s = time_s - self._points[-1].time_s if self._points else math.inf
        change_w, self._last_w = watts - self._last_w, watts
        self._floor_w = min(self._floor_w, watts)
        if self.window_s < _WHOLE * self.period_s and self._points:
            last = self._points[-1]
            # What is longer than a window ago, publications told of that nobody saw, as they said the same as the last.
            beyond_s = max(lapse_s - self.window_s, 0.0)
            joules = last.joules + (watts - change_w) * beyond_s + watts * (lapse_s - beyond_s)
            self.step_j2 = (half_s * change_w) ** 2
            point = _Point(time_s, joules, 0.0, half_s, watts)
            # A mean over a window that is off in time by h takes in h of what the power changed by.
            self.error_j = ROUNDING_W * self.window_s + half_s * abs(change_w)
        elif lapse_s >= self.window_s:
            point = self._begin(time_s, watts, lapse_s, half_s)
        else:
            # Over the window the power itself has changed by this: where time is off by h, energy is by h of it.
            swing_w = abs(change_w) * self.window_s / max(lapse_s, 0.5 * self.period_s)
            point = self._link(time_s, watts, half_s, least_w, swing_w)
            self.error_j = SIGMAS_95 * math.sqrt(point.variance_j2)
        self._points.append(point)
        while len(self._points) > 1 and self._points[1].time_s < time_s - self.window_s:
            self._points.popleft()
        # What was said before with less certainty is not taken back: it stands until the energy is beyond it.
        self.joules = max(self.joules, point.joules)
        self.error_j += self.joules - point.joules
        return self.joules

    def _begin(self, time_s: float, watts: float, lapse_s: float, half_s: float) -> _Point:
        """Start chains anew, from a window of which nothing is known but its mean."""
        joules = self.joules + watts * min(lapse_s, self.window_s) if self._begun else 0.0
        self._begun = True
        variance = (_SIGMA_W * self.window_s) ** 2
        start = _Point(time_s - self.window_s, joules - watts * self.window_s, variance, math.inf, watts)
        self._points = deque([start])
        return _Point(time_s, joules, variance, half_s, watts)

    def _link(
        self, time_s: float, watts: float, half_s: float, least_w: float | None, swing_w: float
    ) -> _Point:
        """Add a link to the chain that the publication belongs to."""
        floor_w = self._floor_w if least_w is None else least_w
        joules, variance = self._at(time_s - self.window_s, half_s, floor_w, swing_w)
        joules += watts * self.window_s
        means = [watts, *[point.watts for point in self._points]]
        variance += (math.hypot(_SIGMA_W, _UNEVEN * (max(means) - min(means))) * self.window_s) ** 2
        last = self._points[-1]
        if least_w is not None:
            lapse_s = time_s - last.time_s
            beside = last.variance_j2 + (_SIGMA_W * lapse_s) ** 2
            beside += _anywhere_j2(lapse_s / self.window_s, (watts - least_w) * self.window_s)
            if beside < _BETTER * variance:
                part = variance / (variance + beside)
                joules += part * (last.joules + watts * lapse_s - joules)
                variance *= 1 - part
        return _Point(time_s, joules, variance, half_s, watts)

    def _at(self, time_s: float, half_s: float, floor_w: float, swing_w: float) -> tuple[float, float]:
        """Return the joules up to an earlier time known to `half_s`, and their variance.

        A publication that may have been at that very time was: those of one chain are a window apart.
        """
        points = list(self._points)
        right = min(max(bisect_left(points, (time_s,)), 1), len(points) - 1)
        before, after = points[right - 1], points[right]
        near = before if time_s - before.time_s < after.time_s - time_s else after
        if abs(near.time_s - time_s) <= near.half_s + half_s <= _SAME * self.period_s:
            return near.joules, near.variance_j2
        span_s, step_j = after.time_s - before.time_s, after.joules - before.joules
        part = min(max((time_s - before.time_s) / span_s, 0.0), 1.0)
        variance = before.variance_j2 + part * (after.variance_j2 - before.variance_j2)
        variance += (half_s * swing_w / SIGMAS_95) ** 2
        return before.joules + part * step_j, variance + _anywhere_j2(part, step_j - floor_w * span_s)


def _anywhere_j2(part: float, energy_j: float) -> float:
    """Return the variance of what lies in a part of a stretch that may hold all of an energy at any one moment."""
    return part * (1 - part) * max(energy_j, 0.0) ** 2
