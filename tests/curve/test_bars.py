"""Bars from both sides: each thing that can be wrong by itself, as explained, reckoned by hand and met exactly."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from aimeter._curve.activity import UNKNOWN, Activity, IdlePower
from aimeter._curve.curve import Curve
from aimeter._support.statistics import SIGMAS_95
from tests.energies import energy_between

IDLE_W, LOAD_W = 60.0, 300.0
STEP_S = 0.1


class Off(NamedTuple):
    """What a knot may be off by, 95 % half-widths."""

    half_s: float = 0.0
    phase_s: float = 0.0
    shift_s: float = 0.0
    rounding_j: float = 0.0


EXACT = Off()


def activity_of(*spans, shifts=()):
    """Calls open in these spans of time, with changes inside them."""
    edges = np.array([t for span in spans for t in span])
    return Activity(edges, np.array([True, False] * len(spans)), np.array(shifts, float))


def stairs(*spans, off=EXACT, spread_w=0.0, tells_bounds=False, steps=10, **settings):
    """A counter of 0.1 s of a device that draws `LOAD_W` in these spans and else `IDLE_W`; what each knot is off by.

    Knots that are off by nothing bound the energy in between: unless that is wanted, they leave it room.
    """
    offs = [off] * (steps + 1) if isinstance(off, Off) else off
    curve = Curve(counted=True, max_power_w=settings.pop("max_power_w", 1e6))
    for name, value in settings.items():
        setattr(curve, name, value)
    idle = IdlePower(IDLE_W, 0.0, 0.05, spread_w)
    for number, knot in enumerate(offs):
        time_s = number * STEP_S
        open_s = sum(max(min(time_s, end) - begin, 0.0) for begin, end in spans)
        joules = IDLE_W * time_s + (LOAD_W - IDLE_W) * open_s
        curve.append(time_s, joules, 0.0 if tells_bounds else 1e3, **knot._asdict(), idle=idle)
    return curve


def bar(curve, activity, begin_s, end_s):
    """Return the half-width of the energy between two times."""
    _, half_j = energy_between(curve, [begin_s], [end_s], activity)
    return float(half_j[0])


# Inside a step: the idle power, and calls that meet


def test_the_idle_power_is_off_by_three_standard_deviations():
    """A call in a step: begin and end are off by the idle time on their side, which the knots hold between them."""
    call = (0.12, 0.15)
    curve = stairs(call, spread_w=1.5)
    assert bar(curve, activity_of(call), *call) == pytest.approx(3 * 1.5 * math.hypot(0.02, 0.05))


def test_the_idle_power_matters_as_far_as_knots_do_not_hold_it():
    """In a step without a call it is off most in the middle: by 3 sigma times a quarter of the step."""
    curve = stairs(spread_w=1.5)
    activity = activity_of((-1.0, -0.5))
    assert bar(curve, activity, 0.2, 0.35) == pytest.approx(3 * 1.5 * 0.25 * STEP_S)
    assert bar(curve, activity, 0.33, 0.78) == pytest.approx(
        3 * 1.5 * STEP_S * math.hypot(0.3 * 0.7, 0.8 * 0.2)
    )


def test_calls_that_meet_in_a_step_may_be_unlike():
    """Between two calls that hold the parts f and 1 - f of a step's open time: 1.3 f (1 - f) of its excess."""
    short, long = (0.12, 0.13), (0.15, 0.18)
    curve = stairs(short, long)
    excess_j = LOAD_W * 0.04
    expected = pytest.approx(1.3 * 0.25 * 0.75 * excess_j)
    assert bar(curve, activity_of(short, long), *short) == expected
    assert bar(curve, activity_of(short, long), *long) == expected


@pytest.mark.parametrize("at_s", [0.123, 0.13, 0.15])
def test_children_may_draw_all_of_a_step_or_nothing(at_s):
    """A call in which another one begins: whichever side has less may have all of the excess."""
    outer = (0.12, 0.16)
    curve, activity = stairs(outer), activity_of(outer, shifts=[at_s])
    part = (at_s - outer[0]) / 0.04
    expected = pytest.approx(max(part, 1 - part) * LOAD_W * 0.04)
    assert bar(curve, activity, 0.11, at_s) == expected
    assert bar(curve, activity, at_s, 0.17) == expected


