"""From readings to a curve: differences that say what they are, knots, periods, death and return."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimeter._curve.activity import Activity
from aimeter._curve.counter import Difference, Step, difference
from aimeter._curve.health import DEAD_AFTER_S
from aimeter._curve.idle_fit import Power, fit_idle
from aimeter._curve.response_fit import Estimate
from aimeter._curve.trace import Trace
from aimeter._support.statistics import SIGMAS_95
from aimeter.sensors.base import Outcome
from tests.energies import energy_between, used_part
from tests.readings import channel, read


def play(trace, power_w, *, seconds, period_s, every_s=None, start=0.0):
    """Read a staircase of a constant power for some time, as often as the trace asks for."""
    now = start
    while now < start + seconds:
        read(trace, now, power_w * int(now / period_s + 1e-9) * period_s)
        now = max(trace.due_s(now), now + 0.001) if every_s is None else now + every_s
    return now


# Differences


def test_a_first_value_is_no_difference():
    """The first value of a counter says nothing about energy."""
    assert difference(None, 123.0, 0.0, None, None) == Difference(Step.FIRST, 0.0)


def test_a_wrap_is_added():
    """A RAPL counter that starts again from 0 gives the joules across the wrap."""
    found = difference(262_143.0, 7.0, 0.1, 262_143.328850, 400.0)
    assert found.step is Step.WRAPPED
    assert found.joules == pytest.approx(7.328850)


def test_a_counter_without_wrap_that_falls_was_reset():
    """A negative difference of NVML is a reset, never a wrap."""
    assert difference(5000.0, 3.0, 0.1, None, 400.0) == Difference(Step.RESET, 0.0)


def test_a_wrap_that_is_too_large_was_a_reset():
    """A fall that would mean more than the device can draw is no wrap."""
    assert difference(1000.0, 0.0, 0.1, 262_143.0, 100.0).step is Step.RESET


def test_an_absurd_jump_is_no_energy():
    """A counter that jumps by 1e14 J is not believed."""
    assert difference(0.0, 1e14, 5.0, None, None) == Difference(Step.ABSURD, 0.0)


@given(st.lists(st.floats(min_value=0.001, max_value=20.0), min_size=1, max_size=60))
def test_wraps_lose_nothing(joules):
    """Any sequence of draws adds up across any number of wraps, as long as none is hidden between readings."""
    wrap = 50.0
    total = value = 0.0
    for draw in joules:
        new = (value + draw) % wrap
        total += difference(value, new, 0.4, wrap, 100.0).joules
        value = new
    assert total == pytest.approx(sum(joules), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 123.0])
def test_a_counter_that_stands_still_gives_nothing(value):
    assert difference(value, value, 0.1, 262_143.0, 400.0) == Difference(Step.SAME, 0.0)


@pytest.mark.parametrize("looks", [(), (10.05,), (10.02, 10.05, 10.08)])
def test_a_counter_that_nobody_has_seen_stand_still_has_nothing_to_catch_up(looks):
    """The first difference is judged like any other: by the time between its two readings."""
    low, high = Trace(channel(max_power_w=100.0), 0.05), Trace(channel(max_power_w=100.0), 0.05)
    for trace, joules in ((low, 0.01), (high, 200.0)):
        for now in (10.0, *looks):
            read(trace, now, 0.0)
        read(trace, 10.1, joules)
    # Memory that sleeps draws a tenth of a watt: that has been seen, all of it.
    assert low.curve.energy_j == pytest.approx(0.01)
    assert low.curve.end_s == pytest.approx(10.1, abs=0.1)
    assert np.isfinite(low.curve.knots).all()
    # A hundred watts at most, twice over, for a tenth of a second and half a second's delay: 120 J, not 200.
    assert high.curve.energy_j == 0.0
    assert "jumped" in high.reason


# Knots


def test_knots_lie_where_the_counter_moved():
    """Every knot's time is that of the step, within its half-width, and its energy is exact."""
    trace = Trace(channel(), 0.05)
    play(trace, 300.0, seconds=5.0, period_s=0.1)
    time, joules, uncertainty = trace.curve.knots[:, 2:]
    step = np.round(time / 0.1) * 0.1
    assert np.abs(time - step).max() < 0.013
    assert (uncertainty >= 300.0 * np.abs(time - step) - 1e-6).all()
    assert np.diff(joules) == pytest.approx(300.0 * np.diff(step), abs=1e-6)


