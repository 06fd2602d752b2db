"""From a moving average back to energy: exact at the publications, whatever the power did inside the window."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter._curve.moving_average import ROUNDING_W, MovingAverage
from aimeter._support.statistics import SIGMAS_95
from tests.energies import used_part

powers = st.lists(st.floats(min_value=0.0, max_value=700.0), min_size=3, max_size=60)


@pytest.mark.parametrize("width", [1, 10])
@given(powers)
def test_energy_is_recovered_exactly(width, levels):
    """A mean over 0.1 s or over 1 s, published every 0.1 s: the joules of each 0.1 s are found again."""
    period = 0.1
    levels = [50.0] * (width + 1) + levels
    average = MovingAverage(width * period, period)
    truth, start = 0.0, width
    for k in range(start, len(levels)):
        mean = sum(levels[k - width + 1 : k + 1]) / width
        joules = average.publish(k * period, mean)
        if k > start:
            truth += levels[k] * period
        # A power taken for steady may differ by the rounding for as long as a window.
        assert joules == pytest.approx(truth, rel=0.02, abs=(ROUNDING_W + 0.01 * 700) * width * period + 1e-6)


def test_rest_joins_the_chains_again():
    """Rounding that made interleaved chains drift is forgotten once the device has drawn its least for a window."""
    average = MovingAverage(1.0, 0.1)
    joules = []
    for k in range(80):
        noise = (0.0 if k > 40 else 0.3 if k % 2 else -0.3) + (200.0 if 15 <= k < 25 else 0.0)
        joules.append(average.publish(k * 0.1, 100.0 + noise, least_w=100.0))
        if k == 40:
            drifted = average.error_j
    assert average.error_j < drifted
    for a, b in pairwise(joules[60:]):
        assert b - a == pytest.approx(10.0, abs=0.05)


def test_the_truth_lies_within_the_error_of_the_chains():
    """Errors of the published power add up along a chain, and its error says so.

    It has room for windows that are not quite as they should be, as the next test has them: this uses a ninth.
    """
    choose = random.Random(7)
    off = []
    for _ in range(20):
        levels = [50.0] * 20 + [choose.uniform(40.0, 300.0) for _ in range(300)]
        average = MovingAverage(1.0, 0.1)
        truth = 0.0
        for k in range(10, len(levels)):
            power = sum(levels[k - 9 : k + 1]) / 10 + choose.gauss(0, ROUNDING_W / SIGMAS_95)
            joules = average.publish(k * 0.1, power, least_w=40.0)
            if k > 10:
                truth += 0.1 * levels[k]
                off.append((joules - truth, average.error_j))
    assert used_part(*np.array(off).T) == pytest.approx(0.11, rel=0.3)


def test_a_window_of_which_only_the_mean_is_known_is_as_uncertain_as_that():
    """After a pause the energy of the window before may lie anywhere in it, but for what is always drawn."""
    work, rest = MovingAverage(1.0, 0.1), MovingAverage(1.0, 0.1)
    for k in range(6):
        # All of it was drawn in the first half of the window before: it leaves the average at the end of it.
        work.publish(k * 0.1, 240.0 - 40.0 * k, least_w=40.0)
        rest.publish(k * 0.1, 40.0, least_w=40.0)
    assert abs(work.joules - 0.5 * 40.0) <= work.error_j
    assert rest.joules == pytest.approx(0.5 * 40.0)
    assert rest.error_j < 1.0


def test_energy_never_falls():
    """An average that contradicts itself, as after a sensor's restart, gives no negative energy."""
    average = MovingAverage(1.0, 0.1)
    last = 0.0
    for k, watts in enumerate([500.0] * 12 + [0.0, 400.0, 3.0, 700.0] + [50.0] * 12):
        joules = average.publish(k * 0.1, watts)
        assert joules >= last
        last = joules


def test_a_load_in_step_with_the_window_is_not_taken_for_a_steady_power():
    """An average that stands still because a load keeps step with the window does not flatten that load."""
    levels = [50.0] * 21 + [283.0, 167.0] * 30 + [50.0] * 30
    average = MovingAverage(1.0, 0.1)
    before = 0.0
    for k in range(10, len(levels)):
        joules = average.publish(k * 0.1, sum(levels[k - 9 : k + 1]) / 10)
        if k > 10:
            assert joules - before == pytest.approx(0.1 * levels[k], abs=1e-6)
        before = joules


def test_a_window_of_two_periods_is_not_renewed_as_a_whole():
    """A mean over 100 ms that turns out to be renewed every 50 ms is a chain of windows, not one of steps."""
    average = MovingAverage(0.1, 0.1)
    average.period_s = 0.05
    levels = [100.0, 300.0] * 20
    joules = [average.publish(0.05 * k, (levels[k] + levels[k - 1]) / 2, least_w=100.0) for k in range(1, 40)]
    assert joules[-1] - joules[9] == pytest.approx(29 * 0.05 * 200.0, rel=0.05)


def test_a_window_that_weighs_its_second_unevenly_is_inside_the_error():
    """As on real boards a step shows by nine parts in a hundred each 0.1 s, and by what is missing once it is a second old."""
    weights = [0.09] * 9 + [0.19]
    off = []
    choose = random.Random(11)
    for _ in range(20):
        average = MovingAverage(1.0, 0.1)
        levels = [50.0] * 20
        while len(levels) < 200:
            levels += [choose.choice([50.0, 250.0, 300.0])] * choose.randint(1, 20)
        truth = 0.0
        for k in range(10, len(levels)):
            mean = sum(weight * levels[k - i] for i, weight in enumerate(weights))
            joules = average.publish(0.1 * k, mean, half_s=2e-4, least_w=49.0)
            if k > 10:
                truth += 0.1 * levels[k]
                off.append((joules - truth, average.error_j))
    assert used_part(*np.array(off).T) == pytest.approx(0.77, rel=0.3)


def test_the_window_before_the_first_publication_may_hold_a_load():
    """Whoever looks first in the middle of a load does not know how it lay in the window: no device rests at its load."""
    average = MovingAverage(1.0, 0.1, most_idle_w=35.0)
    levels = [10.0] * 8 + [350.0] * 6 + [10.0] * 30
    truth = 0.0
    for k in range(10, len(levels)):
        joules = average.publish(0.1 * k, sum(levels[max(k - 9, 0) : k + 1]) / 10, half_s=2e-4)
        truth += 0.1 * levels[k] if k > 10 else 0.0
        assert abs(joules - truth) <= 1.5 * average.error_j + 1e-9


@pytest.mark.parametrize("window_s", [0.1, 1.0])
def test_publications_that_seem_to_go_back_in_time_are_taken_for_simultaneous(window_s):
    """Looks far apart bound two publications by nearly the same times."""
    average = MovingAverage(window_s, 0.0135)
    for k in range(100):
        time_s = 0.0135 * k - (0.015 if k % 7 == 0 else 0.0)
        before_j = average.joules
        assert average.publish(time_s, 60.0 + k % 3, half_s=0.0067, least_w=58.0) >= before_j
        assert average.error_j >= 0.0
