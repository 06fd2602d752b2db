"""What readings of every kind make of bars, from both sides: when they were made is known, so bars are reckoned by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from aimeter._curve.activity import Activity
from aimeter._curve.idle_fit import fit_idle
from aimeter._curve.moving_average import MovingAverage
from aimeter._curve.trace import Trace
from aimeter._support.statistics import SIGMAS_95
from tests.readings import bar, channel, read

IDLE_W, LOAD_W = 60.0, 300.0
PERIOD_S = 0.1


# Idle power


@pytest.mark.parametrize(("near", "spread"), [(7, 0.2), (8, 0.0004)])
def test_the_idle_power_is_known_once_eight_pauses_were_seen(near, spread):
    """Until eight stretches began soon after a call, a fifth of it, and then next to nothing if it was steady."""
    begin = np.array([0.2] * near + [0.3] * 10)
    stretches = np.array([begin, begin + 0.1, np.full(begin.size, IDLE_W), np.zeros(begin.size)]).T
    assert fit_idle(stretches, IDLE_W).spread_w == pytest.approx(spread * IDLE_W)


def test_the_idle_power_is_off_by_how_it_scatters():
    """Stretches by turns 2 W above and below: that is its standard deviation, of as many as there are less two."""
    begin = 0.1 + 0.01 * np.arange(40)
    watts = IDLE_W + 2.0 * (-1.0) ** np.arange(40)
    stretches = np.array([begin, begin + 0.1, watts, np.zeros(40)]).T
    assert fit_idle(stretches, IDLE_W).spread_w == pytest.approx(2.0 * math.sqrt(40 / 38), rel=0.01)


def test_one_stretch_that_another_program_loaded_counts_as_well_as_many():
    """One of forty is 30 W above: three standard deviations reach it."""
    begin = 0.1 + 0.01 * np.arange(40)
    stretches = np.array([begin, begin + 0.1, np.full(40, IDLE_W), np.zeros(40)]).T
    stretches[20, 2] += 30.0
    assert 3 * fit_idle(stretches, IDLE_W).spread_w == pytest.approx(30.0, rel=0.05)


def decaying(idle_w, *, decay_w=40.0, tau_s=0.2, until_s=1.0):
    """Exact stretches of 0.1 s, of a device that decays to its idle power."""
    begin = np.tile(np.arange(0.0, until_s - 0.05, 0.1), 4)
    mean = tau_s * (np.exp(-begin / tau_s) - np.exp(-(begin + 0.1) / tau_s)) / 0.1
    return np.array([begin, begin + 0.1, idle_w + decay_w * mean, np.zeros(begin.size)]).T


@pytest.mark.parametrize("lowest_w", [58.0, 60.0, 62.5])
def test_idle_power_and_decay_are_told_apart(lowest_w):
    """From the lowest power seen the idle power may differ by a twentieth; the rest of the stretches is its decay."""
    idle = fit_idle(decaying(IDLE_W), lowest_w)
    assert idle[:3] == pytest.approx((IDLE_W, 40.0, 0.2))
    assert idle.spread_w == pytest.approx(0.0004 * lowest_w)


@pytest.mark.parametrize(("lowest_w", "taken_w"), [(66.0, 66.0 / 1.05), (54.0, 54.0 * 1.05)])
def test_the_idle_power_is_no_further_from_the_lowest_than_a_twentieth(lowest_w, taken_w):
    """However well another one fits."""
    idle = fit_idle(decaying(IDLE_W, decay_w=0.0), lowest_w)
    assert idle.idle_w == pytest.approx(taken_w)


# A counter in steps


def stairs(half_s, *, calls, seconds=20.0, took_s=0.0, foretold=True, **changes):
    """A counter whose steps are read so long before and after, of a device that draws `LOAD_W` in calls.

    Steps are not foretold if nobody looks before them: then they lie anywhere since the look after the last one.
    """
    trace = Trace(channel(**changes), PERIOD_S)
    late_s = changes.get("latency_s", 0.0) - took_s / 2
    activity = Activity(np.array(calls), np.arange(len(calls)) % 2 == 0)

    def joules(time_s):
        open_s = sum(max(min(time_s, b) - a, 0.0) for a, b in zip(calls[::2], calls[1::2], strict=True))
        return IDLE_W * time_s + (LOAD_W - IDLE_W) * open_s

    pauses = list(zip([-1.0, *calls[1::2]], calls[::2], strict=False))
    for number in range(1, int(seconds / PERIOD_S)):
        step_s = number * PERIOD_S
        if foretold:
            read(trace, step_s - half_s + late_s, joules((number - 1) * PERIOD_S), took_s=took_s)
        read(trace, step_s + half_s + late_s, joules(step_s), took_s=took_s)
        while pauses and pauses[0][1] < step_s - 0.2:
            begin_s, end_s = pauses.pop(0)
            if begin_s > 0:
                trace.note_idle(begin_s, end_s, begin_s)
    return trace, activity


def eight_calls(*then, apart_s=1.0):
    """Calls whose pauses teach the idle power, and those that are looked at."""
    return [edge for k in range(10) for edge in (0.5 + k * apart_s, 0.6 + k * apart_s)] + list(then)


HALF_S, LOOK_S = 1e-3, 4e-4


def test_steps_that_are_foretold_are_off_together():
    """Seen within 2 ms, from looks of no time: 85 % of half of that, which near steps have in common, and their jitter."""
    call = (12.03, 12.37)
    trace, activity = stairs(HALF_S, calls=eight_calls(*call))
    common = math.exp(-(call[1] - call[0]) / (4 * PERIOD_S) - 0.25)
    phase_j, jitter_j = IDLE_W * 0.85 * HALF_S, IDLE_W * 2 * 2e-5
    expected = math.sqrt(2 * jitter_j**2 + 2 * phase_j**2 * (1 - common))
    idle_j = 3 * trace.idle.fitted.spread_w * math.hypot(0.03, 0.03)
    assert bar(trace, *call, activity) == pytest.approx(math.hypot(expected, idle_j), rel=0.01)
    assert idle_j < 0.3 * expected


def test_what_a_look_takes_is_no_part_of_what_steps_are_off_by_together():
    """Looks of 0.4 ms: half of one moves all knots, from rest into work by the difference of the powers."""
    call = (12.03, 14.03)
    trace, activity = stairs(HALF_S, calls=eight_calls(*call), took_s=LOOK_S)
    habit_s = LOOK_S / 2
    phase_s = 0.85 * HALF_S
    # From rest into the middle of the call, where a look tells nothing that knots do not: at a knot.
    off_j = [watts * phase_s for watts in (IDLE_W, LOAD_W)]
    apart_s = 1.1
    common = math.exp(-apart_s / (4 * PERIOD_S) - 0.25)
    squares = [
        off_j[0] ** 2 + off_j[1] ** 2 - 2 * common * off_j[0] * off_j[1],
        ((LOAD_W - IDLE_W) * habit_s) ** 2,
        ((IDLE_W**2 + LOAD_W**2) * (4e-5) ** 2),
    ]
    assert bar(trace, 11.9, 13.0, activity) == pytest.approx(math.sqrt(sum(squares)), rel=0.01)


def test_a_latency_that_is_uncertain_moves_all_knots():
    """Late by 10 ms, give or take 3: the whole curve is moved by that."""
    call = (12.03, 14.03)
    latency = {"latency_s": 0.01, "latency_error_s": 3e-3}
    exact, activity = stairs(HALF_S, calls=eight_calls(*call))
    late, _ = stairs(HALF_S, calls=eight_calls(*call), **latency)
    within_j, moved_j = bar(exact, 11.9, 13.0, activity), (LOAD_W - IDLE_W) * 3e-3
    assert bar(late, 11.9, 13.0, activity) == pytest.approx(math.hypot(within_j, moved_j), rel=0.01)


def test_steps_that_nobody_foretells_are_off_by_half_of_what_is_open():
    """Looked at once a period: a step lies anywhere in it, each by itself."""
    call = (12.23, 12.57)
    trace, activity = stairs(5e-3, calls=eight_calls(*call), foretold=False)
    assert not trace.learned.updates.known
    knots_j = IDLE_W * PERIOD_S / 2 * math.sqrt(2)
    assert bar(trace, *call, activity) == pytest.approx(knots_j, rel=0.01)


def test_knots_are_off_by_half_of_what_is_open_of_the_greater_power_around():
    """Where nothing is known of the device but its counter: times the power before or after, and the rounding."""
    trace = Trace(channel(quantum_j=0.2, latency_error_s=2e-3), PERIOD_S)
    watts, joules = [60.0, 60.0, 300.0, 60.0, 60.0], 0.0
    for number, power_w in enumerate([0.0, *watts]):
        joules += power_w * PERIOD_S
        read(trace, 1.0 + number * PERIOD_S, joules)
    *_, off_j = trace.curve.knots
    half_s = PERIOD_S / 2 + 2e-3
    expected = [half_s * around_w + 0.2 for around_w in (60.0, 60.0, 300.0, 300.0, 60.0)]
    assert off_j[2:] == pytest.approx(expected[1:])


# A power averaged over all of the time

ROUNDED_W = 0.5


def powers(watts, *, period_s=PERIOD_S, window_s=PERIOD_S, interval_s=0.05, **changes):
    """A published power that is read once a period."""
    trace = Trace(
        channel(method="power", quantity="power", period_s=period_s, window_s=window_s, **changes), interval_s
    )
    for number, power_w in enumerate(watts):
        if power_w is not None:
            read(trace, 1.0 + number * (period_s or interval_s), power_w)
    return trace


def test_a_mean_is_off_by_its_rounding_and_by_when_it_was_published():
    """Over 0.1 s half a watt is 0.05 J; by half of a period the power around, and what the window then takes in of a change."""
    watts = [60.0, 61.0, 60.0, 300.0, 301.0, 300.0]
    trace = powers(watts)
    half_s = PERIOD_S / 2
    *_, off_j = trace.curve.knots
    expected = [
        half_s * max(before, now) + ROUNDED_W * PERIOD_S + half_s * abs(now - before)
        for before, now in pairwise(watts)
    ]
    assert off_j[2:] == pytest.approx(expected[1:], rel=1e-3)


def test_a_mean_that_stays_the_same_is_off_by_its_rounding():
    """Whole watts that repeat themselves: each publication goes on from the one before, and is rounded as that was."""
    average = MovingAverage(PERIOD_S, PERIOD_S)
    for number in range(20):
        average.publish(number * PERIOD_S, 60.0)
    assert average.error_j == pytest.approx(ROUNDED_W * PERIOD_S)


def test_links_of_a_chain_add_up_in_quadrature():
    """A mean over 1 s: each second adds one rounding of half a joule to that of the first window."""
    average = MovingAverage(1.0, PERIOD_S)
    for number in range(45):
        average.publish(number * PERIOD_S, 100.0)
        links = 1 + math.ceil(number / 10)
        if number:
            assert average.error_j == pytest.approx(ROUNDED_W * math.sqrt(links))


def begun(*, least_w, watts):
    """A mean over 1 s of 40 W that has just been seen, and the next one; return the variances of both in links."""
    average = MovingAverage(1.0, PERIOD_S)
    average.publish(0.0, 40.0, least_w=least_w)
    average.publish(PERIOD_S, watts, least_w=least_w)
    return (average.error_j / ROUNDED_W) ** 2


def test_at_rest_the_chain_before_is_a_second_estimate():
    """Two links by its own chain, or one and a hundredth by the other's: both together, by the inverse of their variances."""
    own, beside = 2.0, 1.0 + 0.1**2
    assert begun(least_w=40.0, watts=40.0) == pytest.approx(own * beside / (own + beside))
    assert begun(least_w=None, watts=40.0) == pytest.approx(own)


