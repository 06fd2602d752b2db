"""`aimeter.measure`: arithmetic by its properties, and whole measurements on emulated hardware in fake time."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aimeter
from aimeter._measure import measure
from aimeter._support.statistics import drift, mean_half_width, student_t
from aimeter.sensors import nvml as nvml_sensor
from aimeter.testing import FakeClock, FakeSensor
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import ENERGY, NOT_SUPPORTED
from tests.energies import used_part

values = st.lists(st.floats(0.1, 10.0), min_size=4, max_size=40)


# Arithmetic


@pytest.mark.parametrize(
    ("degrees", "confidence", "quantile"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (7, 0.95, 2.365),
        (30, 0.95, 2.042),
        (1000, 0.95, 1.962),
        (3, 0.99, 5.841),
        (10, 0.99, 3.169),
    ],
)
def test_students_t_is_that_of_the_tables(degrees, confidence, quantile):
    """Quantiles agree with printed tables to half a per cent, one per cent far out."""
    assert student_t(degrees, confidence) == pytest.approx(quantile, rel=0.005 if confidence < 0.99 else 0.02)


@given(values, st.floats(-5, 5), st.floats(0.1, 10))
def test_the_half_width_of_a_mean_follows_its_values(series, shift, scale):
    """A shift changes nothing, a scale scales, equal values have none."""
    plain = mean_half_width(series)
    assert mean_half_width([value + shift for value in series]) == pytest.approx(plain, abs=1e-9)
    assert mean_half_width([value * scale for value in series]) == pytest.approx(plain * scale, abs=1e-9)
    assert mean_half_width([series[0]] * len(series)) == pytest.approx(0, abs=1e-12)


def test_one_value_says_nothing_of_its_scatter():
    """A single value has an infinite half-width, not 0."""
    assert mean_half_width([3.0]) == math.inf


def test_looking_until_it_suffices_keeps_its_promise():
    """Stopping as soon as the half-width is small enough leaves the truth inside in 95 % of cases."""
    choose = random.Random(1)
    inside = 0
    for _ in range(400):
        series = [choose.gauss(1, 0.1) for _ in range(8)]
        while (half := mean_half_width(series, 0.97)) > 0.05 * statistics.fmean(series):
            series.append(choose.gauss(1, 0.1))
        inside += abs(statistics.fmean(series) - 1) <= half
    assert inside >= 0.94 * 400


@given(values, st.floats(0.1, 10), st.floats(-0.5, 0.5))
def test_a_straight_line_is_all_drift(noise, mean, change):
    """The change of a straight line is found exactly, whatever its size; times may have any origin."""
    times = [1000 + 0.4 * k for k in range(len(noise))]
    line = [mean * (1 + change * (k / (len(noise) - 1) - 0.5)) for k in range(len(noise))]
    found = drift(times, line)
    assert found.relative == pytest.approx(change, abs=1e-9)
    assert found.error == pytest.approx(1e-3)


def test_noise_is_seldom_a_drift():
    """Values without a trend are flagged in about 5 % of cases."""
    choose = random.Random(2)
    flagged = 0
    for _ in range(500):
        series = [choose.gauss(10, 1) for _ in range(8)]
        flagged += drift(list(range(8)), series).significant
    assert flagged <= 0.075 * 500


def test_too_few_values_have_no_drift():
    """Three points, equal times or a mean of 0 show no drift."""
    assert drift([1, 2, 3], [1, 2, 3]) is None
    assert drift([1] * 5, [1, 2, 3, 4, 5]) is None
    assert drift(range(5), [0] * 5) is None


# Measurements


def emulated(nvml, preset="h100", **settings):
    """One emulated GPU that idles at 70 W, a clock that drives it, and a meter."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add(preset, **{"latency_s": 0.0003, **settings})
    gpu.set_power(70.0)
    sensors, _ = nvml_sensor.probe({}, clock)
    return clock, gpu, aimeter.Meter(sensors=sensors, clock=clock, region="FR")


def work_of(clock, gpu, choose, *, seconds=0.003, noise=0.1):
    """A function of 3 ms at 300 W, more or less."""

    def work():
        gpu.set_power(300.0 * choose.gauss(1, noise))
        clock.sleep(seconds)

    return work


def test_a_function_of_3_ms_on_a_counter_of_100_ms(nvml):
    """A call far shorter than the counter's step is known to 5 %, and the truth is inside in 95 % of runs."""
    off_j, half_j = [], []
    for seed in range(20):
        nvml.reset()
        choose = random.Random(seed)
        clock, gpu, meter = emulated(nvml, counter_phase_s=choose.uniform(0, 0.1))
        found = measure(work_of(clock, gpu, choose), meter=meter)
        assert found.reached
        assert found.resolution_j <= 0.05 * found.energy_j
        # The emulated sensor has no calibration error: the truth must lie within what is left.
        off_j.append(found.energy_j - 0.9)
        half_j.append(found.resolution_j)
        assert found.duration_s == pytest.approx(0.003, rel=0.01)
    assert used_part(off_j, half_j) == pytest.approx(0.46, rel=0.3)


