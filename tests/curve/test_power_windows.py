"""A published power beside a counter: what it adds to steps in which calls meet, and what it must not spoil."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aimeter
from aimeter._curve.power_windows import conditioned
from aimeter.sensors import nvml as nvml_sensor
from aimeter.testing import FakeClock, FakeSensor
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import FIELD_INSTANT, GPU_IS_LOST, NOT_SUPPORTED, POWER
from tests.energies import used_part


@given(
    st.lists(st.floats(0.01, 0.1), min_size=2, max_size=6),
    st.floats(0.1, 2.0),
    st.floats(1.0, 60.0),
    st.data(),
)
def test_conditions_are_kept(lengths, deviation, amount, data):
    """What is exact holds exactly and leaves no doubt; what is not exact only takes doubt away."""
    lengths = np.array(lengths)
    means = np.full(lengths.size, amount / lengths.sum())
    part = np.array([data.draw(st.floats(0.0, 1.0)) for _ in lengths]) * lengths
    conditions = np.array([lengths, part])
    seen = data.draw(st.floats(0.0, amount))
    powers, covariance = conditioned(
        means, deviation * means[0], conditions, np.array([amount, seen]), np.array([0.0, 0.1])
    )
    assert powers @ lengths == pytest.approx(amount)
    assert lengths @ covariance @ lengths == pytest.approx(0.0, abs=1e-6 * amount**2)
    assert np.all(np.diag(covariance) <= (deviation * means[0]) ** 2 * (1 + 1e-9))
    before, after = abs(part @ means - seen), abs(part @ powers - seen)
    assert after <= before * (1 + 1e-9) + 1e-9


def test_a_window_on_one_of_two_calls_tells_both():
    """Two calls of 20 ms in one step: the mean power of a window on the first is known, so both are."""
    lengths = np.array([0.02, 0.02])
    conditions = np.array([lengths, [0.02, 0.0]])
    powers, covariance = conditioned(
        np.full(2, 300.0), 200.0, conditions, np.array([12.0, 2.0]), np.array([0.0, 1e-9])
    )
    assert powers == pytest.approx([100.0, 500.0], rel=1e-3)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0, 0.0], abs=0.01)


class Bench:
    """Pairs of calls close together, of unlike power, on an emulated H100."""

    def __init__(self, nvml, *, faults=(), **settings):
        self.clock = EmulatedClock(nvml)
        self.gpu = nvml.add("h100", **{"latency_s": 0.0003, **settings})
        self.gpu.set_power(70.0)
        for function in faults:
            self.gpu.fault(function, NOT_SUPPORTED)
        sensors, _ = nvml_sensor.probe({}, self.clock)
        self.meter = aimeter.Meter(sensors=sensors, clock=self.clock, region="FR", calibration="off")
        self.scale = settings.get("counter_gain", 1.0)
        for _ in range(3):
            self.call(300.0, 0.3)
            self.clock.sleep(1.5)
        for k in range(60):  # whose ends teach how late the power is, and how far back it looks
            if k % 8 == 0:
                self.pairs(1)  # so that it is read at all
            self.call(300.0, 0.4 + 0.0137 * (k % 8))
            self.clock.sleep(0.35)

    def call(self, watts, seconds):
        """Make a call that draws so much; return its row and what the counter would have made of it."""
        begin = self.clock()
        self.gpu.set_power(watts)
        with self.meter.track("call") as call:
            self.clock.sleep(seconds)
        self.gpu.set_power(70.0)
        return call, self.scale * self.gpu.true_energy_j(begin, self.clock())

    def pairs(self, count, seed=5):
        """Make pairs of calls; return errors and half-widths in joules, of those after the first few."""
        choose, made = random.Random(seed), []
        for _ in range(count):
            made.append(self.call(choose.uniform(150, 600), 0.03))
            self.clock.sleep(0.005)
            made.append(self.call(choose.uniform(150, 600), 0.03))
            self.clock.sleep(choose.uniform(0.2, 0.5))
        self.meter.flush()
        errors = np.array([call.record.energy_j - truth for call, truth in made[8:]])
        return errors, np.array([call.record.resolution_j for call, _ in made[8:]])


def test_calls_that_meet_in_a_step_are_told_apart_better(nvml):
    """With the instant power beside the counter, calls of unlike power in one step are off by much less."""
    with_power, half = Bench(nvml).pairs(60)
    nvml.reset()
    without, half_without = Bench(nvml, faults=[FIELD_INSTANT, POWER]).pairs(60)
    assert np.mean(np.abs(with_power)) < 0.75 * np.mean(np.abs(without))
    assert np.mean(half) < np.mean(half_without)
    assert used_part(with_power, half) == pytest.approx(0.68, rel=0.3)


def test_the_scale_of_the_power_is_learned(nvml):
    """A counter that says 10 % less than the power beside it keeps its own scale, and calls lie inside their bars."""
    bench = Bench(nvml, counter_gain=0.9)
    errors, half = bench.pairs(60)
    (windows,) = [
        source.power_windows
        for source in bench.meter.sampler.readers.sources
        if source.power_windows is not None
    ]
    gain, error = windows.gain
    assert abs(gain - 0.9) <= error
    assert error == pytest.approx(0.0045, rel=0.3)
    assert used_part(errors, half) == pytest.approx(0.69, rel=0.3)


def test_calls_apart_cost_no_reading_of_the_power(nvml):
    """As long as no calls meet in a step, the power beside the counter is hardly asked for: once in five seconds."""
    bench = Bench(nvml)
    bench.clock.sleep(15.0)
    bench.call(300.0, 0.05)
    bench.clock.sleep(0.5)
    before = bench.gpu.calls(FIELD_INSTANT)
    for _ in range(30):
        bench.call(300.0, 0.05)
        bench.clock.sleep(0.5)
    bench.meter.flush()
    assert bench.gpu.calls(FIELD_INSTANT) <= before + 3 + 30 * 0.55 / 5


@pytest.mark.parametrize("spoil", ["stuck", "nonsense", "lost"])
def test_a_power_that_fails_spoils_nothing(nvml, spoil, caplog):
    """A power that sticks, contradicts the counter or goes away is left aside: bars hold, and the log is silent."""
    bench = Bench(nvml)
    bench.pairs(20)
    if spoil == "stuck":
        bench.gpu.freeze(FIELD_INSTANT)
    elif spoil == "nonsense":
        bench.gpu.force(FIELD_INSTANT, 650_000)
    else:
        bench.gpu.fault(FIELD_INSTANT, GPU_IS_LOST)
    errors, half = bench.pairs(60, seed=6)
    assert used_part(errors, half) == pytest.approx(0.69, rel=0.3)
    assert not caplog.records


def test_shares_add_up_to_the_counter(nvml):
    """However steps are shaped, calls and nobody's energy add up to the counter."""
    bench = Bench(nvml)
    bench.call(300.0, 0.1)
    begun = bench.clock()
    bench.meter.flush()
    drawn_before = sum(bench.meter.unattributed_j().values())
    made = []
    choose = random.Random(1)
    for _ in range(40):
        made += [bench.call(choose.uniform(100, 600), 0.03), bench.call(choose.uniform(100, 600), 0.02)]
        ended = bench.clock()
        bench.clock.sleep(choose.uniform(0.05, 0.3))
    bench.meter.flush()
    total = sum(call.record.energy_j for call, _ in made)
    nobodys = sum(bench.meter.unattributed_j().values()) - drawn_before
    drawn = bench.gpu.true_energy_j(begun, ended)
    assert total + nobodys == pytest.approx(drawn, rel=1e-4)