def test_what_is_published_after_a_failed_look_came_after_what_was_published_before():
    """No look in between says that it was not there yet; but one value is published after the other."""
    trace = Trace(channel(period_s=1.0), 0.05)
    read(trace, 100.0, 50.0)
    read(trace, 100.1, 60.0)
    read(trace, 100.2, None, outcome=Outcome.AGAIN)
    read(trace, 100.4, 90.0)
    before_s, time_s = trace.curve.knots[0, -2:]
    assert before_s == pytest.approx(100.05)
    assert time_s == pytest.approx((100.05 + 100.4) / 2)


def test_a_slow_staircase_costs_few_readings():
    """The interval follows the sensor's own period: a 100 ms counter is read about three times a period."""
    trace, reads = Trace(channel(), 0.05), []
    take = trace.take
    trace.take = lambda reading: (reads.append(reading), take(reading))
    play(trace, 300.0, seconds=5.0, period_s=0.1)
    assert len(reads) < 5.0 / 0.1 * 4


@pytest.mark.parametrize("true_period_s", [0.02, 0.06, 0.15, 0.3, 1.0])
def test_a_period_other_than_documented_is_learned(true_period_s):
    """Whatever the documented period, knots meet the true steps and the energy is exact."""
    trace = Trace(channel(period_s=0.1), 0.05)
    play(trace, 300.0, seconds=10.0, period_s=true_period_s)
    assert trace.alive
    assert trace.learned.period_s == pytest.approx(true_period_s, rel=0.001)
    time, joules, uncertainty = trace.curve.knots[:, -5:]
    assert joules == pytest.approx(300.0 * true_period_s * np.round(time / true_period_s))
    assert (np.abs(joules - 300.0 * time) <= uncertainty).all()
    assert uncertainty.max() < 300.0 * 0.005 * max(true_period_s, 0.06)


def test_bounds_of_a_period_are_told_where_updates_are_foretold():
    """Of a counter that steps they hold its true period; an estimate that is always fresh has none."""
    stepped = Trace(channel(period_s=0.1), 0.05)
    play(stepped, 300.0, seconds=10.0, period_s=0.0973)
    found = stepped.learned.period
    assert found.earliest_s <= 0.0973 <= found.latest_s < found.earliest_s + 0.001
    assert Trace(channel(method="estimate", period_s=0.0), 0.05).learned.period is None


def test_a_delayed_sampler_divides_by_the_time_that_passed():
    """Readings that come late give the power over the time that really passed."""
    trace = Trace(channel(), 0.05)
    for now in (0.0, 0.1, 0.2, 0.9, 1.0, 2.7, 2.8):
        read(trace, now, 200.0 * now)
        assert trace.curve.energy_j == pytest.approx(200.0 * now)
        # A first value may be of any moment in a period, and only the first one is.
        assert trace.last_power_w == pytest.approx(200.0 if now else 0.0, rel=0.03)


def test_a_reset_is_a_gap_and_not_an_energy():
    """A counter reset in mid-run costs the stretch in which it happened, nothing more."""
    trace = Trace(channel(), 0.05)
    play(trace, 100.0, seconds=1.0, period_s=0.1)
    before = trace.curve.energy_j
    for now in np.arange(1.0, 2.0, 0.05):
        read(trace, now, 100.0 * int((now - 1.0) / 0.1 + 1e-9) * 0.1 + 1.0)
    assert trace.health.resets == 1
    assert trace.curve.energy_j - before == pytest.approx(90.0)
    assert trace.unclaimed_j == 0
    # Not from the newest step before it to the middle of the readings between which it was.
    covered = trace.curve.at(np.array([0.05, 1.875])).covered_s
    assert covered[1] - covered[0] == pytest.approx(1.875 - 0.05 - 0.05, abs=0.002)


def test_a_jump_is_a_gap_and_what_is_counted_after_it_is_known():
    """A counter that jumps costs the time since its newest step; it counts on from there, and all of that is metered."""
    trace = Trace(channel(max_power_w=700.0), 0.05)
    play(trace, 100.0, seconds=1.0, period_s=0.1)
    before = trace.curve.energy_j
    for now in np.arange(1.0, 2.0, 0.05):
        read(trace, now, 1e9 + 100.0 * int(now / 0.1 + 1e-9) * 0.1)
    assert trace.curve.energy_j - before == pytest.approx(90.0)
    assert trace.unclaimed_j == 0
    covered = trace.curve.at(np.array([0.905, 0.995])).covered_s
    assert covered[1] == covered[0]


