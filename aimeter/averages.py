"""From a published moving average back to energy: what a sensor says that looks at all of the time.

What is published at t is the mean power over the window before it, so with W the width of the window

    E(t) = E(t - W) + W * P(t),

exactly, whatever the power did inside. A sensor that is renewed every T with W = T is a counter in disguise. One
that averages over a second and is renewed every 100 ms holds ten interleaved chains of exact energies; what was
smeared over a second is told apart again to 100 ms.

The chains drift apart by the sensor's rounding: W times half of its last digit at each link. Whenever the power was
steady for a whole window all of them are equal again, and are set so.
"""

from __future__ import annotations

from collections import deque

ROUNDING_W = 0.5
"""Half-width of a published power around boxcar average, gain and offset: "Part-time Power Measurements", arXiv
2312.02741, artifact; 0.5 W rms in re-analysed records of an RTX 3090."""

_STEADY = 0.01
"""Powers that differ by less than this part, or by the rounding, are one steady power."""


class MovingAverage:
    """Cumulative energy from a power averaged over `window_s`, published every `period_s` or so.

    Args:
        window_s: Width of the averaging window, not below the period.
        period_s: Time between publications.
    """

    def __init__(self, window_s: float, period_s: float) -> None:
        self.window_s = window_s
        # A window of about one period is renewed as a whole.
        self._whole = window_s < 1.5 * period_s
        self._points: deque[tuple[float, float]] = deque()
        self._recent: deque[tuple[float, float]] = deque()
        self._first_w = 0.0
        self.joules = 0.0
        """Joules up to the newest publication."""

    def publish(self, time_s: float, watts: float) -> float:
        """Return the joules up to `time_s`, counted from the first publication, at which `watts` was published."""
        if not self._points:
            self._points.append((time_s, 0.0))
            self._recent.append((time_s, watts))
            self._first_w = watts
            return 0.0
        last_s, last_j = self._points[-1]
        self._recent.append((time_s, watts))
        while self._recent[0][0] < time_s - self.window_s:
            self._recent.popleft()
        powers = [power for _, power in self._recent]
        steady = max(powers) - min(powers) <= max(_STEADY * watts, ROUNDING_W)
        if self._whole:
            fresh = min(time_s - last_s, self.window_s)
            previous = self._recent[-2][1] if len(self._recent) > 1 else watts
            joules = last_j + watts * fresh + previous * (time_s - last_s - fresh)
        elif steady:
            joules = last_j + watts * (time_s - last_s)
        else:
            joules = max(self._at(time_s - self.window_s) + self.window_s * watts, last_j)
        self._points.append((time_s, joules))
        self.joules = joules
        while len(self._points) > 1 and self._points[1][0] < time_s - self.window_s:
            self._points.popleft()
        return joules

    def _at(self, time_s: float) -> float:
        """Return the joules up to an earlier time; before the first publication its power was drawn."""
        first_s, first_j = self._points[0]
        if time_s <= first_s:
            return first_j - self._first_w * (first_s - time_s)
        for (a_s, a_j), (b_s, b_j) in zip(self._points, list(self._points)[1:], strict=False):
            if time_s <= b_s:
                return a_j + (b_j - a_j) * (time_s - a_s) / (b_s - a_s)
        return self._points[-1][1]
