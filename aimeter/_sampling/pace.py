"""How often counters are read and calls are settled: often when something begins or ends, less in the middle of long calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimeter._sampling.intake import Intake
    from aimeter.sensors.base import Clock

SETTLE_EVERY_S = 0.1
"""Settled rows reach the sinks at least this often while there are any."""

_CALM = 0.2
"""In the middle of a long call counters need not be read often: the time between two readings doubles as long as
it is at most this part of the time in which nothing began or ended. What does is then attended to at once."""

_LONGEST_PACE = 8
"""It doubles to this many intervals at most: a sensor that is lost is to be missed soon."""


class Pace:
    """See the module's description.

    Attributes:
        interval_s: Longest time between two readings of a channel around the begins and ends of calls.
        settle_every_s: Longest time between two rounds of settling.
        is_calm: Counters are read less often than every interval, until something begins or ends.
    """

    def __init__(self, now: Clock, intake: Intake, interval_s: float, now_s: float) -> None:
        self._now, self._intake = now, intake
        self.interval_s = interval_s
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""
        self._event_s = now_s
        self.settle_every_s = SETTLE_EVERY_S
        self.is_calm = False

    def quicken(self) -> None:
        """Have counters read often from now on, as something begins or ends."""
        self._event_s, self.is_calm = self._now(), False

    def note(self, newest_s: float) -> bool:
        """Take note of when a call last began or ended; return whether that came in the middle of a calm."""
        if newest_s > self._event_s:
            self._event_s = newest_s
            return self.is_calm
        return False

    def counters_s(self) -> float:
        """Return how often counters are to be read: a power of two of intervals, so that all fall together."""
        pace_s = self.interval_s
        # While lingering the idle power is learned, for which all readings are welcome.
        if self._intake.open_calls:
            most_s = min(_CALM * (self._now() - self._event_s), _LONGEST_PACE * self.interval_s)
            while 2 * pace_s <= most_s:
                pace_s *= 2
        return pace_s

    def slacken(self) -> bool:
        """Go by the time since the last event; return whether that brings a calm, whose end is to be noticed."""
        pace_s = self.counters_s()
        begins = pace_s > self.interval_s and not self.is_calm
        self.is_calm = self.is_calm or begins
        self.settle_every_s = max(SETTLE_EVERY_S, pace_s) if self.is_calm else SETTLE_EVERY_S
        return begins