@given(st.floats(0.0, 0.15), st.floats(1.0, 3.0), st.lists(st.floats(50.0, 600.0), min_size=50, max_size=50))
def test_a_latency_put_to_use_loses_no_joule(latency_s, when_s, watts):
    """Whenever and however late: knots go on, none goes back, their joules add up, and soon they lie where they belong."""
    trace = Trace(channel(), 0.05)
    energy = np.concatenate([[0.0], np.cumsum(watts)]) * 0.1
    for step in range(1, 51):
        if (step - 1) * 0.1 <= when_s < step * 0.1:
            trace.adopt(Estimate(latency_s, latency_s / 2), None)
        for offset in (0.0005, 0.05, 0.0995):
            read(trace, 0.1 * step + offset, energy[step])
    times, joules, _ = trace.curve.knots
    assert (np.diff(times) > 0).all()
    assert joules[-1] - joules[0] == pytest.approx(energy[-1] - energy[1])
    assert times[-1] == pytest.approx(5.0 - trace.learned.latency.value_s, abs=0.003)
    assert np.diff(times)[-5:] == pytest.approx(0.1, abs=0.003)


def test_what_is_learned_is_put_to_use_a_few_times_at_most():
    """A latency that seems to be another every time does not make the curve waver for ever."""
    trace, used = Trace(channel(), 0.05), set()
    for k in range(20):
        trace.adopt(Estimate(0.005 + 0.02 * (k % 2), 0.001), None)
        used.add(trace.learned.latency)
        changes = trace.learned.adoptions
    assert changes == 4
    before = trace.learned.latency
    trace.adopt(Estimate(before.value_s + 0.0005, before.error_s), None)
    assert trace.learned.latency == before


# Power


def test_a_power_that_jumps_is_not_smeared():
    """60 W published for 4.9 s, then 300 W: the jump is not smeared over the time before it."""
    trace = Trace(channel(method="power", quantity="power", period_s=0.1, window_s=0.1), 0.05)
    now = 0.0
    while now <= 6.0:
        read(trace, now, 60.0 if now < 4.9 else 300.0)
        now += 0.05
    # What is published at 4.9 s is the mean over the window before it.
    joules, _ = energy_between(trace.curve, np.array([0.0]), np.array([4.75]))
    assert joules[0] == pytest.approx(60.0 * 4.75, rel=0.02)


@given(st.lists(st.floats(min_value=20.0, max_value=400.0), min_size=5, max_size=40), st.floats(0.0, 0.09))
def test_published_power_is_integrated_within_its_error(levels, phase):
    """A sensor that averages over its whole period loses nothing: the energy is right within the error."""
    trace = Trace(channel(method="power", quantity="power", period_s=0.1, window_s=0.1), 0.05)
    now = 0.0
    while now < 0.1 * len(levels):
        read(trace, now + phase * 0.1, levels[min(int(now / 0.1 + 1e-9), len(levels) - 1)])
        now += 0.05
    a, b = 0.15, 0.1 * len(levels) - 0.25
    joules, resolution = energy_between(trace.curve, np.array([a]), np.array([b]))
    # What is published in period k is the mean over the period before it.
    truth = sum(watts * max(min(b, 0.1 * k) - max(a, 0.1 * (k - 1)), 0.0) for k, watts in enumerate(levels))
    assert abs(joules[0] - truth) <= resolution[0]


# Idle power


def test_the_idle_power_is_not_the_lowest_of_many_uncertain_ones():
    """Idle stretches that are uncertain by more than they differ give the idle power as their mean, not their least."""
    choose = random.Random(3)
    known = None
    for _ in range(500):
        known = Power(choose.gauss(35.0, 3.0), SIGMAS_95 * 3.0).lower(known)
    assert known.watts == pytest.approx(35.0, abs=1.0)
    assert Power(30.0, 0.1).lower(known).watts == 30.0
    assert Power(60.0, 0.1).lower(known) == known


