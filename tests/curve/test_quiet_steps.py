"""Steps of a counter that hold no more than the idle power would have drawn, although a call was open in them."""

from __future__ import annotations

import numpy as np
import pytest

import aimeter
from aimeter._curve.activity import Activity, IdlePower
from aimeter._curve.curve import Curve
from aimeter.testing import FakeClock, FakeSensor
from tests.energies import energy_between

IDLE_W, STEP_S = 60.0, 0.1
CALL = 0.13, 0.16


def curve_of(*steps_j, idle_w=IDLE_W):
    """A curve through exact knots that are `STEP_S` apart, and of a device of which nothing else is known."""
    curve = Curve(counted=True, max_power_w=1e4)
    curve.append(0.0, 0.0, 0.0)
    for number, joules in enumerate(np.cumsum(steps_j), 1):
        curve.append(number * STEP_S, joules, 0.0, idle=IdlePower(idle_w, 0.0, 1.0))
    return curve


def activity_of(*call):
    return Activity(np.array(call), np.array([True, False]))


@pytest.mark.parametrize("step_j", [0.5, 3.0, 4.0])
def test_a_call_in_a_step_without_excess_has_nothing_that_is_sure(step_j):
    """The idle time would have drawn 4.2 J, so nothing is left for the call; but all of the step may be its own."""
    curve = curve_of(6.0, step_j, 6.0)
    begin_s, end_s = CALL
    times = [0.1, begin_s, end_s]
    joules, half_j = energy_between(curve, times, [begin_s, end_s, 0.2], activity_of(*CALL))
    before_j = step_j * (begin_s - 0.1) / (0.1 - (end_s - begin_s))
    assert joules == pytest.approx([before_j, 0.0, step_j - before_j])
    # Both ends of the call are known by the knots of the step alone.
    assert half_j[1] == pytest.approx(np.sqrt(2) * max(before_j, step_j - before_j))


def test_the_least_excess_is_the_calls_own():
    """What a step holds above the idle power belongs to the call, however little, and is as sure as that power."""
    curve = curve_of(6.0, IDLE_W * 0.07 + 0.01, 6.0)
    [joules], [half_j] = energy_between(curve, [CALL[0]], [CALL[1]], activity_of(*CALL))
    assert joules == pytest.approx(0.01)
    assert half_j == pytest.approx(0.0, abs=1e-9)


def test_a_step_of_a_small_device_has_a_shape():
    """Of memory at 2 W that draws 5 W in a call, a step of a tenth of a second holds some tenths of a joule."""
    small = curve_of(0.2, 0.07 * 2.0 + 0.03 * 5.0, 0.2, idle_w=2.0)
    [joules], [half_j] = energy_between(small, [CALL[0]], [CALL[1]], activity_of(*CALL))
    assert joules == pytest.approx(0.03 * 5.0)
    assert half_j == pytest.approx(0.0, abs=1e-9)


def test_a_step_of_nothing_is_of_nobody():
    """A counter that stood still for a step drew nothing in it, for a call or beside one."""
    curve = curve_of(6.0, 0.0, 6.0)
    joules, half_j = energy_between(curve, [0.1, *CALL], [*CALL, 0.2], activity_of(*CALL))
    assert joules == pytest.approx([0.0, 0.0, 0.0])
    assert half_j == pytest.approx([0.0, 0.0, 0.0])


@pytest.mark.parametrize("call_w", [0.0, 20.0, 45.0])
def test_a_call_that_draws_less_than_the_device_at_rest_lies_within_its_bar(call_w):
    """At any phase of the steps: what it drew, from nothing to 45 of 60 W, is no further off than the steps it is in."""
    clock, calls = FakeClock(), []

    def exact(start, end):
        below = sum(max(0.0, min(end, b) - max(start, a)) for a, b in calls[-40:])
        return IDLE_W * (end - start) - (IDLE_W - call_w) * below

    sensor = FakeSensor(clock, IDLE_W, energy_j=exact, period_s=STEP_S, max_power_w=400.0)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    with meter.track("warm-up"):
        clock.sleep(0.2)
    clock.sleep(5.0)
    metered = []
    for number in range(40):
        length_s = 0.02 + 0.013 * (number % 5)
        calls.append((clock(), clock() + length_s))
        with meter.track("below") as call:
            clock.sleep(length_s)
        metered.append((call, call_w * length_s))
        clock.sleep(1.0 + 0.037 * number)
    off_j = np.array([abs(call.energy_j - truth_j) for call, truth_j in metered])
    bars_j = np.array([call.error_j for call, _ in metered])
    assert np.mean(off_j <= bars_j) >= 0.95
    assert (bars_j < 2 * IDLE_W * STEP_S).all()