def test_children_leave_no_doubt_of_the_call_around_them():
    """However they share it, the call around them has all of the excess of its step."""
    outer = (0.12, 0.16)
    curve = stairs(outer, spread_w=1.5)
    alone = 3 * 1.5 * math.hypot(0.02, 0.04)
    assert bar(curve, activity_of(outer, shifts=[0.13, 0.15]), *outer) == pytest.approx(alone)


def test_children_draw_no_more_than_the_device_can():
    """Where a child begins 1 ms after its parent, all of a step cannot lie in that 1 ms, nor can it soon before the end."""
    outer = (0.12, 0.16)
    curve = stairs(outer, max_power_w=700.0)
    for begin_s, end_s in ((0.121, 0.16), (0.12, 0.159)):
        activity = activity_of(outer, shifts=[begin_s, end_s])
        assert bar(curve, activity, begin_s, end_s) == pytest.approx((700.0 - LOAD_W) * 1e-3)


# What is drawn at rest


def decaying(call, *, step_j, decay_w=40.0, tau_s=0.05):
    """A step of 0.1 s after a call that ended at its begin, in which the power decays to idle."""
    curve = Curve(counted=True, max_power_w=1e6)
    curve.append(0.0, 0.0, 1e3)
    idle = IdlePower(IDLE_W, decay_w, tau_s, 0.0)
    curve.append(0.1, LOAD_W * 0.1, 1e3, idle=idle)
    curve.append(0.2, LOAD_W * 0.1 + step_j, 1e3, idle=idle)
    return curve, activity_of((0.0, 0.1), *call)


def rested_j(since_s, until_s, decay_w=40.0, tau_s=0.05):
    """What is drawn between two times after a call."""
    decay_s = tau_s * (math.exp(-since_s / tau_s) - math.exp(-until_s / tau_s))
    return IDLE_W * (until_s - since_s) + decay_w * decay_s


@pytest.mark.parametrize("scale", [1.0, 0.9, 1.2])
def test_what_decays_after_a_call_has_its_shape(scale):
    """At rest a step lies as idle power and decay do, by as much more or less as it holds."""
    curve, activity = decaying((), step_j=scale * rested_j(0.0, 0.1))
    joules, _ = energy_between(curve, [0.1, 0.12, 0.15], [0.12, 0.15, 0.2], activity)
    parts = [rested_j(0.0, 0.02), rested_j(0.02, 0.05), rested_j(0.05, 0.1)]
    assert joules == pytest.approx([scale * one for one in parts])


def test_what_decays_after_a_call_goes_on_in_the_next_step():
    """A step that begins 0.1 s after the call has the rest of it, and a call in it what is left."""
    curve, _ = decaying((), step_j=rested_j(0.0, 0.1))
    quiet_j = [rested_j(0.1, 0.14), rested_j(0.0, 0.04)]
    idle = IdlePower(IDLE_W, 40.0, 0.05, 0.0)
    curve.append(0.3, curve.energy_j + sum(quiet_j) + 5.0, 1e3, idle=idle)
    activity = activity_of((0.0, 0.1), (0.24, 0.26))
    joules, _ = energy_between(curve, [0.2, 0.24, 0.26], [0.24, 0.26, 0.3], activity)
    assert joules == pytest.approx([quiet_j[0], 5.0, quiet_j[1]])


def test_what_decays_after_a_call_is_none_of_the_next():
    """A second call in the step has what is left of it; what decays begins anew at its end."""
    second = (0.14, 0.16)
    quiet_j = [rested_j(0.0, 0.04), rested_j(0.0, 0.04)]
    curve, activity = decaying([second], step_j=sum(quiet_j) + 5.0)
    joules, _ = energy_between(curve, [0.1, 0.14, 0.16], [0.14, 0.16, 0.2], activity)
    assert joules == pytest.approx([quiet_j[0], 5.0, quiet_j[1]])


