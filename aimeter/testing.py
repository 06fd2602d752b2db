"""Test doubles for programs that use aimeter: a clock that moves when told, a sensor that plays a waveform.

clock = FakeClock()
sensor = FakeSensor(clock, power_w=lambda t: 100.0 if t < 1001.0 else 300.0)
meter = aimeter.Meter(sensors=[sensor], clock=clock)
with meter.track("x") as call:
    clock.sleep(2.0)
assert call.energy_j == pytest.approx(sensor.energy_j(1000.0, 1002.0), abs=call.error_j)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .sensors.base import Channel, Kind, Method, Outcome, Quantity, Reading

if TYPE_CHECKING:
    from aimeter._sampling.protocols import Served


class FakeClock:
    """A monotonic clock that moves only when told to, and drives the samplers of its meters as it does.

    Args:
        start_s: The time it begins with.
    """

    def __init__(self, start_s: float = 1000.0) -> None:
        self.now_s = start_s
        self._samplers: weakref.WeakSet[Served] = weakref.WeakSet()
        self._moving = False

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s

    def attach(self, sampler: Served) -> None:
        """Drive this sampler from now on."""
        self._samplers.add(sampler)

    def wake(self, sampler: Served) -> None:
        """Do nothing: every advance begins with a round."""

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, letting samplers do on the way what falls due."""
        end = self.now_s + seconds
        if self._moving:  # a sensor that takes its time while it is being read
            self.now_s = end
            return
        self._moving = True
        try:
            while True:
                waits = [sampler.tick() for sampler in list(self._samplers)]
                wait = min((wait for wait in waits if wait is not None), default=float("inf"))
                if self.now_s + wait >= end:
                    break
                self.now_s += wait
            self.now_s = max(self.now_s, end)
        finally:
            self._moving = False

    sleep = advance


class FakeSensor:
    """One channel that plays a waveform exactly.

    Args:
        clock: The meter's clock.
        power_w: Physical power in watts as a function of the clock's time.
        energy_j: Its exact integral from one time to another; by default integrated numerically to 0.1 ms.
        period_s: The published value is renewed every so often; 0 makes it continuous.
        quantity: ``energy`` to publish a counter, ``power`` to publish a power.
        id: Identifier of the channel; its part before the colon is the kind.
        relative_error: Calibration error that the channel declares.
        **channel: Other fields of `Channel`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        power_w: Callable[[float], float] | float = 100.0,
        *,
        energy_j: Callable[[float, float], float] | None = None,
        period_s: float = 0.0,
        quantity: Quantity = "energy",
        id: str = "gpu:0",  # noqa: A002 - the field's name
        relative_error: float = 0.0,
        **channel: object,
    ) -> None:
        self._clock = clock
        self._power = power_w if callable(power_w) else lambda _: float(power_w)
        self._constant = None if callable(power_w) else float(power_w)
        self._exact = energy_j
        self._origin_s = clock()
        self._total_j, self._until_s = 0.0, self._origin_s
        self.fault: Outcome | None = None
        self.reads = 0
        kind: Kind = id.partition(":")[0]  # type: ignore[assignment]
        method: Method = "counter" if quantity == "energy" else "power"
        base = Channel(
            id=id,
            kind=kind,
            method=method,
            quantity=quantity,
            name="fake",
            device=f"FAKE-{id}",
            source="fake",
            period_s=period_s,
            window_s=period_s if quantity == "power" else 0.0,
            relative_error=relative_error,
        )
        self.channels: tuple[Channel, ...] = (replace(base, **channel),)  # type: ignore[arg-type]

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Return the exact joules between two times: the truth that a meter is to find."""
        if self._exact is not None:
            return self._exact(start_s, end_s)
        if self._constant is not None:
            return self._constant * (end_s - start_s)
        steps = max(int((end_s - start_s) / 1e-4), 1)
        width = (end_s - start_s) / steps
        return sum(self._power(start_s + (i + 0.5) * width) for i in range(steps)) * width

    def read(self) -> list[Reading]:
        """Publish the value of the current period."""
        self.reads += 1
        now = self._clock()
        if self.fault is not None:
            return [Reading(now, now, self.fault, None, "the test says so")]
        period = self.channels[0].period_s
        published = (
            now if period <= 0 else self._origin_s + int((now - self._origin_s) / period + 1e-9) * period
        )
        if self.channels[0].quantity == "energy":
            self._total_j += self.energy_j(self._until_s, published)
            self._until_s = published
            value = self._total_j
        else:
            window = self.channels[0].window_s
            value = (
                self.energy_j(published - window, published) / window if window else self._power(published)
            )
        return [Reading(now, self._clock(), Outcome.OK, value)]

    def reopen(self) -> None:
        """Do nothing: nothing was opened."""

    def close(self) -> None:
        """Do nothing: nothing was opened."""
