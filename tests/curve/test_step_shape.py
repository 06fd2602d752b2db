"""How a step's energy lies in it, one step at a time, and what a knot that is off in time makes of that."""

from __future__ import annotations

import numpy as np
import pytest

from aimeter._curve.activity import Activity, IdlePower
from aimeter._curve.step_shape import (
    DECAY,
    HALF,
    IDLE,
    JOULES,
    LINES,
    PHASE,
    SHIFT,
    TAU,
    TIME,
    Step,
    shape_of,
)

BEGIN_S, END_S = 2.0, 2.5
IDLE_W, LOAD_W, TAU_S = 60.0, 300.0, 0.4
LATE = {HALF: (0.001, 0.003), PHASE: (0.002, 0.005), SHIFT: (0.004, 0.004)}
"""By how much the two knots may be off in time."""


def shape(time_s, call, *, idle_w=IDLE_W, decay_w=0.0, joules=None, limit_w=1e4, shifts=()):
    """Return the shape at one time of a step of a device that draws `LOAD_W` in the call and else `IDLE_W`."""
    open_s = max(min(call[1], END_S) - max(call[0], BEGIN_S), 0.0)
    whole_j = IDLE_W * (END_S - BEGIN_S) + (LOAD_W - IDLE_W) * open_s if joules is None else joules
    before, after = np.zeros((LINES, 1)), np.zeros((LINES, 1))
    before[TIME], after[TIME], after[JOULES] = BEGIN_S, END_S, whole_j
    after[IDLE], after[DECAY], after[TAU] = idle_w, decay_w, TAU_S
    for line, (first, second) in LATE.items():
        before[line], after[line] = first, second
    part = np.array([(time_s - BEGIN_S) / (END_S - BEGIN_S)])
    activity = Activity(np.array(call), np.array([True, False]), np.array(shifts, float))
    return shape_of(np.array([time_s]), part, before, after, activity, np.array([limit_w])), part


@pytest.mark.parametrize(
    ("call", "begin_w", "end_w"),
    [
        ((1.0, 4.0), LOAD_W, LOAD_W),
        ((2.1, 4.0), IDLE_W, LOAD_W),
        ((1.0, 2.4), LOAD_W, IDLE_W),
        ((2.1, 2.4), IDLE_W, IDLE_W),
        ((0.5, 1.0), IDLE_W, IDLE_W),
        # Whoever is open all the step and ends with it: the step tells of no other power.
        ((1.0, END_S), LOAD_W, LOAD_W),
        ((BEGIN_S, END_S), LOAD_W, LOAD_W),
        # And who begins as it ends: nor does this one.
        ((END_S, 4.0), IDLE_W, IDLE_W),
    ],
)
def test_a_knot_that_is_off_in_time_moves_the_power_around_it(call, begin_w, end_w):
    """As far as the other knot does not hold it back: by the part of the open time, or of all time if there is none."""
    for time_s in (2.05, 2.2, 2.45):
        shaped, part = shape(time_s, call)
        open_before, open_all = (
            max(min(call[1], until) - max(call[0], BEGIN_S), 0.0) for until in (time_s, END_S)
        )
        held = open_before / open_all if open_all else part[0]
        for line, found_j in ((PHASE, shaped.phase_j), (SHIFT, shaped.shift_j)):
            first, second = LATE[line]
            assert found_j == pytest.approx((1 - held) * begin_w * first + held * end_w * second)
        # Knots are off by themselves too; where the call's own edge is that near, all of it counts.
        near = [any(abs(edge - knot) < 0.011 for edge in call) for knot in (BEGIN_S, END_S)]
        off_s = [
            sum(both[knot] for both in LATE.values()) if near[knot] else LATE[HALF][knot] for knot in (0, 1)
        ]
        own_j = np.hypot((1 - held) * begin_w * off_s[0], held * end_w * off_s[1])
        assert shaped.other_j == pytest.approx(own_j)


