"""The steps of a counter: found to a fraction of the looks' distance, and doubted when they are not steady."""

from __future__ import annotations

import bisect
import random

import pytest

from aimeter._curve.integrate.knots import _LIKELY
from aimeter._curve.update_times import Interval, UpdateTimes


def watch(true_period_s, documented_s, jitter_s, *, seconds=50.0, interval_s=0.05, seed=1):
    """Look at a staircase as often as it asks for; return what it said of each step, the truth, and the looks."""
    choose = random.Random(seed)
    phase = choose.random() * true_period_s
    steps = [
        phase + i * true_period_s + choose.uniform(-jitter_s, jitter_s)
        for i in range(int(99 / true_period_s))
    ]
    updates = UpdateTimes(documented_s)
    said, looks, seen, looked, now = [], 0, None, 0.0, 10.0
    while now < 10.0 + seconds:
        value = bisect.bisect_right(steps, now)
        looks += 1
        if seen is not None and value != seen:
            bracket = Interval(max(looked, now - 1.05 * updates.period_s), now)
            said.append((updates.see(bracket), steps[value - 1]))
        seen, looked = value, now
        now = max(updates.next_look_s(now, interval_s), now + 5e-4) + choose.random() * 2e-4
    return updates, said[20:], looks / seconds


@pytest.mark.parametrize(
    ("true_period_s", "documented_s"),
    [(0.1, 0.1), (0.02, 0.1), (0.02, 0.02), (0.05, 0.1), (0.104, 0.1), (0.3, 0.1), (1.0, 0.1)],
)
def test_steady_steps_are_found(true_period_s, documented_s):
    """Whatever the documented period, the true one is found, and every step lies where it is said to."""
    updates, said, looks_per_s = watch(true_period_s, documented_s, 0.0)
    assert updates.period_s == pytest.approx(true_period_s, rel=0.002)
    assert all(when.earliest_s - 1e-9 <= truth <= when.latest_s + 1e-9 for when, truth in said)
    halves = sorted(when.half_s for when, _ in said)
    assert halves[len(halves) // 2] < max(true_period_s / 400, 2.5e-4)
    assert looks_per_s < max(1.25 / true_period_s, 5.0)


def test_most_steps_lie_near_the_middle():
    """Where steps are foretold, 95 % of them lie within the part of the bracket that the bars are made of."""
    _, said, _ = watch(0.1, 0.1, 0.0, seconds=200.0)
    off = sorted(abs(when.middle_s - truth) / when.half_s for when, truth in said)
    assert off[int(0.95 * len(off))] == pytest.approx(0.78, abs=0.05)
    assert _LIKELY == 0.85


def test_a_step_that_does_not_come_is_noticed():
    """A look after the time at which a step was to come raises a doubt at once, not only when it does come."""
    updates, said, _ = watch(0.1, 0.1, 0.0)
    last, _ = said[-1]
    before = updates.jitter_s
    assert updates.next_look_s(last.latest_s + 0.01, 0.05) < last.latest_s + 0.15
    assert updates.jitter_s == before
    updates.next_look_s(last.latest_s + 0.15, 0.05)
    assert updates.jitter_s > before


@pytest.mark.parametrize("jitter_s", [0.001, 0.01])
def test_unsteady_steps_are_doubted(jitter_s):
    """A sensor with jitter is allowed more of it, and most steps still lie where they are said to."""
    updates, said, _ = watch(0.1, 0.1, jitter_s)
    assert updates.jitter_s >= 0.4 * jitter_s
    inside = sum(when.earliest_s <= truth <= when.latest_s for when, truth in said)
    assert inside >= 0.85 * len(said)
    assert all(abs(when.middle_s - truth) <= when.half_s + 4 * jitter_s for when, truth in said)


def test_a_pause_costs_the_phase_and_not_the_period():
    """After forgetting, the period is still known and steps are soon found again."""
    updates, _, _ = watch(0.1, 0.1, 0.0)
    updates.forget()
    assert not updates.known
    assert updates.period_s == pytest.approx(0.1, rel=0.002)


def test_a_step_out_of_step_does_not_let_each_be_taken_for_the_one_before():
    """An RTX 3090 publishes once in between when a load begins; at rest before, its steps had passed unseen."""
    updates = UpdateTimes(0.1, silent=True)
    steps = sorted([0.0955 + 0.1002 * k for k in range(100) if k not in {8, 9}] + [1.062])

    def value(now_s):
        return bisect.bisect_right(steps, now_s)

    looked_s, now_s, off_s = 0.0, 0.0125, []
    while now_s < 9.0:
        if value(now_s) != value(looked_s):
            found = updates.see(Interval(max(looked_s, now_s - 1.05 * updates.period_s), now_s))
            truth_s = steps[value(now_s) - 1]
            off_s.append(max(found.earliest_s - truth_s, truth_s - found.latest_s, 0.0))
        else:
            updates.passed(now_s)
        looked_s, now_s = now_s, max(updates.next_look_s(now_s, 0.1), now_s + 5e-4)
    assert sum(off > 1e-3 for off in off_s) <= 5
