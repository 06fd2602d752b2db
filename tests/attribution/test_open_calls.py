"""Figures that are asked for while a call is open: what it used so far of each device, and what nobody did."""

from __future__ import annotations

import pytest

import aimeter
from aimeter.sensors.base import Outcome
from aimeter.testing import FakeSensor


def meter_of(clock, *sensors, **options):
    return aimeter.Meter(sensors=list(sensors), clock=clock, region="FR", calibration="off", **options)


def near(joules):
    return pytest.approx(joules, rel=1e-3)


def beside(meter, around=None, **options):
    """Return a call that began now, in a task of its own."""
    call = meter.track("beside", **options)
    call.__enter__()
    call._parent = around  # what the context variable would say there
    return call


def test_so_far_is_what_the_device_drew_since_the_call_began(clock):
    """Share, own part and window of a call that is open follow the true power, and its end adds nothing to them."""
    power = {"w": 100.0}
    meter = meter_of(clock, FakeSensor(clock, lambda _: power["w"]))
    clock.sleep(5.0)
    with meter.track("before"):
        clock.sleep(1.0)
    with meter.track("x") as call:
        drawn_j = 0.0
        for watts in (50.0, 400.0, 200.0):
            power["w"] = watts
            clock.sleep(2.0)
            drawn_j += 2.0 * watts
            assert (call.energy_j, call.self_j, call.window_j) == (near(drawn_j),) * 3
            assert call.record.gpu_j == near(drawn_j)
            assert call.resolution_j == pytest.approx(call.energy_j / 2)
    assert (call.energy_j, call.self_j, call.window_j) == (near(drawn_j),) * 3


@pytest.mark.parametrize("others", [0, 3])
def test_so_far_is_shared_as_the_row_will_be(clock, others):
    """Two calls at once, by their weights, whatever began and ended inside one of them since."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    clock.sleep(1.0)
    with meter.track("heavy", weight=3.0) as heavy:
        clock.sleep(1.0)
        light = beside(meter)
        clock.sleep(2.0)
        for _ in range(others):
            inside = beside(meter, light)
            clock.sleep(0.1)
            inside.finish("ok", None)
        clock.sleep(2.0 - 0.1 * others)
        assert (heavy.energy_j, heavy.window_j) == (near(100.0 + 300.0), near(500.0))
        assert (light.energy_j, light.window_j) == (near(100.0), near(400.0))
        light.finish("ok", None)
        clock.sleep(1.0)
        assert (heavy.energy_j, heavy.window_j) == (near(500.0), near(600.0))
    assert heavy.energy_j == near(500.0)


def test_so_far_holds_what_children_used(clock):
    """A call whose children are open, or have ended, has all that they used."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    with meter.track("outer") as outer:
        clock.sleep(1.0)
        with meter.track("inner") as inner:
            clock.sleep(1.0)
            assert (outer.energy_j, inner.energy_j) == (near(200.0), near(100.0))
        clock.sleep(1.0)
        assert outer.energy_j == near(300.0)
        first, second = beside(meter, outer), beside(meter, outer)
        other = beside(meter)
        clock.sleep(3.0)
        assert (first.energy_j, second.energy_j, other.energy_j) == (near(100.0),) * 3
        assert (outer.energy_j, outer.window_j) == (near(500.0), near(600.0))
        for call in (first, second, other):
            call.finish("ok", None)
    assert outer.energy_j == near(500.0)


