"""What the ends of calls teach about one channel: which publications are of use, and what they say; see `ramp`."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from aimeter._curve.activity import Array
from aimeter._curve.response_fit import FEWEST, Ramp, fit
from aimeter._support.statistics import SIGMAS_PER_MAD

LATE_S = 0.05
"""No sensor is taken to be later than its period and this."""

_FALLS = 192
"""Publications after ends of calls that are remembered; what is older may be of another time."""

_RECENT = 256
"""Publications remembered until the calls around them are settled."""

_ALIKE = 0.2
"""The last two means before an end must agree to this part: a call's level must have been reached."""

_FALL = 0.3
"""What does not fall by this part of the level before says little."""

_CLEAR = 0.25
"""A mean is of idle time if it begins this part of a period after the latency that is known until now."""

_TAUS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Time constants tried for the power after a call."""


class Published(NamedTuple):
    """A mean power that was published.

    Attributes:
        time_s: When.
        half_s: How far off that may be.
        watts: The mean power.
        span_s: Time that it is the mean of, where that is known, as for a counter; otherwise NaN.
    """

    time_s: float
    half_s: float
    watts: float
    span_s: float


class Fall(NamedTuple):
    """A publication after the end of a call.

    Attributes:
        after_s: How long after.
        half_s: How far off that may be.
        watts: The mean power.
        span_s: Time that it is the mean of, where that is known; otherwise NaN.
        level_w: The power before the end.
    """

    after_s: float
    half_s: float
    watts: float
    span_s: float
    level_w: float


def points_of(falls: Array, *, latency_s: float, window_s: float, period_s: float) -> Array | None:
    """Return the points of the ramp that publications make; None if too few of them show the idle power.

    The idle power is fitted to those that are wholly of idle time as ``idle + decay * exp(-s / tau)``.

    Args:
        falls: One `Fall` a row, shape (n, 5).
        latency_s: Latency as it is known until now.
        window_s: Window likewise, where publications have no span of their own.
        period_s: Time between publications.
    """
    after, half, watts, span, level = falls.T
    width = np.where(np.isnan(span), window_s, span)
    whole = after - width >= latency_s + _CLEAR * period_s
    if np.count_nonzero(whole) < FEWEST:
        return None
    begin = np.maximum(after - width, 0.0)
    best: tuple[float, Array] = (math.inf, watts)
    for tau in _TAUS_S:
        shape = tau * (np.exp(-begin / tau) - np.exp(-after / tau)) / np.maximum(after - begin, 1e-9)
        idle, spread = _robust_line(shape[whole], watts[whole])
        if spread < best[0]:
            best = spread, idle[0] + idle[1] * shape
    spread, idle_w = best
    fall = level - idle_w
    clear = fall >= _FALL * level
    fall = np.where(clear, fall, 1.0)
    # How a device comes to rest is known where it was seen, and half as well where it is extrapolated to.
    doubt = (spread + np.abs(idle_w - np.median(idle_w[whole])) / 2) / fall
    points: Array = np.stack([after, half, (level - watts) / fall, span, doubt], axis=1)
    return np.asarray(points[clear])


def _robust_line(x: Array, y: Array) -> tuple[tuple[float, float], float]:
    """Fit ``a + b * x``, b not below 0, to all but a quarter of the points; return both and the scatter."""
    kept = np.ones(x.size, dtype=bool)
    intercept = slope = spread = 0.0
    for _ in range(3):
        slope = float(np.cov(x[kept], y[kept])[0, 1] / max(np.var(x[kept], ddof=1), 1e-12))
        slope = max(slope, 0.0)
        intercept = float(np.median(y[kept] - slope * x[kept]))
        off = np.abs(y - intercept - slope * x)
        spread = SIGMAS_PER_MAD * float(np.median(off))
        kept = off <= np.quantile(off, 0.75)
    return (intercept, slope), spread


class Response:
    """What one channel's publications around the ends of calls have taught.

    Attributes:
        ramp: Latency and window as far as they are learned.
        sated: Whether so much was learned from that it is not worth extra readings any more.
    """

    def __init__(self) -> None:
        self.ramp = Ramp(None, None)
        self.sated = False
        self._recent: deque[Published] = deque(maxlen=_RECENT)
        self._falls: deque[Fall] = deque(maxlen=_FALLS)
        self._fresh = 0
        self._busy_s = self._since_s = math.nan
        self._until_s = self._heard_s = -math.inf

    def publish(self, published: Published) -> None:
        """Take note of a mean power."""
        self._recent.append(published)

    def rest(
        self, since_s: float, until_s: float, *, latency_s: float, window_s: float, period_s: float
    ) -> bool:
        """Learn from what was published after a call; return whether something new is known.

        Args:
            since_s: When a call was last open.
            until_s: Until when none has been since, and up to which everything published is known.
            latency_s: Latency as it is known until now.
            window_s: Window likewise, where publications have no span of their own.
            period_s: Time between publications.
        """
        if since_s != self._since_s:
            # The call before this end began, at the earliest, when the last idle time was over.
            self._busy_s, self._since_s = self._until_s, since_s
        self._until_s = until_s
        heard_s, self._heard_s = self._heard_s, until_s
        level_w = self._level(period_s, window_s)
        if level_w is None:
            return False
        for one in self._recent:
            after_s = one.time_s - since_s
            if max(since_s, heard_s) < one.time_s <= until_s and after_s < LATE_S + 2 * period_s:
                self._falls.append(Fall(after_s, one.half_s, one.watts, one.span_s, level_w))
                self._fresh += 1
        if self._fresh < max(FEWEST, len(self._falls) / 2):
            return False
        self.sated = self.sated or len(self._falls) == _FALLS
        return self.conclude(latency_s=latency_s, window_s=window_s, period_s=period_s)

    def conclude(self, *, latency_s: float, window_s: float, period_s: float) -> bool:
        """Learn from all that was seen so far; arguments and result as of `rest`."""
        self._fresh = 0
        if len(self._falls) < FEWEST:
            return False
        points = points_of(np.array(self._falls), latency_s=latency_s, window_s=window_s, period_s=period_s)
        if points is None:
            return False
        found = fit(points, latest_s=period_s + LATE_S, period_s=period_s, widest_s=1.2 * period_s)
        if found is None:
            return False
        self.ramp = Ramp(found.latency or self.ramp.latency, found.window or self.ramp.window)
        return True

    def _level(self, period_s: float, window_s: float) -> float | None:
        """Return the power of the call that ended, by the last two means of it; None if they differ."""
        before = [one for one in self._recent if one.time_s + one.half_s <= self._since_s][-2:]
        if len(before) < 2:  # noqa: PLR2004 - two that agree
            return None
        first, last = before
        width_s = window_s if math.isnan(first.span_s) else first.span_s
        reached = first.time_s - width_s >= self._busy_s + period_s / 2
        gap_s = self._since_s - last.time_s
        if not reached or gap_s > 2 * period_s or abs(first.watts - last.watts) > _ALIKE * last.watts:
            return None
        return (first.watts + last.watts) / 2
