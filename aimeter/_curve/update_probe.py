"""When a power is published that is only looked at now and then: extra readings, as long as there is something to learn.

A power that sees a part of the time is read at the interval, which tells its publications no more closely than that.
Its latency and window are learned from closely known ones. So it is read in between as well, where its staircase of
publications asks for it, until enough was learned. These readings are for listening only: powers are integrated
from readings at even distances.
"""

from __future__ import annotations

import math

from aimeter._curve.response import Published, Response
from aimeter._curve.update_times import Interval, UpdateTimes
from aimeter.sensors.base import Outcome, Reading

_LOOKS = 8
"""As long as publications are not foretold, readings are this part of the documented period apart."""

_LEAST_PAUSE_S = 5e-4
"""Two readings are never closer."""

_PATIENCE = 16_384
"""After so many readings there will be nothing to learn."""


def heard(updates: UpdateTimes, last: Reading, reading: Reading) -> Interval | None:
    """Return when the power that is read was published, if that was after the last reading; None if nothing was.

    A publication of the same value cannot be seen; it is known to have come when the staircase says so.
    """
    if reading.value == last.value:
        return updates.passed(reading.before_s)
    earliest = max(last.before_s, reading.before_s - 1.05 * updates.period_s)
    return updates.see(Interval(min(earliest, reading.after_s), reading.after_s))


class UpdateProbe:
    """Hears one channel's publications.

    Args:
        updates: The channel's publications.
        response: Is told of them.
        period_s: Time between them, as documented.
    """

    def __init__(self, updates: UpdateTimes, response: Response, period_s: float) -> None:
        self._updates, self._response, self._period_s = updates, response, period_s
        self._last: Reading | None = None
        self._readings = 0
        self._integrated_s = math.nan
        self._listen_s = self._integrate_s = math.inf

    def forget(self) -> None:
        """Start anew after a time without readings."""
        self._last, self._integrated_s = None, math.nan
        self._listen_s = self._integrate_s = math.inf

    def due_s(self, last_s: float, interval_s: float) -> float:
        """Return when to read next.

        Args:
            last_s: Time of the last reading.
            interval_s: Time between readings that are integrated.
        """
        self._integrate_s = (last_s if math.isnan(self._integrated_s) else self._integrated_s) + interval_s
        self._listen_s = math.inf
        last = self._last
        failed = last is not None and last.outcome is not Outcome.OK
        if failed or self._response.sated or self._readings > _PATIENCE:
            return self._integrate_s
        if self._updates.known:
            takes_s = 0.0 if last is None else last.after_s - last.before_s
            look_s = max(self._updates.next_look_s(last_s, interval_s, takes_s), last_s + _LEAST_PAUSE_S)
        else:
            look_s = last_s + self._period_s / _LOOKS
        if look_s < self._integrate_s:
            self._listen_s = look_s
        return min(look_s, self._integrate_s)

    def take(self, reading: Reading) -> bool:
        """Hear what a reading says; return whether it is to be integrated."""
        last, self._last = self._last, reading
        if last is not None and not self._response.sated:
            self._hear(last, reading)
        if self._listen_s <= reading.before_s < self._integrate_s:
            self._readings += 1
            return False
        self._integrated_s = reading.after_s
        return True

    def _hear(self, last: Reading, reading: Reading) -> None:
        watts = reading.value
        if reading.outcome is not Outcome.OK or last.outcome is not Outcome.OK or watts is None:
            return
        published = heard(self._updates, last, reading)
        if published is not None:
            self._response.publish(Published(published.middle_s, published.half_s, watts, math.nan))
