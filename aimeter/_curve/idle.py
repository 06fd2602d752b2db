"""The idle power of one device: the lowest that it was seen to draw at rest, and how it comes to rest after a call."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from aimeter._curve.activity import UNKNOWN, IdlePower
from aimeter._curve.idle_fit import TAUS_S, UNSEEN_DECAY, Power, fit_idle
from aimeter._support.statistics import SIGMAS_95

if TYPE_CHECKING:
    from aimeter._curve.activity import Array
    from aimeter._curve.calibration import Calibration

_STRETCHES = 64
"""Idle stretches remembered for the decay after a call."""

_MEMORY_S = 600.0
"""The idle power is the lowest seen in this time, and beyond it until the device has rested again: it must outlast
hours without a pause, and follow a device whose idle power a loaded model has raised."""

_SLOTS = 60
"""The memory of the idle power is kept as the lowest of each of so many slots."""

_REST_S = 1.0
"""So long after the last call a device is taken to have come to rest."""

_BELOW = 0.9
"""A short gap in which less than this part of the calibrated idle power was drawn contradicts it."""

_STRETCH_S = 0.1
"""An idle stretch teaches the idle power if its knots are this far apart, or a period of the sensor."""


class Idle:
    """What is known of one device's idle power.

    Attributes:
        power_w: Lowest power seen over an idle stretch, as far as they are certain; until one was seen, that of the
            calibration. None if nothing is known.
        error_w: 95 % half-width of that.
        calibration: Where `power_w` comes from; None if it was seen, or nothing is known.
        fitted: What the device draws while no call is open, for the shape of the curve.
    """

    def __init__(self, calibration: Calibration | None) -> None:
        self.power_w: float | None = None
        self.error_w = 0.0
        self.calibration = calibration
        self.fitted = UNKNOWN
        if calibration is not None:
            self.power_w, self.error_w = calibration.idle_w, calibration.spread_w
            spread_w = max(calibration.spread_w, UNSEEN_DECAY * calibration.idle_w)
            self.fitted = IdlePower(calibration.idle_w, 0.0, TAUS_S[0], spread_w)
        self._rested: dict[int, Power] = {}
        self._lowest: Power | None = None
        self._stretches: list[tuple[float, float, float, float]] = []

    @property
    def least_w(self) -> float | None:
        """The least that the device draws; None if nothing is known."""
        return None if self.power_w is None else max(self.power_w - self.error_w, 0.0)

    def inherit(self, other: Idle, gain: float) -> None:
        """Take over what was seen by another meter of the same device.

        Args:
            other: What was seen.
            gain: By which part the two meters may differ, 95 % half-width.
        """
        if self.calibration is not None or not other._rested:
            return
        self._rested = {
            slot: Power(power.watts, math.hypot(power.error_w, gain * power.watts))
            for slot, power in other._rested.items()
        }
        self.power_w, self.error_w = functools.reduce(Power.lower, self._rested.values())

    def learn(self, knots: Array, start_s: float, end_s: float, since_s: float, period_s: float) -> None:
        """Learn what the device draws from the knots inside a stretch in which no call was open.

        Args:
            knots: Those knots, see `Curve.between`.
            start_s: Begin of the stretch.
            end_s: End of the stretch.
            since_s: When a call was last open.
            period_s: Time between updates of the sensor.
        """
        times, joules, half, rounding = knots
        if times.size < 2:  # noqa: PLR2004 - a stretch has two ends
            return
        spans = np.diff(times)
        watts = np.diff(joules) / spans
        error = np.sqrt(watts**2 * (half[1:] ** 2 + half[:-1] ** 2) + rounding[1:] ** 2 + rounding[:-1] ** 2)
        self._stretches += zip(times[:-1] - since_s, times[1:] - since_s, watts, error / spans, strict=True)
        del self._stretches[:-_STRETCHES]
        span_s = float(times[-1] - times[0])
        if span_s >= 0.9 * min(period_s, _STRETCH_S):
            watts_w = float(joules[-1] - joules[0]) / span_s
            error_j = math.hypot(watts_w * half[0], watts_w * half[-1], rounding[0], rounding[-1])
            if watts_w > 0:
                power = Power(watts_w, error_j / span_s)
                self._note(end_s, power, rested=start_s - since_s >= _REST_S)
        if self.power_w is not None:
            idle = fit_idle(np.array(self._stretches), self.power_w)
            self.fitted = idle._replace(spread_w=max(idle.spread_w, self.error_w / SIGMAS_95))

    def _note(self, time_s: float, power: Power, *, rested: bool) -> None:
        """Keep the lowest power of a device at rest; a short gap between calls only bounds it from above."""
        if rested:
            slot = int(time_s * _SLOTS / _MEMORY_S)
            self._rested[slot] = power.lower(self._rested.get(slot))
            for old in [known for known in self._rested if known <= slot - _SLOTS]:
                del self._rested[old]
        else:
            self._lowest = power.lower(self._lowest)
        most_w = power.watts + power.error_w
        if self.calibration is not None and not rested and most_w > _BELOW * self.calibration.idle_w:
            return
        self.calibration = None
        idle = self._lowest or power
        if self._rested:
            first, *others = self._rested.values()
            idle = functools.reduce(Power.lower, others, first)
        if most_w < idle.watts - idle.error_w:
            idle = power
        self.power_w, self.error_w = idle