def test_a_step_before_the_idle_power_was_known_is_spread_evenly():
    """Beside steps in which it is known."""
    call = (0.02, 0.05)
    curve = Curve(counted=True, max_power_w=1e6)
    for number in range(4):
        known = IdlePower(IDLE_W, 0.0, 0.05, 0.0) if number > 1 else UNKNOWN
        curve.append(0.1 * number, 12.0 * number, 0.0, idle=known)
    activity = activity_of(call, (0.12, 0.15))
    joules, _ = energy_between(curve, [0.02, 0.12], [0.05, 0.15], activity)
    assert joules == pytest.approx([12.0 * 0.3, 12.0 - IDLE_W * 0.07])


# The times of knots


@pytest.mark.parametrize("half_s", [1e-3, 3e-3])
def test_knots_in_the_pause_move_the_idle_power(half_s):
    """The knots beside a call that is off by itself each: the idle power, times the half-width, at both ends."""
    call = (0.12, 0.26)
    curve = stairs(call, off=Off(half_s=half_s))
    assert bar(curve, activity_of(call), *call) == pytest.approx(IDLE_W * half_s * math.sqrt(2))


def test_knots_in_a_call_move_what_it_draws():
    """Two moments of a long call, as its children have: (1 - f) of one knot and f of the next, and parts unlike."""
    call, half_s, part = (0.05, 0.95), 1e-3, 0.25
    curve = stairs(call, off=Off(half_s=half_s))
    end = math.hypot(
        LOAD_W * half_s * (1 - part), LOAD_W * half_s * part, 1.3 * part * (1 - part) * LOAD_W * STEP_S
    )
    assert bar(curve, activity_of(call), 0.325, 0.625) == pytest.approx(end * math.sqrt(2))


def test_a_knot_that_is_far_better_known_than_the_other_counts_for_less():
    """Each knot has a half-width of its own: the one before the call here, the one after there."""
    call = (0.12, 0.15)
    offs = [EXACT, Off(half_s=2e-3), Off(half_s=5e-3), EXACT]
    curve = stairs(call, off=offs)
    assert bar(curve, activity_of(call), *call) == pytest.approx(IDLE_W * math.hypot(2e-3, 5e-3))


@pytest.mark.parametrize("call", [(0.2 + 0.8e-3, 0.35), (0.15, 0.3 - 0.8e-3)])
def test_a_call_that_begins_or_ends_at_a_knot_may_have_done_so_before_or_after(call):
    """Where the knot that an end is counted from is that near: it is moved by what the call draws, by all it may be."""
    half_s, phase_s, shift_s = 0.5e-3, 0.3e-3, 0.2e-3
    curve = stairs(call, off=Off(half_s, phase_s, shift_s))
    unclear_j = LOAD_W * (half_s + phase_s + shift_s)
    clear_j = IDLE_W * half_s
    phases_j = IDLE_W * phase_s * math.sqrt(2)
    assert bar(curve, activity_of(call), *call) == pytest.approx(math.hypot(unclear_j, clear_j, phases_j))
    clear = (call[0] + 0.3e-3, call[1] - 0.3e-3)  # further away than all three
    curve = stairs(clear, off=Off(half_s, phase_s, shift_s))
    expected = math.hypot(clear_j, clear_j, phases_j)
    assert bar(curve, activity_of(clear), *clear) == pytest.approx(expected)


def test_rounding_is_of_either_knot():
    """What a knot's joules are rounded by: the coarser of the two around each end."""
    call = (0.12, 0.25)
    offs = [EXACT, Off(rounding_j=0.1), Off(rounding_j=0.3), Off(rounding_j=0.2), EXACT, EXACT]
    curve = stairs(call, off=offs)
    assert bar(curve, activity_of(call), *call) == pytest.approx(math.hypot(0.3, 0.3))
    assert bar(curve, activity_of(call), 0.35, 0.45) == pytest.approx(0.2)


# What knots are off by together