def test_what_the_meter_is_off_by_is_no_scatter_of_the_device():
    """A device whose idle power is steady is known to be so by stretches that are themselves uncertain."""
    choose = random.Random(3)
    begins = np.array([0.1, 0.5] * 16)
    decay = 20.0 * 0.4 * (np.exp(-begins / 0.4) - np.exp(-(begins + 0.1) / 0.4)) / 0.1
    watts = [35.0 + one + choose.gauss(0, 3.0) for one in decay]
    stretches = np.array([begins, begins + 0.1, watts, np.full(32, 9.0)]).T
    idle = fit_idle(stretches, 35.0)
    assert idle.spread_w < 0.5
    stretches[:, 3] = 0.0
    assert fit_idle(stretches, 35.0).spread_w > 2.0


def test_a_train_of_calls_in_step_with_a_long_average_is_told_apart():
    """A load that keeps step with a 1 s average makes it stand still, and neither flattens the curve nor lowers the
    idle power."""
    idle_w, busy_w, start_s, calls = 35.0, 235.0, 4.033, 60
    begins = [start_s + 0.2 * k for k in range(calls)]

    def energy_j(time_s):
        busy_s = sum(min(max(time_s - begin, 0.0), 0.06) for begin in begins)
        return idle_w * time_s + (busy_w - idle_w) * busy_s

    sensor = channel(method="power", quantity="power", period_s=0.1, window_s=1.0, max_power_w=350.0)
    trace, now, noted_s = Trace(sensor, 0.1), 0.0, 0.0
    while now < start_s + 0.2 * calls + 2.0:
        published_s = 0.1 * int(now / 0.1 + 1e-9)
        watts = round(energy_j(published_s) - energy_j(published_s - 1.0), 2)
        read(trace, now, watts)
        for begin, end in [
            (0.2, start_s),
            *[(begin + 0.06, begin + 0.2) for begin in begins[:-1]],
            (begins[-1] + 0.06, now),
        ]:
            if noted_s < end <= now - 0.5:
                trace.note_idle(begin, end, begin)
                noted_s = end
        now = max(trace.due_s(now), now + 0.001)
    assert trace.idle_w == pytest.approx(idle_w, rel=0.001)
    edges = np.unique([[begin, begin + 0.06] for begin in begins])
    activity = Activity(edges, np.arange(edges.size) % 2 == 0)
    joules, resolution = energy_between(trace.curve, np.array(begins), np.array(begins) + 0.06, activity)
    truth = busy_w * 0.06
    # A mean over ten periods could hide more than it does here.
    assert used_part(joules - truth, resolution) == pytest.approx(0.28, rel=0.3)
    assert np.median(np.abs(joules - truth)) < 0.02 * truth


# Death and return


def test_a_counter_that_never_moves_is_dead():
    """A dead sensor, present but never advancing, is unavailable after 2 s, and gave no energy."""
    trace = Trace(channel(), 0.05)
    for now in np.arange(0.0, DEAD_AFTER_S + 0.2, 0.05):
        read(trace, now, 0.0)
    assert not trace.alive
    assert "not advanced" in trace.reason


def test_a_sensor_that_only_fails_is_dead_with_its_reason():
    """Two seconds of failures are a death whose reason is the sensor's."""
    trace = Trace(channel(), 0.05)
    play(trace, 100.0, seconds=0.5, period_s=0.1)
    for now in np.arange(0.5, 3.0, 0.05):
        read(trace, now, None, outcome=Outcome.AGAIN, reason="timed out")
    assert (trace.alive, trace.reason) == (False, "timed out")


def test_a_short_hiccup_is_bridged():
    """Half a second without a reading costs nothing: the counter went on counting."""
    trace = Trace(channel(), 0.05)
    play(trace, 100.0, seconds=1.0, period_s=0.1)
    for now in np.arange(1.0, 1.5, 0.05):
        read(trace, now, None, outcome=Outcome.AGAIN)
    play(trace, 100.0, seconds=1.0, period_s=0.1, start=1.5)
    assert trace.alive
    assert trace.curve.energy_j == pytest.approx(100.0 * trace.curve.end_s, rel=0.02)


def test_what_is_gone_stays_gone():
    """A device that fell off the bus ends its curve at once."""
    trace = Trace(channel(), 0.05)
    play(trace, 100.0, seconds=1.0, period_s=0.1)
    read(trace, 1.0, None, outcome=Outcome.GONE, reason="GPU is lost")
    read(trace, 1.1, 500.0)
    assert (trace.alive, trace.gone) == (False, True)
    assert trace.died_s < 1.0


