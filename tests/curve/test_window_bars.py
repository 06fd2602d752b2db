"""What a power beside a counter leaves of the doubt inside its steps, from both sides: normal quantities, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aimeter._curve.activity import Activity, IdlePower
from aimeter._curve.curve import Curve, read
from aimeter._curve.power_windows import PowerWindows
from aimeter._support.statistics import SIGMAS_95
from aimeter.sensors.base import Outcome, Reading
from tests.energies import energy_between
from tests.readings import channel

IDLE_W, STEP_S, WINDOW_S, GAIN = 60.0, 0.1, 0.025, 1.1
LOOK_S = 1e-4
"""Looks are so long before and after a publication."""

FIRST_W, SECOND_W = 500.0, 140.0
UNEVEN, LATE, BLUR = 0.3, 0.5, 0.3


def drawn_j(loads, begin_s, end_s):
    return IDLE_W * (end_s - begin_s) + sum(
        (watts - IDLE_W) * max(0.0, min(end_s, until_s) - max(begin_s, since_s))
        for since_s, until_s, watts in loads
    )


class Board:
    """An exact counter of 0.1 s and a power that says less by `GAIN`, the mean over 25 ms, published at some times."""

    def __init__(self, loads, activity, *, published_s, says=(1.0,), seconds=3.0):
        self.curve, self.activity = Curve(counted=True, max_power_w=700.0), activity
        self.curve.doubted_s = 0.0
        self.windows = PowerWindows(
            channel(method="power", quantity="power", period_s=STEP_S, window_s=WINDOW_S), self.curve, 0.05
        )
        for number in range(round(seconds / STEP_S) + 1):
            time_s = number * STEP_S
            idle = IdlePower(IDLE_W, 0.0, 0.05, 0.0)
            self.curve.append(time_s, drawn_j(loads, 0.0, time_s), 0.0, idle=idle)
        before_w = 0.0
        for number, time_s in enumerate(published_s):
            # By a hundredth of a watt it always changes: what stays the same may be stuck.
            watts = drawn_j(loads, time_s - WINDOW_S, time_s) / WINDOW_S / GAIN + 1e-9 * number
            watts /= says[number % len(says)]
            for look_s, value in ((time_s - LOOK_S, before_w), (time_s + LOOK_S, watts)):
                self.windows.take(Reading(look_s, look_s, Outcome.OK, value))
            before_w = watts
        self.windows.compare(activity)

    def tell(self, begin_s, end_s):
        joules, half_j = energy_between(self.curve, [begin_s], [end_s], self.activity)
        return joules.item(), half_j.item()


FIRST, SECOND = (2.01, 2.04), (2.05, 2.08)


@pytest.fixture
def board():
    activity = Activity(np.array([*FIRST, *SECOND]), np.array([True, False] * 2))
    loads = [(*FIRST, FIRST_W), (*SECOND, SECOND_W)]
    return Board(loads, activity, published_s=[2.0375 + STEP_S * k for k in range(-18, 9)])


def told(prior, seen_s, amount_j, variance_j2, length_s, mean_w):
    """Return mean and deviation of one of two equal stretches of a step, of which a window saw a part of its own."""
    # What both add up to is known, so one is off by half of the variance of either.
    precision = 2 / prior**2 + seen_s**2 / variance_j2
    watts = mean_w + seen_s * (amount_j - seen_s * mean_w) / variance_j2 / precision
    return watts * length_s, length_s / math.sqrt(precision)


def test_a_window_on_one_of_two_calls_leaves_what_it_did_not_see(board):
    """Gain, edges beside the window, and the part of the call that it did not see: each by itself."""
    assert board.windows.gain == pytest.approx((GAIN, 0.005 * GAIN), rel=1e-3)
    length_s, excess_j = 0.03, (FIRST_W + SECOND_W) * 0.03
    mean_w = excess_j / (2 * length_s)
    seen_j = FIRST_W * WINDOW_S
    blur_s = BLUR * WINDOW_S + LATE * WINDOW_S + LOOK_S
    squares = [
        (0.005 * seen_j / SIGMAS_95) ** 2,
        (mean_w * blur_s / SIGMAS_95) ** 2,
        (UNEVEN * mean_w * WINDOW_S * (1 - WINDOW_S / length_s)) ** 2,
    ]
    joules, deviation_j = told(1.3 / SIGMAS_95 * mean_w, WINDOW_S, seen_j, sum(squares), length_s, mean_w)
    assert board.tell(*FIRST) == pytest.approx((joules, SIGMAS_95 * deviation_j), rel=2e-3)
    second = excess_j - joules
    assert board.tell(*SECOND) == pytest.approx((second, SIGMAS_95 * deviation_j), rel=2e-3)


def test_boards_beside_one_another_keep_their_windows(board):
    """Read together with one that has no power beside its counter, at times in any order: each as by itself."""
    plain = Curve(counted=True, max_power_w=700.0)
    for time_s, joules in board.curve.knots[:2].T.tolist():
        plain.append(time_s, joules, 0.0, idle=IdlePower(IDLE_W, 0.0, 0.05, 0.0))
    times_s = np.array([2.04, 0.5, 2.02, 2.08, 2.03])
    together = read([plain, board.curve, plain], times_s, board.activity)
    alone = [curve.at(times_s, board.activity) for curve in (plain, board.curve, plain)]
    for one, other in zip(together, alone, strict=True):
        assert np.array(one) == pytest.approx(np.array(other))
    assert not np.allclose(alone[0].energy_j, alone[1].energy_j)


def test_inside_a_call_the_power_may_be_unlike(board):
    """At a third of the first call: what is open of its mean, by that part, and 1.3 f (1 - f) of its own energy."""
    joules, half_j = board.tell(*FIRST)
    _, third_j = board.tell(2.01, 2.02)
    inside_j = 1.3 * joules * (1 / 3) * (2 / 3)
    assert third_j == pytest.approx(math.hypot(half_j / 3, inside_j), rel=1e-6)


def test_children_may_be_unlike_by_more_and_windows_told_less_of_them():
    """A child that ends in the middle of its parent: by 150 %, and what lies beside a window may be all of what is in it."""
    outer, child_end_s, length_s = (2.01, 2.08), 2.045, 0.035
    activity = Activity(np.array(outer), np.array([True, False]), np.array([child_end_s]))
    loads = [(outer[0], child_end_s, FIRST_W), (child_end_s, outer[1], SECOND_W)]
    board = Board(loads, activity, published_s=[2.0375 + STEP_S * k for k in range(-18, 9)])
    excess_j = (FIRST_W + SECOND_W) * length_s
    mean_w = excess_j / (2 * length_s)
    seen_j = FIRST_W * WINDOW_S
    squares = [
        (0.005 * seen_j / SIGMAS_95) ** 2,
        (mean_w * WINDOW_S / SIGMAS_95) ** 2,
        (UNEVEN * mean_w * WINDOW_S * (1 - WINDOW_S / length_s)) ** 2,
    ]
    joules, deviation_j = told(1.5 * mean_w, WINDOW_S, seen_j, sum(squares), length_s, mean_w)
    assert board.tell(outer[0], child_end_s) == pytest.approx((joules, SIGMAS_95 * deviation_j), rel=2e-3)


def test_a_meter_that_scatters_tells_less():
    """From 3 % below to 3 % above: the scale is the median, and one window is off by 1.96 of how they scatter around it."""
    says = [1.0 + 0.01 * k for k in range(-3, 4)]
    before = Activity(np.array([-2.0, -1.0]), np.array([True, False]))
    board = Board([], before, published_s=[0.5375 + STEP_S * k for k in range(14)], says=says)
    scatter = 1.4826 * 0.02
    assert board.windows.gain == pytest.approx((GAIN, SIGMAS_95 * scatter * GAIN), rel=1e-3)


@pytest.mark.parametrize(
    ("ratio", "off"), [(1.06, 0.0), (1.08, 1 - 1 / 1.08), (0.94, 0.0), (0.92, 1 / 0.92 - 1)]
)
def test_a_power_that_contradicts_its_counter_is_an_error_of_it(ratio, off):
    """Two meters that are each off by 5 % differ by 7.1 % at most: beyond that the counter may be wrong by all of it."""
    before = Activity(np.array([-2.0, -1.0]), np.array([True, False]))
    published_s = [0.5375 + STEP_S * k for k in range(14)]
    board = Board([], before, published_s=published_s, says=[ratio / GAIN])
    assert board.windows.compared
    assert board.windows.disagreement == pytest.approx(off, abs=1e-6)
    assert bool(board.windows.contradiction) == bool(off)