def test_a_device_that_has_not_answered_yet_is_unknown_so_far(clock):
    """Before its first value a device has no joules, and not 0 of them; then those since, and no more at the end."""
    gpu, cpu = FakeSensor(clock, 100.0), FakeSensor(clock, 50.0, id="cpu:0")
    cpu.fault = Outcome.AGAIN
    meter = meter_of(clock, gpu, cpu)
    with meter.track("x") as call:
        clock.sleep(1.0)
        so_far = call.record
        assert (so_far.cpu_j, so_far.cpu_method) == (None, "none")
        assert so_far.devices.startswith("gpu:0")
        assert len(so_far.devices_j) == 1
        assert (call.energy_j, call.window_j) == (near(100.0), near(100.0))
        cpu.fault = None
        meter.sampler.refresh(0)
        assert (call.cpu_j, call.energy_j) == (0.0, near(100.0))
        clock.sleep(1.0)
        assert (call.cpu_j, call.gpu_j) == (near(50.0), near(200.0))
        with meter.track("inner"):
            clock.sleep(1.0)
        clock.sleep(1.0)
        assert (call.cpu_j, call.gpu_j) == (near(150.0), near(400.0))
        assert (call.energy_j, call.window_j) == (near(550.0), near(550.0))
    assert (call.cpu_j, call.gpu_j) == (near(150.0), near(400.0))
    assert call.record.coverage == pytest.approx(3 / 4, rel=1e-3)


def test_a_device_that_is_lost_has_what_it_drew_until_then(clock):
    """Nothing is extrapolated beyond the last value of a device that is gone."""
    gpu, cpu = FakeSensor(clock, 100.0), FakeSensor(clock, 50.0, id="cpu:0")
    meter = meter_of(clock, gpu, cpu)
    with meter.track("x") as call:
        clock.sleep(2.0)
        meter.sampler.refresh(0)
        cpu.fault = Outcome.GONE
        clock.sleep(8.0)
        assert (call.cpu_j, call.gpu_j) == (near(100.0), near(1000.0))
    assert (call.cpu_j, call.gpu_j) == (near(100.0), near(1000.0))


def test_between_two_values_the_power_last_seen_goes_on(clock):
    """A counter in steps of a second is read on by the power of its last step, not held at its last value."""
    meter = meter_of(clock, FakeSensor(clock, 100.0, period_s=1.0))
    clock.sleep(5.0)
    with meter.track("x") as call:
        clock.sleep(3.5)
        assert call.energy_j == pytest.approx(350.0, abs=10.0)
        assert call.window_j == pytest.approx(350.0, abs=10.0)


def test_calls_that_began_since_the_last_value_have_their_own_time_only(clock):
    """What the device has drawn since a counter's last step, but before a call, is not the call's."""
    meter = meter_of(clock, FakeSensor(clock, 100.0, period_s=1.0))
    clock.sleep(5.5)
    with meter.track("x") as call:
        clock.sleep(0.1)
        assert (call.energy_j, call.window_j) == (pytest.approx(10.0, abs=1.0),) * 2
        other = beside(meter)
        clock.sleep(0.2)
        assert (other.energy_j, other.window_j) == (
            pytest.approx(10.0, abs=1.0),
            pytest.approx(20.0, abs=1.0),
        )
        other.finish("ok", None)


# What nobody used


def test_what_no_call_used_is_counted_and_positive(clock):
    """Between calls, and not before the first or within any, by device."""
    meter = meter_of(clock, FakeSensor(clock, 100.0), FakeSensor(clock, 10.0, id="cpu:0"))
    clock.sleep(7.0)
    for _ in range(3):
        with meter.track("x"):
            clock.sleep(1.0)
        clock.sleep(2.0)
    with meter.track("last"):
        clock.sleep(1.0)
    assert meter.unattributed_j() == {"gpu:0": near(600.0), "cpu:0": near(60.0)}