def test_what_is_above_rest_may_lie_anywhere_in_the_window():
    """0.5 W above rest, in a tenth of the window or in the rest; and what no window is even about."""
    sigma_w = ROUNDED_W / SIGMAS_95
    uneven = (0.08 * 0.5 / sigma_w) ** 2
    own, beside = 2.0 + uneven, 1.01 + 0.1 * 0.9 * (0.5 / sigma_w) ** 2
    assert begun(least_w=40.0, watts=40.5) == pytest.approx(own * beside / (own + beside), rel=1e-6)
    # 100 W above rest: the chain before tells next to nothing, and is not heard.
    uneven = (0.08 * 100.0 / sigma_w) ** 2
    beside = 1.01 + 0.1 * 0.9 * (100.0 / sigma_w) ** 2
    assert beside > 4 * (2.0 + uneven)
    assert begun(least_w=40.0, watts=140.0) == pytest.approx(2.0 + uneven, rel=1e-6)


# A power that is sampled


def test_a_change_between_two_looks_may_have_come_at_any_moment():
    """A quarter of the time is looked at: of the rest, half of the change, for as long as readings are apart."""
    watts = [60.0 + 0.1 * (k % 2) for k in range(30)]
    watts += [300.0 + 0.1 * (k % 2) for k in range(30)]
    trace = powers(watts, window_s=0.025)
    reach_s, greatest_w = PERIOD_S + 0.025, 240.1
    ends_j = reach_s * greatest_w * math.sqrt(2)
    change_j = SIGMAS_95 * math.sqrt(0.75) * 0.5 * (watts[30] - watts[29]) * PERIOD_S
    assert bar(trace, 1.5, 5.5) == pytest.approx(math.hypot(ends_j, change_j), rel=0.01)


