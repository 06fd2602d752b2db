"""From readings to a curve: what each reading of a channel adds to what is known of its energy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from aimeter._curve.counter import plausible
from aimeter._curve.curve import Curve
from aimeter._curve.health import Health
from aimeter._curve.idle import Idle
from aimeter._curve.integrate.average import AverageIntegrator
from aimeter._curve.integrate.energy import CounterIntegrator
from aimeter._curve.integrate.knots import KnotWriter
from aimeter._curve.integrate.power import PowerIntegrator
from aimeter._curve.learned import Learned
from aimeter._curve.readings import Readings
from aimeter.sensors.base import Channel, Outcome, Reading

if TYPE_CHECKING:
    from aimeter._curve.calibration import Calibration
    from aimeter._curve.response_fit import Estimate, Ramp


class Integrator(Protocol):
    """Turns the values of one kind into knots."""

    def use(self, *, anew: bool) -> None:
        """Integrate from now on by what is learned; `anew` if another one did until now."""
        ...

    def take(self, reading: Reading, value: float) -> None:
        """Add what a reading says to the curve."""
        ...


class Trace:
    """One channel over time: its curve, its health, its idle power, and when to read it next.

    Attributes:
        channel: What is traced.
        curve: Its knots.
        health: Whether it is metered, and why not.
        learned: What is known of how its sensor publishes.
        idle: What is known of its device's idle power.
        readings: What was read of it.
    """

    def __init__(
        self,
        channel: Channel,
        interval_s: float,
        calibration: Calibration | None = None,
        *,
        swing_w: float = 0.0,
    ) -> None:
        self.channel = channel
        continuous = channel.quantity == "power" and channel.period_s <= 0
        if continuous:
            # What is not read in time is not known: to who reads it, it is renewed by that.
            channel = replace(channel, period_s=interval_s)
        self.curve = Curve(counted=True, max_power_w=channel.max_power_w, swing_w=swing_w)
        self.health = Health()
        self.learned = Learned(channel, calibration, continuous=continuous)
        self.idle = Idle(calibration)
        self.readings = Readings(channel, self.learned, interval_s)
        self._knots = KnotWriter(channel, self.curve, self.readings, self.learned, self.idle)
        self._counter = CounterIntegrator(self._knots, self.health)
        self._average = AverageIntegrator(self._knots)
        self._power = PowerIntegrator(self._knots)
        self._integrator: Integrator = self._counter
        self._integrate_as_learned()

    def _integrate_as_learned(self) -> None:
        """Integrate as latency and window ask for."""
        if self.channel.quantity == "energy":
            return
        integrator = self._power if self.learned.sampled else self._average
        integrator.use(anew=integrator is not self._integrator)
        self._integrator = integrator

    # What others ask

    @property
    def alive(self) -> bool:
        """False once the channel is dead or gone; its curve then ends."""
        return self.health.alive

    @property
    def gone(self) -> bool:
        """True once the device said that it will not answer any more, until it is tried again."""
        return self.health.gone

    @property
    def died_s(self) -> float:
        """Until when the curve is known, if it is not alive."""
        return self.health.died_s

    @property
    def reason(self) -> str:
        """Why it is not alive, or the last thing that went wrong."""
        return self.health.reason

    @property
    def idle_w(self) -> float | None:
        """Lowest power seen over an idle stretch, as far as they are certain, or that of the calibration."""
        return self.idle.power_w

    @property
    def calibration(self) -> Calibration | None:
        """Where `idle_w` comes from; None if it was seen, or nothing is known."""
        return self.idle.calibration

    @property
    def last_power_w(self) -> float:
        """Mean power up to the newest knot."""
        return self._knots.last_power_w

    @property
    def unseen_w(self) -> float:
        """Mean power around its newest gap: what it may have drawn while it was not seen."""
        unseen_w = self._knots.unseen_w
        return unseen_w if self.alive and not math.isnan(unseen_w) else self.last_power_w

    @property
    def unclaimed_j(self) -> float:
        """Energy that came to light after its time had been settled without it."""
        return self._knots.unclaimed_j

    @property
    def contradiction(self) -> str:
        """What another meter of the same device says against this one; empty if nothing."""
        return "" if self.curve.refiner is None else self.curve.refiner.contradiction

    @property
    def relative_error(self) -> float:
        """95 % half-width of the calibration relative to the energy: what another meter says against it included."""
        refiner = self.curve.refiner
        return max(self.channel.relative_error, 0.0 if refiner is None else refiner.disagreement)

    # Reading by reading

    def resume(self, now_s: float) -> None:
        """Start watching the channel's health anew after a time without readings."""
        self.readings.resume(now_s)
        self.learned.resume()

    def due_s(self, now_s: float, pace_s: float = 0.0) -> float:
        """Return when to read next; a counter at `pace_s`, if that is less often than the interval."""
        return self.readings.due_s(now_s, pace_s, alive=self.health.alive)

    def take(self, reading: Reading) -> None:
        """Add one reading to what is known."""
        health, readings = self.health, self.readings
        if health.gone:
            return
        reading = plausible(reading, self.channel)
        integrated = readings.begin(reading)
        if reading.outcome is Outcome.OK and reading.value is not None:
            if not health.alive:
                self._revive(reading, reading.value)
            elif integrated:
                self._integrator.take(reading, reading.value)
        else:
            health.fail(reading.reason)
            if reading.outcome is Outcome.GONE:
                health.leave(self.curve.end_s)
        readings.end(reading, integrated=integrated)
        health.check(reading, readings.moved_s, self.curve.end_s)

    def _revive(self, reading: Reading, value: float) -> None:
        """Go on after a time of silence, which stays uncovered; its energy, if counted, is nobody's."""
        before = self.readings.value
        if self.channel.quantity == "energy" and before is not None:
            if value == before:
                return  # it does not advance
            self._knots.unclaimed_j += max(value - before, 0.0)
        self.health.alive = True
        self.readings.advance(reading, value)
        self.learned.published_s = math.nan
        self.learned.forget_updates()
        self._knots.go_on(reading.after_s)

    # Between readings

    def fall_silent(self, reason: str) -> None:
        """End the curve for now, as the sensor does not answer; its next answer revives it."""
        self.health.reason = reason
        self.health.die(self.curve.end_s)

    def withdraw(self) -> None:
        """End the curve for good: the device is none of this process's, and nobody misses it."""
        self.health.withdraw()

    def settle_gap(self, time_s: float) -> None:
        """Close the curve at `time_s` without energy: somebody cannot wait for the next reading."""
        self._knots.settle_gap(time_s)

    # Learning

    def inherit(self, other: Trace) -> None:
        """Take over what another trace of the same device saw of its idle power; the two differ by their gains."""
        gain = math.hypot(self.channel.relative_error, other.channel.relative_error)
        self.idle.inherit(other.idle, gain)

    def note_idle(self, start_s: float, end_s: float, since_s: float) -> None:
        """Learn from a stretch in which no call was open.

        Args:
            start_s: Begin of the stretch.
            end_s: End of the stretch.
            since_s: When a call was last open.
        """
        ramp = self.learned.rest(since_s, end_s)
        if ramp is not None:
            self.adopt(*ramp)
        if self.curve.refiner is not None:
            self.curve.refiner.rest(since_s, end_s)
        knots = self.curve.between(start_s, end_s)
        self.idle.learn(knots, start_s, end_s, since_s, self.learned.period_s)

    def adopt(self, latency: Estimate | None, window: Estimate | None) -> None:
        """Integrate by what is learned of latency and window, if that is better than what is used."""
        if self.learned.adopt(latency, window):
            self._integrate_as_learned()

    def conclude(self) -> Ramp | None:
        """Return latency and window by all ends of calls so far; None where neither can be learned."""
        return self.learned.conclude()