def test_what_all_knots_are_off_by_is_the_difference_of_the_powers():
    """Two ends at one power are off by the same; from rest into work it is the difference that is moved."""
    call, shift_s = (0.35, 0.95), 0.2e-3
    curve, activity = stairs(call, off=Off(shift_s=shift_s)), activity_of(call)
    assert bar(curve, activity, 0.1, 0.2) == pytest.approx(0.0, abs=1e-9)
    assert bar(curve, activity, 0.5, 0.8) == pytest.approx(0.0, abs=1e-9)
    assert bar(curve, activity, 0.2, 0.6) == pytest.approx((LOAD_W - IDLE_W) * shift_s)


@pytest.mark.parametrize(("begin_s", "end_s"), [(0.5, 0.6), (0.5, 0.9)])
@pytest.mark.parametrize("memory_s", [0.1, 0.4])
def test_what_knots_near_one_another_are_off_by_is_partly_common(begin_s, end_s, memory_s):
    """Ends that are apart by D have exp(-D / memory - 1/4) of it in common, memory being four periods."""
    call, phase_s = (0.35, 0.95), 0.5e-3
    curve, activity = stairs(call, off=Off(phase_s=phase_s), steady_s=memory_s), activity_of(call)
    common = math.exp(-(end_s - begin_s) / memory_s - 0.25)
    off_j = LOAD_W * phase_s
    assert bar(curve, activity, begin_s, end_s) == pytest.approx(off_j * math.sqrt(2 - 2 * common))
    rest_j = IDLE_W * phase_s
    common = math.exp(-0.4 / memory_s - 0.25)
    assert bar(curve, activity, 0.2, 0.6) == pytest.approx(
        math.sqrt(off_j**2 + rest_j**2 - 2 * common * off_j * rest_j)
    )


def test_independent_things_add_in_quadrature():
    """All of it at once, of two calls in one step: the root of the sum of squares."""
    first, second = (0.12, 0.13), (0.15, 0.18)
    off = Off(half_s=1e-3, phase_s=0.4e-3, shift_s=0.3e-3, rounding_j=0.05)
    curve = stairs(first, second, off=off, spread_w=1.5, steady_s=4 * STEP_S)
    excess_j, part = LOAD_W * 0.04, 0.25
    common = math.exp(-0.01 / 0.4 - 0.25)
    squares = [
        (1.3 * part * (1 - part) * excess_j) ** 2,
        (4.5 * 0.02) ** 2,
        (4.5 * (0.02 - part * 0.06)) ** 2,
        (IDLE_W * 1e-3) ** 2,
        (IDLE_W * 1e-3) ** 2 * (part**2 + (1 - part) ** 2),
        2 * 0.05**2,
        2 * (IDLE_W * 0.4e-3) ** 2 * (1 - common),
    ]
    assert bar(curve, activity_of(first, second), *first) == pytest.approx(math.sqrt(sum(squares)))


# Bounds


def test_without_idle_power_only_the_knots_bound_a_call():
    """Between two knots that differ by 12 J, each off by its own: a rising curve, of no more than 700 W."""
    curve = Curve(counted=True, max_power_w=700.0)
    for time_s, joules, off_j in ((0.0, 0.0, 0.5), (0.1, 12.0, 0.7), (0.2, 24.0, 0.4)):
        curve.append(time_s, joules, off_j)
    # At 5 ms 0.6 J are likely; it may have been nothing, or all that 700 W make of 5 ms.
    at_begin = max(0.6 - -0.5, 0.5 + 700.0 * 0.005 - 0.6)
    # In the middle of the second step 18 J are likely, of 12 - 0.7 to 24 + 0.4.
    at_end = max(18.0 - (12.0 - 0.7), 24.4 - 18.0)
    assert bar(curve, activity_of(), 0.005, 0.15) == pytest.approx(math.hypot(at_begin, at_end))