def test_a_dead_channel_that_moves_again_goes_on():
    """A channel that comes back is metered again; the time between stays uncovered, its energy is nobody's."""
    trace = Trace(channel(), 0.05)
    play(trace, 100.0, seconds=1.0, period_s=0.1)
    at = trace.curve.energy_j
    for now in np.arange(1.0, 4.0, 0.05):
        read(trace, now, 90.0)
    assert not trace.alive
    play(trace, 100.0, seconds=1.0, period_s=0.1, start=5.0)
    assert trace.alive
    assert trace.unclaimed_j == pytest.approx(500.0 - 90.0)
    assert trace.curve.energy_j - at == pytest.approx(90.0)
    covered = trace.curve.at(np.array([0.5, 5.8])).covered_s
    assert covered[1] - covered[0] == pytest.approx(0.4 + 0.8, abs=0.005)


def test_a_dead_channel_is_looked_at_once_a_second():
    """It may come back, and until then costs next to nothing."""
    trace = Trace(channel(), 0.05)
    now = play(trace, 100.0, seconds=1.0, period_s=0.1, start=1000.0)
    looks = []
    while now < 1060.0:
        read(trace, now, None, outcome=Outcome.AGAIN)
        looks += [] if trace.alive else [now]
        now = max(trace.due_s(now), now + 0.001)
    assert np.diff(looks) == pytest.approx(1.0)
    assert looks[0] == pytest.approx(1001.0 + DEAD_AFTER_S, abs=0.2)


@pytest.mark.parametrize("watts", [100.0, 300.0])
def test_a_dead_average_that_answers_again_goes_on_and_leaves_no_joule(watts):
    """A power is no counter: its next answer revives it, whatever it says, and watts are not taken for joules."""
    trace = Trace(channel(method="power", quantity="power", period_s=0.1, window_s=0.1), 0.05)
    for now in np.arange(0.0, 1.0, 0.05):
        read(trace, now, 100.0)
    for now in np.arange(1.0, 4.0, 0.05):
        read(trace, now, None, outcome=Outcome.AGAIN, reason="timed out")
    assert not trace.alive
    for now in np.arange(4.0, 5.0, 0.05):
        read(trace, now, watts)
    assert trace.alive
    assert trace.unclaimed_j == 0
    silent_s, again_s = np.diff(trace.curve.at(np.array([1.0, 4.1, 4.8])).covered_s)
    assert silent_s == 0
    assert again_s == pytest.approx(0.7)
    again_j = trace.curve.at(np.array([4.1, 4.8])).energy_j
    assert again_j[1] - again_j[0] == pytest.approx(0.7 * watts)


@pytest.mark.parametrize("period_s", [0.001, 0.01, 0.1])
def test_a_mean_of_any_period_is_integrated(period_s):
    """Also of one that is renewed so fast that nobody waits for its updates."""
    trace = Trace(channel(method="power", quantity="power", period_s=period_s, window_s=period_s), 0.05)
    watts, times_s = [], 10.0 + np.arange(100) * period_s
    for number, now in enumerate(times_s):
        watts.append(100.0 + 7 * (number % 3))
        read(trace, now + 0.1 * period_s, watts[-1])
    drawn_j = np.sum(watts[-50:]) * period_s
    known_j = trace.curve.at(np.array([times_s[-51], times_s[-1]])).energy_j
    assert known_j[1] - known_j[0] == pytest.approx(drawn_j, rel=0.01)


# A power that stands still


def powers(values, *, period_s=0.1, **changes):
    """Play published powers, one a period, and return the trace and the time after them."""
    trace = Trace(
        channel(method="power", quantity="power", period_s=period_s, window_s=0.025, **changes), 0.05
    )
    for number, watts in enumerate(values):
        read(trace, number * period_s + 0.01, watts)
    return trace, len(values) * period_s


def noise(watts, count):
    return [watts + 0.013 * (number * 7919 % 101) for number in range(count)]


def test_a_power_that_sticks_may_be_anything_it_has_been():
    """After a power that always changed stands still, the error holds the range seen, times the whole time."""
    trace, _ = powers([*noise(70.0, 20), *noise(400.0, 20), *[71.3] * 100])
    start, end = np.array([8.0]), np.array([12.0])
    joules, resolution = energy_between(trace.curve, start, end)
    assert joules[0] == pytest.approx(4 * 71.3, rel=0.01)
    assert resolution[0] >= 4 * (400 - 71.3)


