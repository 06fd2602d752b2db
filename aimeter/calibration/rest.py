"""What readings show of a device at rest: its idle power, the period of its sensor, and whether it was at rest."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aimeter._support.statistics import SIGMAS_PER_MAD
from aimeter.sensors.base import Channel

if TYPE_CHECKING:
    from aimeter._curve.activity import Array
    from aimeter._curve.update_times import Interval

_FEWEST_CHANGES = 6
_CLEAR = 1.5
"""Changes must be so many times further apart than what they are known to, or some may have been missed."""

_MOST_COUNTS = 5
"""Rounds of counting and fitting; nearly always two agree."""

STRETCH_S = 1.0
"""Idle power is the median of the mean powers over stretches of this length."""
_FEWEST_STRETCHES = 3

_USUAL = 0.5, 0.375, 0.25, 0.125
"""Quantiles of the times between changes that are tried for the usual one, the likeliest first."""

_RESTLESS = 0.25
"""A device whose power varies by more than this part is not at rest."""

_BUSY = 0.2
"""Nor is a CPU that is busy for more than this part of the time."""

_LOADED = 0.5
"""Nor a device that draws more than this part of the most that it can."""


class Steps(NamedTuple):
    """How regularly a value is renewed."""

    period_s: float
    jitter_s: float


def steps_of(changes: Sequence[Interval]) -> Steps | None:
    """Fit a straight line to the times of changes; None if they are too few, or too close to be told apart.

    Most changes follow one another, but some may have been missed. So they are counted by a usual time between them, and
    then by what the line says the period is, until the two agree. What is usual may be misjudged where their times are
    known loosely: the right one of several guesses is the first whose line fits as well as they are known, or the one
    whose line fits best. The jitter is the changes' standard deviation around it; what they are known to is part of it.
    """
    if len(changes) < _FEWEST_CHANGES:
        return None
    times = np.array([change.middle_s for change in changes])
    guesses_s = np.quantile(np.diff(times), _USUAL)
    half_s = statistics.median(change.half_s for change in changes)
    if guesses_s[0] < 2 * _CLEAR * half_s:
        return None
    found = [_line(times, float(guess_s)) for guess_s in guesses_s]
    return min(found, key=lambda one: max(one.jitter_s - half_s, 0.0) / one.period_s)


def _line(times: Array, period_s: float) -> Steps:
    """Fit a straight line to the times of changes, counted by a first guess at their period."""
    steps = None
    for _ in range(_MOST_COUNTS):
        counted = np.maximum(np.round(np.diff(times) / period_s), 1)
        if steps is not None and np.array_equal(counted, steps):
            break
        steps = counted
        numbers = np.concatenate([[0], np.cumsum(steps)])
        period_s, start_s = np.polyfit(numbers, times - times[0], 1)
    return Steps(float(period_s), float(np.std(times - times[0] - start_s - period_s * numbers)))


class Rest(NamedTuple):
    """What a device draws at rest.

    Attributes:
        idle_w: Median of the mean powers over stretches of a second.
        spread_w: Their standard deviation, by the median of their distances from it.
    """

    idle_w: float
    spread_w: float


def rest_of(times_s: Array, joules: Array, covered_s: Array) -> Rest | None:
    """Return the idle power that a curve shows; None if it is too short.

    Medians are not moved by what runs for less than half of the time.

    Args:
        times_s: Times of knots, ascending.
        joules: Energy up to each.
        covered_s: Seconds up to each that were really metered.
    """
    ends = [0] if len(times_s) else []
    for place in range(len(times_s)):
        if times_s[place] - times_s[ends[-1]] >= STRETCH_S:
            ends.append(place)
    watts = [
        float((joules[b] - joules[a]) / (times_s[b] - times_s[a]))
        for a, b in itertools.pairwise(ends)
        if covered_s[b] - covered_s[a] > 0.99 * (times_s[b] - times_s[a])
    ]
    if len(watts) < _FEWEST_STRETCHES:
        return None
    idle_w = statistics.median(watts)
    return Rest(idle_w, SIGMAS_PER_MAD * statistics.median(abs(one - idle_w) for one in watts))


def not_at_rest(channel: Channel, rest: Rest | None, busy: float) -> str:
    """Return why what was seen is not the device's idle power; empty if it may be.

    Args:
        channel: The channel.
        rest: What was seen.
        busy: Part of the time in which the machine's CPUs were busy.
    """
    remedy = "let nothing else run meanwhile"
    if rest is None:
        return "its value was hardly ever renewed (try a larger --seconds)"
    if not rest.idle_w:
        return "it drew nothing"
    if channel.kind in {"cpu", "dram"} and busy > _BUSY:
        return f"the CPU was {busy:.0%} busy ({remedy})"
    if rest.spread_w > _RESTLESS * rest.idle_w:
        return f"its power varied by {rest.spread_w / rest.idle_w:.0%} ({remedy})"
    if channel.max_power_w is not None and rest.idle_w > _LOADED * channel.max_power_w:
        return f"it drew {rest.idle_w:.0f} W of at most {channel.max_power_w:.0f} W ({remedy})"
    return ""