def test_a_sensor_that_is_off_is_admitted_apart(nvml):
    """Calibration is no part of the resolution; the interval that holds both contains the truth."""
    clock, gpu, meter = emulated(nvml, counter_gain=1.04)
    found = measure(work_of(clock, gpu, random.Random(1)), meter=meter)
    assert found.energy_j == pytest.approx(0.9 * 1.04, rel=0.01)
    stated = meter.sampler.readers.traces[0].channel.relative_error
    assert found.calibration_j == pytest.approx(stated * found.energy_j, rel=0.01)
    assert found.error_j == pytest.approx(math.hypot(found.resolution_j, found.calibration_j))
    low, high = found.interval_j
    assert low <= 0.9 <= high


def test_what_other_devices_drew_is_named():
    """Rows do not say how it was measured."""
    clock, _, meter = fake(id="other:0")
    found = measure(clock.sleep, 0.05, meter=meter)
    assert found.methods == {"other": ""}
    assert "(other)" in str(found)


def test_a_gpu_without_counter(nvml):
    """A power that is read every 100 ms over 25 ms of it is enough, too."""
    clock, gpu, _ = emulated(nvml)
    gpu.fault(ENERGY, NOT_SUPPORTED)
    sensors, _ = nvml_sensor.probe({}, clock)
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    found = measure(work_of(clock, gpu, random.Random(3)), meter=meter)
    assert found.methods == {"gpu": "power"}
    assert abs(found.energy_j - 0.9) <= found.resolution_j


def fake(power_w=100.0, **channel):
    clock = FakeClock()
    sensor = FakeSensor(clock, power_w, **channel)
    return clock, sensor, aimeter.Meter(sensors=[sensor], clock=clock, region="FR")


def test_what_is_returned_and_logged():
    """The log has the warm-up, the whole and its batches; repetitions are items; the figures agree with it."""
    clock, _, meter = fake(period_s=0.1, relative_error=0.05)
    with meter.track("before"):
        clock.sleep(1)
    clock.sleep(3)
    seen = []

    def work(number, *, text):
        seen.append((number, text))
        clock.sleep(0.05)

    found = measure(work, 7, text="x", meter=meter, name="work")
    assert set(seen) == {(7, "x")}
    rows = meter.records()[1:]
    batches = [row for row in rows if row.name == "work (batch)"]
    (whole,) = [row for row in rows if row.name == "work"]
    (warm_up,) = [row for row in rows if row.name == "work (warm-up)"]
    assert len(batches) == found.batches >= 8
    assert len(rows) == found.batches + 2
    assert {row.parent_id for row in batches} == {whole.call_id}
    assert whole.items == sum(row.items for row in batches) == found.repetitions
    assert warm_up.duration_s >= 0.05
    assert len(seen) == found.repetitions + round(warm_up.duration_s / 0.05)
    assert all(row.duration_s > 0.399 for row in batches)
    assert found.energy_j == pytest.approx(5.0, rel=0.02)
    assert found.idle_j == pytest.approx(5.0, rel=0.05)
    assert found.duration_s == pytest.approx(0.05)
    assert found.reached
    assert found.coverage == pytest.approx(1)
    assert str(found).startswith(f"work: {found.energy_j:.2f} ± ")
    assert "J a call (gpu counter), 50.0 ms, " in str(found)


def test_the_time_limit_holds():
    """No batch begins after the time limit; what is known by then is returned, and that it is not enough."""
    choose = random.Random(4)
    level = [100.0]
    clock, _, meter = fake(lambda _: level[0], period_s=0.0)

    def erratic():
        level[0] = choose.choice([10.0, 1000.0])
        clock.sleep(1.0)

    began_s = clock()
    found = measure(erratic, meter=meter, relative_error=0.01, time_limit_s=20.0)
    assert not found.reached
    assert 20.0 <= clock() - began_s <= 25.0
    assert found.resolution_j > 0.01 * found.energy_j
    assert "not the ±1.0% wanted" in str(found)


def test_a_function_longer_than_the_time_limit():
    """A single batch has a mean and an unknown scatter, which is infinite and not 0."""
    clock, _, meter = fake()
    found = measure(lambda: clock.sleep(50.0), meter=meter, time_limit_s=30.0)
    assert (found.batches, found.repetitions, found.reached) == (1, 1, False)
    assert found.energy_j == pytest.approx(5000, rel=0.01)
    assert found.resolution_j == math.inf
    assert found.drift is None
    assert "± unknown" in str(found)


def test_a_warming_device_is_seen():
    """Power that creeps up over the run is reported as a drift above its error; a steady one is not."""
    clock, _, meter = fake(lambda t: 100.0 + 2.0 * (t - 1000.0), period_s=0.1)
    found = measure(lambda: clock.sleep(0.01), meter=meter)
    assert found.drift.significant
    whole = next(row for row in meter.records() if row.name.endswith("<lambda>"))
    inner_s = (
        (found.batches - 3) / found.batches * whole.duration_s
    )  # from middle to middle, without the ends
    mean_w = whole.energy_j / whole.duration_s
    assert found.drift.relative * mean_w == pytest.approx(2.0 * inner_s, rel=0.1)
    assert "drifted by +" in str(found)
    clock, _, meter = fake(period_s=0.1)
    assert not measure(lambda: clock.sleep(0.01), meter=meter).drift.significant