def test_a_latency_that_is_uncertain_lengthens_the_reach():
    """Late by up to 20 ms more or less: for so much longer a reading depends on the power at a time."""
    watts = [60.0 + 0.1 * (k % 2) for k in range(30)] + [300.0 + 0.1 * (k % 2) for k in range(30)]
    ends_j = [
        bar(powers(watts, window_s=0.025, latency_error_s=error_s), 4.5, 5.5) for error_s in (0.0, 0.02)
    ]
    greatest_w = max(watts) - min(watts)
    assert ends_j == pytest.approx(
        [greatest_w * reach_s * math.sqrt(2) for reach_s in (0.125, 0.145)], rel=0.01
    )


def test_a_power_of_the_moment_is_open_between_its_readings():
    """One that is renewed all the time is known when it is read: a change came at any moment in between."""
    watts = [60.0 + 0.1 * (k % 2) for k in range(30)] + [300.0 + 0.1 * (k % 2) for k in range(30)]
    trace = powers(watts, window_s=0.0, period_s=0.0, interval_s=PERIOD_S)
    change_j = SIGMAS_95 * 0.5 * (watts[30] - watts[29]) * PERIOD_S
    assert bar(trace, 1.5, 5.5) == pytest.approx(change_j, rel=1e-3)


@pytest.mark.parametrize("stuck_w", [71.3, 399.9])
def test_a_power_that_stands_still_may_be_anything_for_all_of_that_time(stuck_w):
    """From 4 s on it stands still: from 8 to 12 s the whole range, not times the root of the time, nor more."""
    noise = [0.013 * (number * 7919 % 101) for number in range(20)]
    watts = [*[70.0 + one for one in noise], *[400.0 + one for one in noise], *[stuck_w] * 100]
    trace = powers(watts, window_s=0.025)
    range_w = max(max(watts) - stuck_w, stuck_w - min(watts))
    ends_j = 2 * ((max(watts) - min(watts)) * (PERIOD_S + 0.025)) ** 2
    stuck_j = range_w * math.sqrt(8.0**2 - 4.0**2)
    assert bar(trace, 9.0, 13.0) == pytest.approx(math.sqrt(stuck_j**2 + ends_j), rel=0.01)