def test_a_power_that_often_stands_still_is_not_stuck():
    """A device that reports whole watts repeats itself at rest: its history says so, and nothing is widened."""
    steady = [70.0] * 12
    trace, _ = powers([step for watts in range(70, 80) for step in (*steady, float(watts))] + [70.0] * 30)
    _, resolution = energy_between(trace.curve, np.array([13.5]), np.array([15.5]))
    assert resolution[0] < 10


@pytest.mark.parametrize(("changes", "sticks"), [(7, False), (8, True), (31, True)])
def test_a_power_is_not_called_stuck_before_it_was_seen_to_change_eight_times(changes, sticks):
    """How long it usually stays the same is not known from fewer."""
    trace, end_s = powers([*noise(70.0, changes + 1), *[300.0] * 100])
    _, resolution = energy_between(trace.curve, np.array([end_s - 5.0]), np.array([end_s - 1.0]))
    assert (resolution[0] > 4 * (300.0 - 80.0)) == sticks


def test_a_power_that_moves_again_is_believed_again():
    """What came after a power that stuck is as certain as before."""
    trace, _ = powers([*noise(70.0, 20), *noise(400.0, 20), *[71.3] * 50, *noise(70.0, 60)])
    _, resolution = energy_between(trace.curve, np.array([11.0]), np.array([13.0]))
    assert resolution[0] < 330 * 0.125 * 2**0.5 + 10


@pytest.mark.parametrize(
    ("window_s", "method"), [(0.0, "counter"), (0.1, "power"), (0.025, "power"), (1.0, "power")]
)
def test_a_machine_that_has_been_up_for_a_year(window_s, method):
    """Where a clock resolves nanoseconds no more, knots still follow one another, and every figure is a number."""
    quantity = "energy" if method == "counter" else "power"
    trace = Trace(channel(method=method, quantity=quantity, period_s=0.1, window_s=window_s), 0.05)
    now = 3e7
    for k in range(200):
        value = 10.0 * k if quantity == "energy" else 100.0 + 7 * (k % 3)
        read(trace, now, value)
        now += 0.05 if k % 5 else 0.0  # two readings at one moment, too
    times, joules, uncertainty = trace.curve.knots
    assert np.all(np.diff(times) > 0)
    assert np.all(np.isfinite(joules))
    assert np.all(np.isfinite(uncertainty))
    _, resolution = energy_between(trace.curve, times[:-1], times[1:])
    assert np.all(np.isfinite(resolution))


@pytest.mark.parametrize("value", [-100.0, float("nan"), float("inf"), 1e6])
def test_a_power_that_cannot_be_is_not_believed(value):
    """A sensor that says what no device can draw has failed that time: no energy falls, and none is made up."""
    trace = Trace(
        channel(method="power", quantity="power", period_s=0.1, window_s=0.1, max_power_w=350.0), 0.05
    )
    for k in range(100):
        read(trace, 1.0 + 0.05 * k, value if 40 <= k < 45 else 100.0 + 7 * (k % 3))
    _, joules, _ = trace.curve.knots
    assert np.all(np.diff(joules) >= 0)
    assert joules[-1] < 1000
    assert trace.health.faults == 5
    assert "cannot be" in trace.reason


def test_what_was_settled_without_its_energy_is_nobodys():
    """Somebody could not wait in the middle of a step: half of it comes to light too late, and the rest is metered."""
    trace = Trace(channel(), 0.05)
    for now in (1.0, 1.1, 1.2):
        read(trace, now, 100.0 * now)
    known_s, known_j = trace.curve.end_s, trace.curve.energy_j
    trace.settle_gap(known_s + 0.05)
    read(trace, 1.3, 130.0)
    assert trace.curve.end_s == pytest.approx(known_s + 0.1)
    assert trace.unclaimed_j == pytest.approx(5.0)
    assert trace.curve.energy_j - known_j == pytest.approx(5.0)
    covered_s = np.diff(trace.curve.at(np.array([known_s, known_s + 0.1])).covered_s)
    assert covered_s == pytest.approx([0.05])
    trace.settle_gap(known_s)  # what is known already is not taken back
    assert trace.curve.end_s == pytest.approx(known_s + 0.1)