def test_the_warm_up_is_not_in_the_figures():
    """A first call that compiles for seconds, and some that are slow, leave no trace in the mean."""
    clock, _, meter = fake()
    calls = []

    def lazy():
        calls.append(clock())
        clock.sleep(5.0 if len(calls) == 1 else 0.05 if len(calls) < 20 else 0.01)

    found = measure(lazy, meter=meter, relative_error=0.02, time_limit_s=60.0)
    assert found.duration_s == pytest.approx(0.01, rel=0.01)
    assert found.energy_j == pytest.approx(1.0, rel=0.02)


def test_as_many_repetitions_are_dropped_as_asked_for():
    """`warm_up` is a least number of repetitions that are dropped, whatever the time."""
    clock, _, meter = fake()
    calls = []

    def work():
        calls.append(None)
        clock.sleep(0.1)

    found = measure(work, meter=meter, warm_up=200)
    assert len(calls) - found.repetitions >= 200


def test_exceptions_pass_through_and_end_the_calls():
    """What the function raises reaches the caller, and the rows say error."""
    clock, _, meter = fake()
    calls = []

    def fails():
        calls.append(None)
        clock.sleep(0.05)
        if len(calls) == 60:
            raise KeyError

    with pytest.raises(KeyError):
        measure(fails, meter=meter)
    assert {row.status for row in meter.records() if "warm-up" not in row.name} == {"ok", "error"}
    assert aimeter.current_call() is None


async def coroutine():
    raise AssertionError


def generator():
    yield


async def async_generator():
    yield


@pytest.mark.parametrize("fn", [coroutine, generator, async_generator, partial(coroutine)])
def test_a_function_whose_work_is_not_done_is_refused(fn):
    """Coroutine functions and generators are told how to be measured."""
    _, _, meter = fake()
    with pytest.raises(TypeError, match="measure\\(lambda: "):
        measure(fn, meter=meter)


def test_a_coroutine_function_is_measured_by_running_it():
    """What the error of a coroutine function advises works."""
    clock, _, meter = fake()

    async def work():
        clock.sleep(0.1)

    found = measure(lambda: asyncio.run(work()), meter=meter, name="work")
    assert found.energy_j == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"relative_error": 0}, ValueError),
        ({"relative_error": 5}, ValueError),
        ({"relative_error": math.nan}, ValueError),
        ({"time_limit_s": 0}, ValueError),
        ({"time_limit_s": math.inf}, ValueError),
        ({"warm_up": 0}, ValueError),
        ({"warm_up": 1.5}, ValueError),
        ({"warm_up": True}, ValueError),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(kwargs, error):
    """An argument out of range is an error that names it; the function is not called."""
    with pytest.raises(error, match=next(iter(kwargs))):
        measure(lambda: pytest.fail("was called"), **kwargs)


def test_a_result_in_place_of_a_function_is_refused():
    """measure(f(x)) is told to be measure(f, x)."""
    with pytest.raises(TypeError, match=r"measure\(f, x\)"):
        measure(3.0)


def test_without_a_meter_the_time_is_still_told():
    """With no meter, and with metering switched off, energy is None and nothing is repeated for long."""
    for enabled in (True, False):
        clock = FakeClock()
        meter = aimeter.Meter(sensors=[], clock=clock, region="FR", enabled=enabled)
        began_s = clock()
        found = measure(lambda clock=clock: clock.sleep(0.01), meter=meter, name="x")
        assert found.energy_j is found.error_j is found.interval_j is found.idle_j is None
        assert not found.reached
        assert found.duration_s == pytest.approx(0.01)
        assert clock() - began_s < 2
        assert str(found).startswith("x: energy unknown (see `aimeter doctor`), 10.0 ms a call, ")


def test_a_clock_that_stands_still_is_told():
    """With a fake clock that nothing moves, measuring would never end."""
    _, _, meter = fake()
    with pytest.raises(RuntimeError, match="advance"):
        measure(lambda: None, meter=meter)


def test_measure_is_public():
    """It is loaded from the package with the default meter."""
    assert aimeter.measure is measure
    assert aimeter.Measurement.__slots__


@settings(max_examples=25)
@given(st.floats(0.2, 3.0), st.floats(0.005, 0.2))
def test_equal_work_is_found_exactly(power, seconds):
    """With constant power and equal calls the mean is power times time, whatever the length of the call."""
    clock, _, meter = fake(100 * power)
    found = measure(lambda: clock.sleep(seconds), meter=meter, time_limit_s=5.0)
    assert found.energy_j == pytest.approx(100 * power * seconds, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"name": 3},
        {"relative_error": "5%"},
        {"relative_error": None},
        {"time_limit_s": "3"},
        {"time_limit_s": True},
    ],
)
def test_arguments_of_a_wrong_type_are_refused(options):
    """What is no number, or no name, is said at once and by its name."""
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be"):
        aimeter.measure(len, [], **options)
