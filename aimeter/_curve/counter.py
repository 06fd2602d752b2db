"""What a counter's new value means: a difference, a wrap, a reset, or nothing that a device can draw."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import NamedTuple

from aimeter.sensors.base import MOST_POWER_W, Channel, Outcome, Reading

LATE_S, LATE_PERIODS = 0.5, 5.0
"""A published value may be so old when it appears: for that time, or for so many periods where that is shorter, a
counter may have gained in addition to the time between two readings."""

_LEAPS, _LEAPS_S = 4, 60.0
"""A counter that falls or jumps so often in this time is not one meter. One garbled value makes two leaps, there and
back; one register that shows now this package, now that (hubblo-org/scaphandre#134) leaps every few seconds."""


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
    late_s: float = LATE_S,
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


def plausible(reading: Reading, channel: Channel) -> Reading:
    """Return a reading, or a failed one in its place if no device can draw what it says."""
    value = reading.value
    if reading.outcome is not Outcome.OK or value is None:
        return reading
    most = MOST_POWER_W if channel.max_power_w is None else 2 * channel.max_power_w
    if math.isfinite(value) and (channel.quantity == "energy" or 0 <= value <= most):
        return reading
    reason = f"reads {value:.6g} {'W' if channel.quantity == 'power' else 'J'}, which cannot be"
    return reading._replace(outcome=Outcome.AGAIN, value=None, reason=reason)


class Leaps:
    """How often a counter fell, or jumped further than it can."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=_LEAPS)

    def note(self, time_s: float) -> str:
        """Note one more; return why this is not one meter if it happens again and again, else nothing."""
        self._times_s.append(time_s)
        span_s = time_s - self._times_s[0]
        if len(self._times_s) < _LEAPS or span_s > _LEAPS_S:
            return ""
        return f"fell or jumped {_LEAPS} times in {span_s:.0f} s: it is not one meter"