def test_a_step_that_holds_more_than_the_limit_is_a_limit_by_itself():
    """A limit that is wrong, or an update that came late: the step's own mean is then all that it may draw at a time."""
    curve = Curve(counted=True, max_power_w=50.0)
    for number in range(4):
        curve.append(0.1 * number, 12.0 * number, 0.0)
    assert bar(curve, activity_of(), 0.05, 0.25) == pytest.approx(0.0, abs=1e-9)
    curve = Curve(counted=True, max_power_w=50.0)
    for number in range(4):
        curve.append(0.1 * number, 12.0 * number, 0.6)
    # From 0.6 J below one knot to 0.6 J above the next in 0.1 s, so 132 W: at an end of a step that is 0.6 J either way.
    assert bar(curve, activity_of(), 0.1, 0.2) == pytest.approx(math.hypot(0.6, 0.6))
    assert bar(curve, activity_of(), 0.05, 0.25) == pytest.approx(math.hypot(1.2, 1.2))


def test_no_call_is_more_uncertain_than_its_knots_allow():
    """What lies between the least at its begin and the most at its end, or between nothing and as much again."""
    first, second, spread_w = (0.11, 0.12), (0.12, 0.19), 500.0
    curve = stairs(first, second, tells_bounds=True, spread_w=spread_w)
    activity = activity_of(first, second)
    excess_j, part = LOAD_W * 0.08, 1 / 8
    unlike_j = 1.3 * part * (1 - part) * excess_j
    between_j = math.hypot(unlike_j, 3 * spread_w * (0.01 - part * 0.02))
    most_j = 0.01 * IDLE_W + LOAD_W * 0.01 + between_j
    assert bar(curve, activity, *first) == pytest.approx(most_j - LOAD_W * 0.01)
    assert bar(curve, activity, *second) == pytest.approx(math.hypot(between_j, 3 * spread_w * 0.01))
    assert bar(curve, activity, 0.11, 0.19) == pytest.approx(math.hypot(15.0, 15.0))
    # What knots are off by together is not in these bounds, and comes on top.
    off = Off(phase_s=0.3e-3, shift_s=0.2e-3)
    curve = stairs(first, second, tells_bounds=True, spread_w=spread_w, off=off)
    room_j = 2 * IDLE_W * (off.phase_s + off.shift_s)
    assert bar(curve, activity, *first) == pytest.approx(most_j - LOAD_W * 0.01 + room_j)


def test_no_call_is_more_uncertain_than_its_device_can_draw():
    """1 ms of a device of 700 W is 0.7 J at most: of 0.3 J, 0.4 J more, and never below nothing."""
    call = (0.12, 0.18)
    curve = stairs(call, max_power_w=700.0, off=Off(half_s=5e-3))
    assert bar(curve, activity_of(call), 0.15, 0.151) == pytest.approx(0.4)
    curve = stairs(call, max_power_w=500.0, off=Off(half_s=5e-3))
    assert bar(curve, activity_of(call), 0.15, 0.151) == pytest.approx(0.3)


def test_what_nobody_saw_is_a_guess_of_either_sign():
    """A variance over a stretch widens what lies in it by 1.96 of its root, in proportion to the time."""
    curve = Curve(counted=True)
    for number in range(4):
        curve.append(0.1 * number, 10.0 * number, 0.0, variance_j2=100.0 * (number == 2), seen=number != 2)
    assert bar(curve, activity_of(), 0.1, 0.2) == pytest.approx(SIGMAS_95 * 10.0)
    assert bar(curve, activity_of(), 0.0, 0.3) == pytest.approx(SIGMAS_95 * 10.0)
    half_j = math.hypot(
        SIGMAS_95 * 10.0 * math.sqrt(0.5), 5.0
    )  # and all or nothing of the step may lie before its middle
    assert bar(curve, activity_of(), 0.1, 0.15) == pytest.approx(half_j)
    assert bar(curve, activity_of(), 0.2, 0.3) == pytest.approx(0.0, abs=1e-9)


# Sampled powers


def sampled(watts, *, period_s=0.1, **settings):
    """A curve of a power that was read once a period."""
    curve, joules = Curve(counted=False, **settings), 0.0
    for number, power_w in enumerate([0.0, *watts]):
        joules += power_w * period_s
        curve.append(number * period_s, joules, 0.0)
    return curve


