"""The readings of a channel: what was read when, and when to read next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aimeter._curve.learned import STEPPED_S
from aimeter.sensors.base import Outcome

if TYPE_CHECKING:
    from aimeter._curve.learned import Learned
    from aimeter.sensors.base import Channel, Reading

_RETRY_S = 1.0
"""A channel that died is looked at this often, in case it comes back."""

_LEAST_PAUSE_S = 0.0005
"""Two readings of one channel are never closer."""

_LEAST_LOOK_S = 1e-9
"""A reading takes no less time than this."""

_SLOWER = 1.2
"""How much longer the shortest look is taken to be from one look to the next, so that long ones are not forgotten."""

_UNSEEN_S, _UNSEEN = 0.05, 1.5
"""What was published while nobody read for longer than this, and than so many periods, is not guessed from what was
published before and after."""


class Readings:
    """What was read of one channel.

    Attributes:
        interval_s: How often to read, unless the channel's updates ask for something else.
        last: The last reading; None if there is none since the channel was last watched.
        integrated: The last one that was not for listening only.
        value: The value that was last read; None before the first.
        moved_s: When the channel was last seen to advance.
        answered_s: When it last gave a value; infinite before the first.
        look_s: The shortest time that a reading takes.
    """

    def __init__(self, channel: Channel, learned: Learned, interval_s: float) -> None:
        self._channel, self._learned = channel, learned
        self.interval_s = interval_s
        self.last: Reading | None = None
        self.integrated: Reading | None = None
        self.value: float | None = None
        self.moved_s = 0.0
        self.answered_s = self.look_s = math.inf

    def resume(self, now_s: float) -> None:
        """Start anew after a time without readings."""
        self.moved_s = now_s
        self.last = self.integrated = None

    def due_s(self, now_s: float, pace_s: float, *, alive: bool) -> float:
        """Return when to read next: at the interval, or where a staircase's next step is best seen.

        Args:
            now_s: The time.
            pace_s: How often to look at a counter, if that is less often than the interval.
            alive: Whether the channel is metered.
        """
        if self.last is None:
            return now_s
        last, learned = self.last.after_s, self._learned
        if not alive:
            return last + _RETRY_S
        if learned.sampled:
            interval_s = min(self.interval_s, learned.period_s)
            return last + interval_s if learned.probe is None else learned.probe.due_s(last, interval_s)
        # A power is lost unless it is read; a counter that seems to have died is looked at closely.
        stalled = last - self.moved_s > pace_s + learned.period_s
        hasty = stalled or self._channel.quantity == "power"
        interval_s = self.interval_s if hasty else max(self.interval_s, pace_s)
        if learned.updates is None or learned.updates.period_s < STEPPED_S:
            # On a grid, so that many sensors are read in one go.
            return math.floor(last / interval_s + 1.0) * interval_s
        if self.last.outcome is not Outcome.OK:
            return last + min(interval_s, learned.period_s)
        takes_s = last - self.last.before_s
        sparing = interval_s > self.interval_s
        look_s = learned.updates.next_look_s(last, interval_s, takes_s, sparing=sparing)
        return max(look_s, last + _LEAST_PAUSE_S)

    def begin(self, reading: Reading) -> bool:
        """Note how long a reading took; return whether it is to be integrated, not for listening only."""
        self.look_s = min(reading.after_s - reading.before_s, _SLOWER * max(self.look_s, _LEAST_LOOK_S))
        learned = self._learned
        return not learned.sampled or learned.probe is None or learned.probe.take(reading)

    def missed(self, reading: Reading) -> bool:
        """Return whether publications of a power were missed before this reading, so that nobody knows what they said."""
        return reading.before_s - self.answered_s > max(_UNSEEN_S, _UNSEEN * self._learned.period_s)

    def advance(self, reading: Reading, value: float) -> None:
        """Note a value that shows that the channel is at work."""
        self.value, self.moved_s = value, reading.after_s

    def end(self, reading: Reading, *, integrated: bool) -> None:
        """Keep a reading of which all has been made."""
        if self.last is None:
            self.moved_s = reading.after_s
        self.last = reading
        if integrated:
            self.integrated = reading
        if reading.outcome is Outcome.OK:
            self.answered_s = reading.after_s
