"""When calls were open, and what a device draws while none is.

Outside every call a device draws a power that can be measured: its idle power, and what decays after a call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class IdlePower(NamedTuple):
    """What a device draws while no call is open: ``idle_w + decay_w * exp(-s / tau_s)``, s after the last call.

    After work a device does not fall to idle at once: clocks and fans take their time, tenths of a second to
    seconds. NaN for `idle_w` means that nothing is known.
    """

    idle_w: float
    decay_w: float
    tau_s: float
    spread_w: float = 0.0
    """Standard deviation of the mean power of idle stretches around that."""


UNKNOWN = IdlePower(np.nan, 0.0, 1.0)


class Activity(NamedTuple):
    """When calls were open: from each of `time_s` (ascending) to the next, at least one if `open` is true.

    At each of `shift_s` (ascending) calls began or ended while others were open.
    """

    time_s: Array
    open: npt.NDArray[np.bool_]
    shift_s: Array = np.empty(0)

    def open_s(self, times_s: Array) -> Array:
        """Return for how many seconds a call was open up to each of `times_s`."""
        if not self.time_s.size:
            return np.zeros_like(times_s)
        spans = np.append(np.diff(self.time_s) * self.open[:-1], 0.0)
        at = np.clip(np.searchsorted(self.time_s, times_s, side="right") - 1, 0, None)
        since = np.maximum(times_s - self.time_s[at], 0.0)
        before = np.concatenate([[0.0], np.cumsum(spans)])[at]
        return np.asarray(before + since * self.open[at])

    def is_open(self, times_s: Array) -> npt.NDArray[np.bool_]:
        """Return whether a call was open at each of `times_s`."""
        if not self.time_s.size:
            return np.zeros(times_s.shape, dtype=bool)
        at = np.searchsorted(self.time_s, times_s, side="right") - 1
        return np.asarray(self.open[np.maximum(at, 0)] & (at >= 0))

    def edges(self, begins_s: Array, ends_s: Array) -> npt.NDArray[np.intp]:
        """Return how many calls, or groups of them, began or ended in each stretch."""
        found = [
            line.searchsorted(ends_s) - line.searchsorted(begins_s) for line in (self.time_s, self.shift_s)
        ]
        return np.asarray(found[0] + found[1])

    def changes_near(self, times_s: Array, within_s: Array) -> npt.NDArray[np.bool_]:
        """Return whether the first call began or the last one ended within so many seconds of each of `times_s`."""
        first = self.time_s.searchsorted(times_s - within_s)
        return np.asarray(self.time_s.searchsorted(times_s + within_s, side="right") > first)

    def decay_s(self, times_s: Array, tau_s: float) -> Array:
        """Return the integral of ``exp(-s / tau_s)`` over the idle time up to each of `times_s`.

        s is the time since a call was last open. Before the first of `time_s` there is no decay.
        """
        if not self.time_s.size:
            return np.zeros_like(times_s)
        # Idle stretches follow one another (a generator may be suspended in one): the last open edge counts.
        ends = np.concatenate([[False], self.open[:-1] & ~self.open[1:]])
        index = np.maximum.accumulate(np.where(ends, np.arange(ends.size), -1))
        last = np.where(index >= 0, self.time_s[np.maximum(index, 0)], -np.inf)
        begin = np.exp((last - self.time_s) / tau_s)
        spans = np.append(tau_s * (begin[:-1] - np.exp((last[:-1] - self.time_s[1:]) / tau_s)), 0.0)
        spans *= ~self.open
        at = np.clip(np.searchsorted(self.time_s, times_s, side="right") - 1, 0, None)
        now = np.exp((last[at] - np.maximum(times_s, self.time_s[at])) / tau_s)
        before = np.concatenate([[0.0], np.cumsum(spans)])[at]
        return np.asarray(before + tau_s * (begin[at] - now) * ~self.open[at])


NO_ACTIVITY = Activity(np.empty(0), np.empty(0, dtype=bool))