@pytest.mark.parametrize("call", [(1.0, 4.0), (2.1, 4.0), (1.0, 2.4), (2.1, 2.4), (0.5, 1.0)])
def test_a_step_is_divided_as_it_was_drawn(call):
    """Up to any time it holds what the device drew: idle power beside the call, the rest while it was open."""
    for time_s in (2.05, 2.2, 2.45):
        shaped, part = shape(time_s, call)
        open_s = max(min(call[1], time_s) - max(call[0], BEGIN_S), 0.0)
        [drawn_j], [likely_j], _, _ = shaped.read(np.array([7.0]), part)
        assert drawn_j == pytest.approx(7.0 + IDLE_W * (time_s - BEGIN_S) + (LOAD_W - IDLE_W) * open_s)
        assert np.isfinite(likely_j)


@pytest.mark.parametrize("watts", [0.2, 2.0, 20.0, 200.0])
def test_a_step_without_a_call_has_the_shape_of_the_idle_power_whatever_it_holds(watts):
    """The counter gives the amount, also where it is less than the device was ever seen to draw, or more."""
    joules = watts * (END_S - BEGIN_S)
    shaped, part = shape(2.2, (0.5, 1.8), decay_w=50.0, joules=joules)

    def idle_j(until_s):
        faded_s = TAU_S * (np.exp(-(BEGIN_S - 1.8) / TAU_S) - np.exp(-(until_s - 1.8) / TAU_S))
        return IDLE_W * (until_s - BEGIN_S) + 50.0 * faded_s

    assert shaped.read(np.zeros(1), part)[0] == pytest.approx(joules * idle_j(2.2) / idle_j(END_S))


def test_a_device_that_draws_nothing_at_rest_is_spread_evenly_where_no_call_is():
    """Idle power of nothing gives no shape: joules that came all the same may be of any moment."""
    shaped, part = shape(2.2, (0.5, 1.0), idle_w=0.0, joules=3.0)
    assert shaped.read(np.zeros(1), part)[0] == pytest.approx(3.0 * part)


def test_a_step_is_cut_where_calls_begin_and_end():
    """At its knots and at each edge in it once, whether a call was alone or beside others; none lies outside."""
    activity = Activity(np.array([2.1, 2.4]), np.array([True, False]), np.array([1.9, 2.1, 2.2, 2.7]))
    step = Step(BEGIN_S, END_S, 0.0, 100.0, 50.0, IdlePower(IDLE_W, 0.0, 1.0), True, activity)
    assert step.bounds() == pytest.approx([2.0, 2.1, 2.2, 2.4, 2.5])
    ending = step._replace(begin_s=2.1, end_s=2.4)
    assert ending.bounds() == pytest.approx([2.1, 2.2, 2.4])


def test_the_idle_power_is_drawn_beside_calls_alone():
    """And fades after each: between any two times it is what the device at rest drew."""
    activity = Activity(np.array([1.5, 1.8, 2.1, 2.4]), np.array([True, False, True, False]))
    step = Step(BEGIN_S, END_S, 0.0, 100.0, 50.0, IdlePower(IDLE_W, 50.0, TAU_S), False, activity)
    fine_s = np.linspace(BEGIN_S, END_S, 50_001)
    rested = (fine_s < 2.1) | (fine_s >= 2.4)
    since_s = fine_s - np.where(fine_s < 2.1, 1.8, 2.4)
    watts = np.where(rested, IDLE_W + 50.0 * np.exp(-since_s / TAU_S), 0.0)
    for end_s in (2.05, 2.1, 2.3, 2.4, 2.45, 2.5):
        truth_j = watts[fine_s < end_s].sum() * (fine_s[1] - fine_s[0])
        assert np.diff(step.idle_j(np.array([BEGIN_S, end_s]))) == pytest.approx(truth_j, abs=0.01)


@pytest.mark.parametrize(
    ("limit_w", "most_w"), [(100.0, LOAD_W), (300.0, LOAD_W), (500.0, 500.0), (1e4, 1e4)]
)
def test_of_calls_that_meet_in_a_step_each_may_have_drawn_all_that_the_device_can(limit_w, most_w):
    """Which is what it was seen to draw, where it says that it can draw less."""
    shaped, _ = shape(2.2, (2.1, 2.4), shifts=(2.2,), limit_w=limit_w)
    excess_j = LOAD_W * 0.3
    before_j, after_j = min(most_w * 0.1, excess_j), min(most_w * 0.2, excess_j)
    worked_j = excess_j / 3
    assert shaped.unlike_j == pytest.approx(
        max(before_j - worked_j, after_j - (excess_j - worked_j)), abs=1e-9
    )