@pytest.mark.parametrize("window_s", [0.025, PERIOD_S])
@pytest.mark.parametrize(("before_w", "after_w"), [(60.0, 300.0), (300.0, 60.0)])
def test_what_nobody_read_is_guessed_to_be_the_lower_power_around_it(before_w, after_w, window_s):
    """Two seconds between 60 and 300 W, whichever was before: 60 W."""
    levels = [*[before_w] * 20, *[None] * 20, *[after_w] * 20]
    trace = powers(
        [w and w + 0.1 * (k % 2) for k, w in enumerate(levels)], window_s=window_s, max_power_w=400.0
    )
    begin_s, end_s = 2.5, 5.5
    times_s = np.array([begin_s, end_s])
    joules, covered_s = (
        np.diff(one).item() for one in (trace.curve.at(times_s)[0], trace.curve.at(times_s).covered_s)
    )
    missing_s = end_s - begin_s - covered_s
    assert missing_s == pytest.approx(2.0, abs=0.2)
    seen_j = before_w * (2.9 - begin_s) + after_w * (end_s - 4.95)
    # Where in its period the power changed is open; a wrong guess would be off by 480 J.
    assert joules == pytest.approx(seen_j + 60.0 * missing_s, abs=300.0 * PERIOD_S)


def test_a_power_that_nobody_read_for_a_while_was_between_rest_and_the_limit():
    """Two seconds without a reading: 60 W are guessed, and it may have been all that the device can draw."""
    watts = [60.0 + 0.1 * (k % 2) for k in range(60)]
    watts[20:40] = [None] * 20
    trace = powers(watts, window_s=PERIOD_S, max_power_w=400.0)
    away_s = 2.0
    covered_s = np.diff(trace.curve.at(np.array([2.5, 5.5])).covered_s).item()
    assert covered_s == pytest.approx(3.0 - away_s, rel=0.01)
    assert bar(trace, 2.5, 5.5) == pytest.approx((400.0 - 60.0) * away_s, rel=0.01)


def test_what_was_seen_in_unknown_parts_drew_what_was_drawn_around_it():
    """A mean over 1 s tells of 0.4 s that nobody read, not how; an earlier gap at rest has nothing to do with that."""
    rise = [60.0 + 24.0 * k for k in range(10)]
    levels = [*[60.0] * 30, *[None] * 20, *[60.0] * 30, *rise, *[300.0] * 30, *[None] * 4, *[300.0] * 20]
    trace = powers([w and w + 0.1 * (k % 2) for k, w in enumerate(levels)], window_s=1.0, max_power_w=400.0)
    covered_s = np.diff(trace.curve.at(np.array([12.5, 14.5])).covered_s).item()
    assert covered_s < 2.0 - 0.4
    assert trace.unseen_w == pytest.approx(300.0, rel=0.1)