def test_an_average_hides_its_reach_times_the_swing_around():
    """From 60 to 300 W within the reach of an end: that difference, for as long as readings depend on the time."""
    curve = sampled([60.0] * 10 + [300.0] * 20, reach_s=0.15)
    moved_j = 240.0 * 0.15
    assert bar(curve, activity_of(), 0.95, 2.5) == pytest.approx(moved_j)
    assert bar(curve, activity_of(), 0.95, 1.15) == pytest.approx(moved_j * math.sqrt(2))
    # The swing is looked for no further than the reach from the knots around.
    for near_s, far_s in ((0.85, 0.75), (1.15, 1.25)):
        assert bar(curve, activity_of(), near_s, 2.5) == pytest.approx(moved_j)
        assert bar(curve, activity_of(), far_s, 2.5) == pytest.approx(0.0, abs=1e-9)


def test_a_part_time_sensor_looks_as_far_as_it_takes_to_see_the_whole():
    """Of one that sees a quarter of the time, the swing is taken over four reaches, and where that is little, over all."""
    watts = [60.0] * 20 + [190.0] * 20 + [190.0, 300.0] * 10
    curve = sampled(watts, reach_s=0.125, seen=0.25)
    reach_s, greatest_w = 0.125, 240.0
    for at_s, swing_w in (
        (1.45, 130.0),  # half a second before the rise by more than half of the greatest swing
        (1.35, greatest_w),  # further away nothing is seen
        (2.55, 130.0),
        (2.65, greatest_w),
        (4.95, greatest_w),  # a swing of 110 W is less than half
    ):
        begin, end = (swing_w * reach_s, greatest_w * reach_s)
        assert bar(curve, activity_of(), min(at_s, 0.45), max(at_s, 0.45)) == pytest.approx(
            math.hypot(begin, end)
        )


def test_a_part_time_sensor_that_saw_no_load_may_meet_any():
    """Until it swung by a tenth of the limit: the first load may be as large as that."""
    low = sampled([60.0] * 10 + [90.0] * 20, reach_s=0.125, seen=0.25, max_power_w=400.0)
    assert bar(low, activity_of(), 0.5, 2.5) == pytest.approx(400.0 * 0.125 * math.sqrt(2))
    high = sampled([60.0] * 10 + [110.0] * 20, reach_s=0.125, seen=0.25, max_power_w=400.0)
    assert bar(high, activity_of(), 0.5, 2.5) == pytest.approx(50.0 * 0.125 * math.sqrt(2))
    known = sampled([60.0] * 30, reach_s=0.125, seen=0.25, max_power_w=400.0, swing_w=300.0)
    assert bar(known, activity_of(), 0.5, 2.5) == pytest.approx(300.0 * 0.125 * math.sqrt(2))


def test_how_far_the_power_swung_is_kept():
    """What another way of reading the device begins with: the greatest swing that was seen or known before."""
    watts = [60.0] * 10 + [300.0] * 20
    assert sampled(watts[10:]).swing_w == pytest.approx(0.0, abs=1e-9)
    assert sampled(watts).swing_w == pytest.approx(240.0)
    assert sampled(watts, swing_w=400.0).swing_w == 400.0


def test_a_sensor_that_misses_nothing_fears_nothing_unseen():
    """One that looks at nine tenths of the time or more has the swing that it saw."""
    watts = [60.0] * 10 + [300.0] * 20
    whole = sampled(watts, reach_s=0.2, seen=0.9, max_power_w=400.0)
    assert bar(whole, activity_of(), 0.5, 2.5) == pytest.approx(0.0, abs=1e-9)


def test_what_a_sampled_knot_is_off_by_adds_to_what_the_average_hides():
    """The coarser of the two knots around each end."""
    curve = Curve(counted=False, reach_s=0.15)
    for number, off_j in enumerate((0.0, 0.5, 0.2, 0.1, 0.3)):
        curve.append(0.1 * number, 6.0 * number, off_j)
    assert bar(curve, activity_of(), 0.15, 0.35) == pytest.approx(math.hypot(0.5, 0.3))
