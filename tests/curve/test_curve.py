"""The curve: energy between two times is conserved, bounded and shaped as its knots say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter._curve.activity import Activity, IdlePower
from aimeter._curve.curve import Curve
from aimeter._curve.resolution import moved
from tests.energies import energy_between

steps = st.lists(
    st.tuples(st.floats(min_value=1e-3, max_value=2.0), st.floats(min_value=0.0, max_value=700.0)),
    min_size=1,
    max_size=30,
)
parts = st.lists(st.floats(min_value=0.0, max_value=1.0), min_size=2, max_size=8)


def activity_of(*spans):
    """Calls open in these spans of time."""
    return Activity(np.array([t for span in spans for t in span]), np.array([True, False] * len(spans)))


def staircase(pieces, base_w=np.nan):
    """A counted curve through exact knots, and where it ends."""
    curve = Curve(counted=True)
    time = joules = 0.0
    idle = IdlePower(base_w, 0.0, 1.0)
    curve.append(time, joules, 0.0)
    for seconds, watts in pieces:
        time, joules = time + seconds, joules + seconds * watts
        curve.append(time, joules, 0.0, idle=idle)
    return curve, time


@given(steps, parts, st.floats(min_value=0.0, max_value=700.0))
def test_energy_of_a_stretch_is_the_sum_of_its_parts(pieces, cuts, base_w):
    """energy(a, c) == energy(a, b) + energy(b, c), for any a < b < c and any activity."""
    curve, end = staircase(pieces, base_w)
    activity = activity_of((end / 3, end / 2))
    times = np.sort(np.array(cuts)) * end
    whole, _ = energy_between(curve, times[:1], times[-1:], activity)
    pieces_j, resolution = energy_between(curve, times[:-1], times[1:], activity)
    assert pieces_j.sum() == pytest.approx(whole[0], rel=1e-9, abs=1e-9)
    assert (pieces_j >= -1e-9).all()
    # A part may have all or nothing of what was counted from the knot before it to the one after it.
    time, counted, _ = curve.knots
    begins = counted[np.searchsorted(time, times[:-1], side="right") - 1]
    ends = counted[np.minimum(np.searchsorted(time, times[1:]), len(time) - 1)]
    assert ((resolution >= 0) & (resolution <= ends - begins + 1e-9)).all()


@given(steps)
def test_knots_are_met_exactly(pieces):
    """Between two knots the curve holds what was counted, whatever the shape in between."""
    curve, _ = staircase(pieces, base_w=30.0)
    time, joules, _ = curve.knots
    activity = activity_of((time[0], (time[0] + time[-1]) / 2))
    assert curve.at(time.copy(), activity).energy_j == pytest.approx(joules, rel=1e-9, abs=1e-9)
    _, resolution = energy_between(curve, time[:-1], time[1:], activity)
    assert resolution == pytest.approx(0.0, abs=1e-9 * joules[-1])


@given(steps, st.lists(st.floats(min_value=0.0, max_value=1.0), min_size=1, max_size=10))
def test_the_truth_lies_within_the_bounds(pieces, fractions):
    """However the power was really spread inside a step, the true energy lies between the bounds."""
    curve, end = staircase(pieces)
    time, joules, _ = curve.knots
    at = np.array(fractions) * end
    points = curve.at(at)
    k = np.clip(np.searchsorted(time, at, side="right") - 1, 0, len(time) - 2)
    step = joules[k + 1] - joules[k]
    for extreme in (
        0.0,
        1.0,
    ):  # all of a step's energy at its end, or at its start, but for the power it can take
        truth = joules[k] + extreme * step
        limit = 10 * max(watts for _, watts in pieces)
        truth = np.clip(truth, joules[k + 1] - limit * (time[k + 1] - at), joules[k] + limit * (at - time[k]))
        assert (points.low_j <= truth + 1e-6).all()
        assert (points.high_j >= truth - 1e-6).all()


def test_a_short_call_is_found_inside_a_long_step():
    """30 ms at 300 W in a 100 ms step above 60 W idle gives 9 J, and nothing is in doubt; without an idle power all is."""
    curve, _ = staircase([(0.1, 60.0), (0.1, 60.0 * 0.7 + 300.0 * 0.3), (0.1, 60.0)], base_w=60.0)
    activity = activity_of((0.12, 0.15))
    joules, resolution = energy_between(curve, np.array([0.12]), np.array([0.15]), activity)
    assert joules[0] == pytest.approx(9.0)
    assert resolution[0] == pytest.approx(0.0, abs=1e-9)
    plain, _ = staircase([(0.1, 60.0), (0.1, 60.0 * 0.7 + 300.0 * 0.3), (0.1, 60.0)])
    joules, resolution = energy_between(plain, np.array([0.12]), np.array([0.15]), activity)
    assert joules[0] == pytest.approx(0.3 * 13.2)
    assert resolution[0] == pytest.approx(0.7 * 13.2)


def test_without_idle_power_a_step_is_spread_evenly():
    """A step whose idle power is unknown has no shape: its energy is spread over its time."""
    curve, _ = staircase([(0.1, 100.0)])
    activity = activity_of((0.0, 0.05))
    joules, _ = energy_between(curve, np.array([0.0]), np.array([0.05]), activity)
    assert joules[0] == pytest.approx(5.0)


def test_a_gap_has_no_energy_and_no_coverage():
    """What was not metered is not extrapolated: the energy stands still and the coverage says so."""
    curve, _ = staircase([(1.0, 100.0)])
    curve.append_gap(3.0)
    curve.append(4.0, 200.0, 0.0)
    points = curve.at(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0]))
    assert points.energy_j.tolist() == [0.0, 100.0, 100.0, 100.0, 200.0, 200.0]
    assert points.covered_s.tolist() == [0.0, 1.0, 1.0, 1.0, 2.0, 2.0]


def test_memory_is_bounded():
    """The buffer keeps the newest knots, however many are added, and their sums stay right."""
    curve = Curve(counted=True)
    for i in range(100_000):
        curve.append(float(i), 2.0 * i, 0.0)
    assert len(curve) <= 8192
    joules, _ = energy_between(curve, np.array([99_000.5]), np.array([99_990.0]))
    assert joules[0] == pytest.approx(2 * 989.5)


def test_an_empty_curve_knows_nothing():
    """Without a knot nothing is covered."""
    points = Curve(counted=True).at(np.array([1.0, 2.0]))
    assert points.covered_s.tolist() == [0.0, 0.0]


def test_a_sampled_curve_admits_what_an_average_hides():
    """A burst that a 1 s average smears out lies within the error of the call that made it."""
    # 9 J of burst shows as an excess of 9 W for one second.
    curve = Curve(counted=False, reach_s=1.1)
    energy = 0.0
    for i in range(60):
        watts = 69.0 if 20 <= i < 30 else 60.0
        curve.append(i * 0.1, energy, 0.0)
        energy += watts * 0.1
    joules, resolution = energy_between(curve, np.array([2.0]), np.array([2.03]))
    assert abs(joules[0] - (9.0 + 1.8)) <= resolution[0]
    # At either end all of the swing seen may lie on the other side, for as long as a reading reaches.
    assert resolution[0] == pytest.approx(9.0 * 1.1 * 2**0.5)


def test_a_part_time_sensor_may_have_missed_what_keeps_step_with_it():
    """Where a sensor that looks at a quarter of the time sees nothing of a call, all that it ever saw may be hidden."""
    steady, swinging = (Curve(counted=False, reach_s=0.125, seen=0.25) for _ in range(2))
    for curve, busy_w in ((steady, 70.0), (swinging, 400.0)):
        energy = 0.0
        for i in range(100):
            curve.append(i * 0.1, energy, 0.0)
            energy += (busy_w if i < 10 else 70.0) * 0.1
    missed_j = 330.0 * 0.125
    (nothing,), (something,) = (
        energy_between(curve, np.array([8.03]), np.array([8.06]))[1] for curve in (steady, swinging)
    )
    assert nothing < 1e-6
    assert something == pytest.approx(missed_j * 2**0.5)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.floats(0.01, 2))
def test_errors_in_time_cancel_between_near_ends(first, last, apart_s, steady_s):
    """What knots have in common is a difference where it is wholly common, and a sum of squares where it is not."""
    one, other, nothing = np.array([first]), np.array([last]), np.zeros(1)
    shifted = moved((nothing, nothing), (one, other), np.array([apart_s]), np.array([steady_s]))
    assert shifted == pytest.approx([(last - first) ** 2])
    phase = moved((one, other), (nothing, nothing), np.array([apart_s]), np.array([steady_s]))
    assert (last - first) ** 2 - 1e-9 <= phase[0] <= first**2 + last**2 + 1e-9
    alone = moved((one, other), (nothing, nothing), np.array([apart_s]), np.zeros(1))
    assert alone == pytest.approx([first**2 + last**2])
