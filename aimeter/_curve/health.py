"""Whether a channel is metered: alive, dead for now, gone, or given up, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimeter.sensors.base import Reading

DEAD_AFTER_S = 2.0
"""A source that has not advanced for this long while it was read is unavailable, however present it looks."""


class Health:
    """The health of one channel.

    Attributes:
        alive: False once the channel is dead or gone; its curve then ends.
        gone: True once the device said that it will not answer any more, until it is tried again.
        barred: It is not tried again: it is not a meter.
        withdrawn: It meters nothing of this process: nobody misses it.
        died_s: Until when the curve is known, if it is not alive; -inf if it never was.
        reason: Why it is not alive, or the last thing that went wrong.
        faults: Readings that failed.
        resets: How often a counter was reset.
    """

    def __init__(self) -> None:
        self.alive = True
        self.gone = self.barred = self.withdrawn = False
        self.died_s = math.inf
        self.reason = ""
        self.faults = self.resets = 0

    def fail(self, reason: str) -> None:
        """Note that a reading failed."""
        self.faults += 1
        self.reason = reason

    def die(self, known_s: float) -> None:
        """End the curve, which is known up to a time, for now."""
        self.alive, self.died_s = False, known_s

    def leave(self, known_s: float) -> None:
        """End the curve until the device is tried again: it will not answer any more."""
        self.gone = True
        self.die(known_s)

    def bar(self, reason: str, known_s: float) -> None:
        """Give the channel up: it is not a meter."""
        self.reason = reason
        self.barred = True
        self.leave(known_s)

    def withdraw(self) -> None:
        """End the curve for good: the device is none of this process's, and nobody misses it."""
        self.leave(-math.inf)
        self.withdrawn = True
        self.reason = ""

    def check(self, reading: Reading, moved_s: float, known_s: float) -> None:
        """Die if the channel has not advanced for too long."""
        if self.alive and reading.after_s - moved_s >= DEAD_AFTER_S:
            self.reason = reading.reason or f"has not advanced for {DEAD_AFTER_S:g} s"
            self.die(known_s)
