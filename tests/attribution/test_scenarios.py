"""Known wrong results of other tools that no other module covers; each test carries the scenario's id."""

from __future__ import annotations

import pytest

import aimeter
from aimeter.sensors.estimate import TICK_S, UNKNOWN, power_w, probe
from aimeter.testing import FakeSensor


def meter_of(clock, *sensors, **settings):
    return aimeter.Meter(sensors=list(sensors), clock=clock, region="FR", **settings)


def test_a_figure_says_what_it_covers(clock):
    """The row names the devices behind its joules; two CPUs and a GPU are not passed off as a process."""
    sensors = [FakeSensor(clock, 10.0, id=name) for name in ("cpu:0", "cpu:1", "gpu:0")]
    meter = meter_of(clock, *sensors)
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert {name.split(":FAKE")[0] for name in call.record.devices.split()} == {"cpu:0", "cpu:1", "gpu:0"}


def test_memory_is_not_split_by_cpu_time(clock):
    """Memory with a meter of its own is a column of its own, of the whole device, by the same rule as all."""
    meter = meter_of(clock, FakeSensor(clock, 40.0, id="cpu:0"), FakeSensor(clock, 8.0, id="dram:0"))
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert (call.cpu_j, call.dram_j) == (pytest.approx(40.0, rel=1e-3), pytest.approx(8.0, rel=1e-3))


def test_a_busy_cpu_is_never_more_than_busy(tmp_path):
    """Polled every 20 ms, CPUs that are busy all the time give no more than their most, but for one tick."""
    from types import SimpleNamespace

    now = [100.0]

    def ticks():
        return SimpleNamespace(user=4 * (now[0] * 100 // 1) / 100)

    [model], _ = probe(tmp_path, tmp_path, clock=lambda: now[0], cpu_times=ticks, online=4)
    [start] = model.read()
    for _ in range(100):
        now[0] += 0.02
        [reading] = model.read()
    most_w, idle_w = power_w(UNKNOWN, 4, 1.0), power_w(UNKNOWN, 4, 0.0)
    drawn = reading.value - start.value
    assert drawn <= most_w * 2.0 + (most_w - idle_w) * TICK_S * 1.01
    assert drawn == pytest.approx(most_w * 2.0, rel=0.01)


def test_a_short_epoch_has_a_value_with_an_error(clock):
    """0.3 s is not too short: a value and how wrong it may be."""
    meter = meter_of(clock, FakeSensor(clock, 200.0, period_s=0.1))
    with meter.track("epoch") as call:
        clock.sleep(0.3)
    assert abs(call.energy_j - 60.0) <= call.error_j
    assert call.error_j < 60.0


def test_a_run_lasts_as_long_as_it_lasts(clock):
    """A task inside a run does not restart the run's clock: 2.0 s and all of its joules."""
    meter = meter_of(clock, FakeSensor(clock, 50.0))
    with meter.track("run") as run:
        clock.sleep(1.0)
        with meter.track("task"):
            clock.sleep(0.5)
        clock.sleep(0.5)
    assert run.duration_s == pytest.approx(2.0)
    assert run.energy_j == pytest.approx(100.0, rel=1e-3)


def test_the_time_of_slow_readings_is_not_lost(clock):
    """A power whose every reading takes 30 ms: the time that reading takes is integrated like any other."""

    class Slow(FakeSensor):
        def read(self):
            clock.now_s += 0.03
            return super().read()

    meter = meter_of(clock, Slow(clock, 100.0, period_s=0.1, quantity="power"))
    with meter.track("x") as call:
        clock.sleep(5.0)
    assert call.energy_j == pytest.approx(100.0 * call.duration_s, rel=0.01)
    assert call.record.coverage == pytest.approx(1.0)


def test_the_sensors_are_read_before_the_first_call_begins(clock):
    """The sampler is proven alive before anything is metered: the first call is covered from its first moment."""
    sensor = FakeSensor(clock, 100.0)
    meter = meter_of(clock, sensor)
    assert sensor.reads > 0
    with meter.track("first") as call:
        clock.sleep(0.05)
    assert call.record.coverage == pytest.approx(1.0)


def test_the_idle_power_comes_from_the_time_it_was_measured_in(clock):
    """Idle is joules over seconds without a call: 30 W stay 30 W, whatever the pause's length."""
    for pause in (0.5, 2.0):
        meter = meter_of(clock, FakeSensor(clock, 30.0))
        with meter.track("warm-up"):
            clock.sleep(0.1)
        clock.sleep(pause)
        with meter.track("x") as call:
            clock.sleep(1.0)
        assert call.idle_j == pytest.approx(30.0, rel=0.01)


def test_the_second_call_is_like_the_first(clock):
    """A decorated function can be called again and again; nothing of aimeter's reaches the caller."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    double = meter.track(lambda x: 2 * x)
    assert [double(i) for i in range(5)] == [0, 2, 4, 6, 8]
    assert len(meter.records()) == 5


def test_the_callers_exception_is_the_callers(clock):
    """What the code raises comes out, the same object, and the reading is closed."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    error = RuntimeError("mine")
    with pytest.raises(RuntimeError) as caught, meter.track("x"):
        raise error
    assert caught.value is error
    assert meter.records()[0].status == "error"


def test_a_column_holds_a_value_or_nothing(clock):
    """What is not known is empty, never 0.0 in every row."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    with meter.track("x"):
        clock.sleep(0.1)
    [row] = meter.records()
    assert (row.cpu_j, row.dram_j, row.other_j, row.items, row.embodied_g) == (None,) * 5
    assert (row.cpu_method, row.dram_method) == ("none", "none")


def test_a_total_names_its_parts(clock):
    """The energy of a call is the sum of parts that are named in the same row."""
    meter = meter_of(
        clock, *(FakeSensor(clock, w, id=i) for w, i in ((90.0, "gpu:0"), (30.0, "cpu:0"), (5.0, "dram:0")))
    )
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert call.energy_j == pytest.approx(call.gpu_j + call.cpu_j + call.dram_j)