class Companied(FakeSensor):
    """A counter with another sensor beside it that is not what it should be."""

    def __init__(self, clock, spoil):
        super().__init__(clock, 100.0, period_s=0.1)
        self.spoil, self.asked = spoil, 0

    def beside(self):
        if self.spoil == "search":
            raise RuntimeError(self.spoil)
        return Beside(self)


class Beside(FakeSensor):
    def __init__(self, counter):
        super().__init__(counter._clock, 100.0, quantity="power", period_s=0.1)
        self._counter = counter

    def read(self):
        self._counter.asked += 1
        if self._counter.spoil == "read":
            raise RuntimeError(self._counter.spoil)
        return super().read()


@pytest.mark.parametrize("spoil", ["search", "read", "still"])
def test_a_sensor_beside_a_counter_cannot_harm_it(spoil):
    """One that raises when it is looked for or read, or never changes, costs no row and next to no readings."""
    clock = FakeClock()
    sensor = Companied(clock, spoil)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    for _ in range(40):
        for _ in range(2):
            with meter.track("call") as call:
                clock.sleep(0.03)
        clock.sleep(0.4)
    meter.flush()
    assert call.record.energy_j == pytest.approx(3.0, rel=0.01)
    assert sensor.asked < (3 if spoil != "still" else 25 * clock())
    meter.close()
