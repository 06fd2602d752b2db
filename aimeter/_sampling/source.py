"""A sensor as its sampler sees it: something to ask that may never answer, and what is known of its channels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aimeter._support.clocks import time
from aimeter._support.log import logger
from aimeter._support.notes import class_name, raised

if TYPE_CHECKING:
    from aimeter._curve.power_windows import PowerWindows
    from aimeter._curve.trace import Trace
    from aimeter.sensors.base import Channel, Sensor

SILENCE_S = 1.0
"""An answer of a sensor is overdue after this time: readings take milliseconds."""

FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 60.0
"""A sensor that is gone is tried again after the first time, and after twice as long each time, up to the last."""


@dataclass(slots=True, eq=False)
class Question:
    """Something that may never be answered.

    Attributes:
        asked_s: Since when a thread waits for the answer (`time.monotonic`); None while none does.
    """

    asked_s: float | None = None

    @property
    def overdue(self) -> bool:
        """Whether the answer of a sensor has been waited for too long."""
        asked_s = self.asked_s
        return asked_s is not None and time.monotonic() - asked_s >= SILENCE_S


@dataclass(slots=True, eq=False, kw_only=True)
class Source(Question):
    """One sensor as its sampler sees it.

    Attributes:
        sensor: The sensor.
        traces: What is known of its channels; empty if it only tells more of another one's.
        counter: The source whose counter it tells more of.
        power_windows: What it tells of it.
        inherited: What it holds is of the process that this one was forked from, or was let go of: it is reopened first.
        abandoned: It was to be closed while a thread waited for its answer; that thread closes it.
        due_s: When it is to be asked next.
        past: What is known of all channels that it has had.
        patience_s: How long to wait until it is tried again, once all of its channels are gone.
    """

    sensor: Sensor
    traces: list[Trace] = field(default_factory=list)
    counter: Source | None = None
    power_windows: PowerWindows | None = None
    inherited: bool = False
    abandoned: bool = False
    due_s: float = -math.inf
    past: dict[Channel, Trace] = field(default_factory=dict)
    patience_s: float = FIRST_RETRY_S

    @property
    def gone(self) -> bool:
        """Whether all of its channels said that they will not answer any more."""
        return bool(self.traces) and all(trace.gone for trace in self.traces)

    def plan(self, now_s: float, pace_s: float) -> None:
        """Decide when the sensor is to be asked next; one that is gone is tried again, less and less often until it is back.

        Args:
            now_s: The time.
            pace_s: How often to look at counters, if that is less often than the interval.
        """
        due = [trace.due_s(now_s, pace_s) for trace in self.traces if not trace.gone]
        if self.gone and not all(trace.health.barred for trace in self.traces):
            due.append(now_s + self.patience_s)
            self.patience_s = min(2 * self.patience_s, LONGEST_RETRY_S)
        elif not self.gone:
            # Half, for one that comes back for a moment again and again.
            self.patience_s = max(self.patience_s / 2, FIRST_RETRY_S)
        if self.power_windows is not None and not self.power_windows.gone:
            due.append(self.power_windows.due_s(now_s))
        self.due_s = min(due, default=math.inf)

    def close(self) -> None:
        """Release the sensor, whatever it makes of that."""
        try:
            self.sensor.close()
        except BaseException as error:  # noqa: BLE001 - a sensor by somebody else may raise anything
            logger.debug("closing %s raised %s", class_name(type(self.sensor)), raised(error))