def test_what_is_counted_after_a_silence_is_nobodys(clock):
    """A counter that comes back has counted on: its joules are no call's, nor are they lost."""
    sensor = FakeSensor(clock, 100.0)
    meter = meter_of(clock, sensor)
    with meter.track("before") as before:
        clock.sleep(1.0)
    with meter.track("around") as around:
        clock.sleep(1.0)
        meter.sampler.refresh(0)
        sensor.fault = Outcome.AGAIN
        clock.sleep(10.0)
        sensor.fault = None
        clock.sleep(10.0)
        meter.sampler.refresh(0)
    clock.sleep(1.0)
    with meter.track("after") as after:
        clock.sleep(1.0)
    drawn_j = 100.0 * (after.end_s - before.start_s)
    nobodys_j = meter.unattributed_j()["gpu:0"]
    shared_j = before.energy_j + around.energy_j + after.energy_j
    assert around.energy_j == near(around.record.coverage * around.duration_s * 100.0)
    assert 10.0 * 100.0 < nobodys_j < 12.5 * 100.0
    assert shared_j + nobodys_j == near(drawn_j)


def test_what_is_counted_for_a_time_that_was_settled_without_it_is_nobodys(clock):
    """Who cannot wait for a counter's next step has no joules of it; when it comes, the part before is nobody's."""
    sensor = FakeSensor(clock, 100.0, period_s=1.0)
    meter = meter_of(clock, sensor)
    clock.sleep(6.3)
    stepped_s = clock() - 0.3
    with meter.track("x") as call:
        clock.sleep(0.55)
    meter.sampler.settle(until_s=clock())
    assert (call.energy_j, call.record.coverage) == (None, 0.0)
    clock.sleep(3.0)
    with meter.track("y") as other:
        clock.sleep(8.0)
    clock.sleep(2.0)
    assert other.energy_j == pytest.approx(800.0, abs=10.0)
    nobodys_j = meter.unattributed_j()["gpu:0"]
    assert nobodys_j + other.energy_j == pytest.approx(100.0 * (other.end_s - stepped_s), abs=10.0)


def test_what_nobody_used_of_devices_named_apart_is_each_devices_own(clock):
    """A GPU whose call leaves the CPU alone: what the CPU draws meanwhile is nobody's, what the GPU does is not."""
    meter = meter_of(clock, FakeSensor(clock, 100.0), FakeSensor(clock, 10.0, id="cpu:0"))
    with meter.track("both"):
        clock.sleep(1.0)
    clock.sleep(1.0)
    with meter.track("gpu", devices="gpu"):
        clock.sleep(5.0)
    clock.sleep(1.0)
    with meter.track("both"):
        clock.sleep(1.0)
    assert meter.unattributed_j() == {"gpu:0": near(200.0), "cpu:0": near(70.0)}


@pytest.mark.parametrize("began", ["two children", "a pause"])
def test_so_far_of_a_call_in_which_something_changed_since_the_last_value(clock, began):
    """What has not been settled yet changes nothing of what was earned before."""
    meter = meter_of(clock, FakeSensor(clock, 100.0, period_s=1.0))
    with meter.track("earlier"):
        clock.sleep(20.0)
    clock.sleep(5.0)
    with meter.track("outer") as outer:
        clock.sleep(0.5)
        call = beside(meter, outer)
        clock.sleep(10.0)
        if began == "a pause":
            call.pause(suspended=True)
        else:
            inside = [beside(meter, call), beside(meter, call)]
        clock.sleep(0.1)
        assert call.energy_j == pytest.approx(1000.0, abs=30.0)
        assert outer.energy_j == pytest.approx(1060.0, abs=30.0)
        for one in inside if began == "two children" else []:
            one.finish("ok", None)
        call.finish("ok", None)


def test_the_own_part_so_far_leaves_out_what_children_used(clock):
    """An open call says what it used without its children, as its row will, and so adds up with theirs."""
    meter = meter_of(clock, FakeSensor(clock, 100.0))
    with meter.track("outer") as outer:
        clock.sleep(1.0)
        with meter.track("inner") as inner:
            clock.sleep(2.0)
            assert (outer.self_j, inner.self_j) == (near(100.0), near(200.0))
        clock.sleep(4.0)
        assert (outer.energy_j, outer.self_j, inner.self_j) == (near(700.0), near(500.0), near(200.0))
    assert outer.self_j == near(500.0)
