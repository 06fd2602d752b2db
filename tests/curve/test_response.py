"""Latency and window of a sensor, learned from the ends of calls: the truth lies inside, or nothing is said."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimeter._curve.response import Published, Response, points_of
from aimeter._curve.response_fit import Estimate, fit
from aimeter._curve.trace import Trace
from aimeter._curve.update_probe import UpdateProbe
from aimeter._curve.update_times import UpdateTimes
from aimeter.sensors import nvml as nvml_sensor
from aimeter.sensors.base import Channel, Outcome, Reading
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import ENERGY, NOT_SUPPORTED, PRESETS
from tests.energies import energy_between

# The ramp


def ramp_points(rng, ends, *, latency_s, window_s, period_s, noise=0.03, spans=False, outliers=0.0):
    """Publications after ends of calls at random phases, whose levels before are known to `noise`."""
    rows = []
    for _ in range(ends):
        level, idle_s = rng.normal(0, noise), rng.uniform(0.05, 0.35)
        after_s = rng.uniform(0, period_s)
        while after_s < min(idle_s, 2 * period_s + 0.05):
            fallen = float(np.clip((after_s - latency_s) / window_s, 0, 1))
            fallen += level * (1 - fallen) + rng.normal(0, 0.01)
            if rng.random() < outliers:
                fallen = rng.uniform(-0.5, 1.5)
            span_s = window_s if spans else math.nan
            rows.append((after_s + rng.uniform(-3e-4, 3e-4), 3e-4, fallen, span_s, 0.0))
            after_s += period_s
    return np.array(rows[-192:])


cases = st.tuples(
    st.integers(0, 2**32), st.integers(24, 60), st.floats(0, 0.04), st.floats(0.01, 0.05), st.sampled_from([0, 0.05])
)  # fmt: skip


@settings(max_examples=40)
@given(cases, st.sampled_from([0.02, 0.1]))
def test_the_latency_of_a_counter_lies_inside(case, period_s):
    """Whatever the latency, the noise and the outliers: a counter's latency lies within its half-width."""
    seed, ends, latency_s, noise, outliers = case
    points = ramp_points(
        np.random.default_rng(seed), ends, latency_s=latency_s, window_s=period_s, period_s=period_s,
        noise=noise, spans=True, outliers=outliers,
    )  # fmt: skip
    found = fit(points, latest_s=period_s + 0.05, period_s=period_s)
    assert found is not None
    assert found.window is None
    # 95 % half-widths: of very many cases some are beyond them, and none by far.
    assert abs(found.latency.value_s - latency_s) <= 1.6 * found.latency.error_s
    assert found.latency.error_s < 0.06 * period_s + 0.002


def used_parts(found, truths_s):
    """Return which part of its half-width each estimate that was given is off by."""
    return [
        abs(one.value_s - truth_s) / one.error_s for one, truth_s in zip(found, truths_s, strict=True) if one
    ]


def test_the_window_of_a_power_lies_inside():
    """Whatever part of its period a power looks at, noisy or not: nearly all sets of ends tell latency and window, and
    no half-width is left by far."""
    parts = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        latency_s, window_s = rng.uniform(0, 0.04), rng.uniform(0.01, 0.1)
        points = ramp_points(
            rng, int(rng.integers(24, 61)), latency_s=latency_s, window_s=window_s, period_s=0.1,
            noise=rng.uniform(0.01, 0.05), outliers=(0.0, 0.05)[seed % 2],
        )  # fmt: skip
        found = fit(points, latest_s=0.15, period_s=0.1, widest_s=0.12)
        parts += used_parts(found or (), (latency_s, window_s) if found else ())
    assert len(parts) > 0.95 * 2 * 120
    assert max(parts) <= 1.6


def test_half_widths_hold_in_95_of_100_cases():
    """Over 150 sets of 40 ends each, of powers and counters, 95 % of the half-widths hold, and nearly all sets tell.

    Loads stop less cleanly than these do, for which half-widths leave room: 95 of 100 use about half of theirs.
    """
    rng = np.random.default_rng(7)
    counters, latencies, windows = [], [], []
    for k in range(150):
        spans, latency_s = k % 2 == 0, rng.uniform(0, 0.03)
        window_s = 0.1 if spans else rng.uniform(0.015, 0.1)
        points = ramp_points(rng, 40, latency_s=latency_s, window_s=window_s, period_s=0.1, spans=spans)
        found = fit(points, latest_s=0.15, period_s=0.1, widest_s=0.12)
        if found is None:
            continue
        (counters if spans else latencies).extend(used_parts((found.latency,), (latency_s,)))
        windows += used_parts((found.window,), (window_s,))
    for parts, usual in ((counters, 0.37), (latencies, 0.56), (windows, 0.58)):
        assert len(parts) >= 72
        assert np.quantile(parts, 0.95) == pytest.approx(usual, rel=0.3)


def test_what_is_no_ramp_says_nothing():
    """Few points, points that scatter everywhere, and points of plateaus only determine neither latency nor window."""
    rng = np.random.default_rng(3)
    few = ramp_points(rng, 2, latency_s=0.01, window_s=0.025, period_s=0.1)
    assert fit(few, latest_s=0.15, period_s=0.1, widest_s=0.12) is None
    wild = np.array([(rng.uniform(0, 0.2), 3e-4, rng.uniform(-0.2, 1.2), 0.1, 0.0) for _ in range(150)])
    assert fit(wild, latest_s=0.15, period_s=0.1) is None
    late = np.array([(after, 3e-4, 1.0, math.nan, 0.0) for after in np.linspace(0.1, 0.2, 60)])
    assert fit(late, latest_s=0.15, period_s=0.1, widest_s=0.12) is None


@pytest.mark.parametrize(("on_slope", "told"), [(3, False), (4, True)])
def test_a_latency_takes_four_points_on_the_way_down(on_slope, told):
    """Where the level before or the idle power is reached already, a publication says little of when."""
    slope = [(0.03 + part * 0.1, 3e-4, part, 0.1, 0.0) for part in np.linspace(0.2, 0.8, on_slope)]
    level = [(after, 3e-4, 0.0, 0.1, 0.0) for after in np.linspace(0.005, 0.025, 20)]
    rest = [(after, 3e-4, 1.0, 0.1, 0.0) for after in np.linspace(0.14, 0.2, 60)]
    found = fit(np.array(level + slope + rest), latest_s=0.15, period_s=0.1)
    assert (found is not None) == told
    if found is not None:
        assert abs(found.latency.value_s - 0.03) <= found.latency.error_s


def test_a_doubt_about_the_idle_power_is_in_the_half_width():
    """Where the idle power may be off by a tenth of the fall, the ramp's middle may be off by a twentieth of its width."""
    points = ramp_points(np.random.default_rng(1), 60, latency_s=0.0, window_s=0.1, period_s=0.1, spans=True)
    sure = fit(points, latest_s=0.15, period_s=0.1).latency
    points[:, 4] = 0.1
    unsure = fit(points, latest_s=0.15, period_s=0.1).latency
    assert unsure.error_s == pytest.approx(sure.error_s + 0.005, rel=0.02)


def test_estimates_exclude_what_lies_beyond_both_half_widths():
    """A documented value has no half-width; two learned ones differ if they do by more than theirs in quadrature."""
    assert Estimate(0.018, 0.002).excludes(Estimate(0.025, 0.0))
    assert not Estimate(0.0231, 0.002).excludes(Estimate(0.025, 0.0))
    assert not Estimate(0.018, 0.002).excludes(Estimate(0.0205, 0.002))


# From publications to points


def played(*, latency_s=0.01, calls=40, seed=0, busy_w=300.0, begin_s=0.6, fall=True, window_s=None):
    """A counter of 100 ms around calls that end at random phases, told to a `Response`; or a power of a window."""
    choose = random.Random(seed)
    response, now_s, edges = Response(), 0.013, []
    time_s, powers = 0.0, []
    for _ in range(calls):
        idle_s, busy_s = choose.uniform(0.25, 0.4), choose.uniform(begin_s, begin_s + 0.1)
        powers += [(time_s, 60.0), (time_s + idle_s, busy_w)]
        edges.append((time_s + idle_s, time_s + idle_s + busy_s))
        time_s += idle_s + busy_s
    starts = np.array([start for start, _ in powers])
    watts = np.array([watt for _, watt in powers])
    if not fall:
        watts[:] = busy_w
    joules = np.concatenate([[0.0], np.cumsum(np.diff(starts) * watts[:-1])])

    def energy(moment_s):
        k = max(int(np.searchsorted(starts, moment_s, side="right")) - 1, 0)
        return joules[k] + watts[k] * (moment_s - starts[k])

    span_s = window_s or 0.1
    known = {"latency_s": 0.0, "window_s": span_s, "period_s": 0.1}
    ends = iter([*edges[1:], (math.inf, math.inf)])
    since_s, until_s = edges[0][1], next(ends)[0]
    while now_s < time_s - 1:
        mean_w = (energy(now_s - latency_s) - energy(now_s - latency_s - span_s)) / span_s
        response.publish(Published(now_s, 2e-4, mean_w, math.nan if window_s else span_s))
        now_s += 0.1
        if now_s > until_s:
            response.rest(since_s, until_s, **known)
            since_s = next(end for begin, end in edges if begin == until_s)
            until_s = next(ends)[0]
    response.conclude(**known)
    return response


@pytest.mark.parametrize("latency_s", [0.0, 0.012, 0.03])
def test_a_counter_that_is_late_is_found_out(latency_s):
    """Steps around the ends of calls tell a counter's latency."""
    found = played(latency_s=latency_s).ramp.latency
    assert abs(found.value_s - latency_s) <= found.error_s
    assert found.error_s < 0.004


@pytest.mark.parametrize("until_s", [(1.25,), (1.0625, 1.25), (1.0625, 1.15625, 1.25)])
def test_each_publication_after_a_call_is_learned_from_once(until_s):
    """Whenever it is settled that the device rested, also at the very moment of a publication."""
    response = Response()
    for number in range(13):
        watts = 300.0 if number < 9 else 60.0
        response.publish(Published(0.21875 + 0.09375 * number, 1e-4, watts, 0.09375))
    for one_s in until_s:
        response.rest(1.0, one_s, latency_s=0.0, window_s=0.0, period_s=0.09375)
    assert [fall.after_s for fall in response._falls] == [0.0625, 0.15625]


@pytest.mark.parametrize("window_s", [0.03, 0.07, 0.1])
def test_the_window_of_a_power_is_found_out(window_s):
    """What is published after the ends of calls tells how far back it looks, and how late it is."""
    ramp = played(window_s=window_s).ramp
    assert abs(ramp.window.value_s - window_s) <= ramp.window.error_s < 0.1 * window_s
    assert abs(ramp.latency.value_s - 0.01) <= ramp.latency.error_s < 0.006


def test_a_window_longer_than_a_period_is_not_told():
    """Two publications that share half of their window are no two looks at the way down."""
    assert played(window_s=0.15).ramp.window is None


def test_ends_that_tell_nothing_are_left_out():
    """Calls too short for their level to be known, and calls after which the power does not fall, teach nothing."""
    assert played(begin_s=0.15).ramp.latency is None
    # The mean that half of the idle time before is in is not far from the call's own.
    assert played(begin_s=0.15, busy_w=100.0).ramp.latency is None
    assert played(fall=False).ramp.latency is None


@pytest.mark.parametrize("tau_s", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_the_idle_power_is_fitted_to_what_is_surely_idle(tau_s):
    """Publications whose window is past the end give the idle power, fading, and with it the way that others have come."""
    rng = np.random.default_rng(5)
    falls = []
    for after in rng.uniform(0, 0.3, 100):
        begin = max(after - 0.1, 0.0)
        faded = tau_s * (math.exp(-begin / tau_s) - math.exp(-after / tau_s)) / (after - begin)
        part = min(after / 0.1, 1.0)
        falls.append((after, 2e-4, 300 * (1 - part) + part * (70 + 40 * faded), 0.1, 300.0))
    points = points_of(np.array(falls), latency_s=0.0, window_s=0.0, period_s=0.1)
    after = np.array(falls)[:, 0]
    assert points[:, 2] == pytest.approx(np.clip(after / 0.1, 0, 1), abs=0.01)
    # Where a device was seen at rest its power is known; it is half as well known where it is reckoned from that.
    begin = np.maximum(after - 0.1, 0.0)
    idle_w = 70 + 40 * tau_s * (np.exp(-begin / tau_s) - np.exp(-after / tau_s)) / (after - begin)
    seen_w = np.median(idle_w[after >= 0.1 + 0.25 * 0.1])
    assert points[:, 4] == pytest.approx(np.abs(idle_w - seen_w) / 2 / (300 - idle_w), abs=1e-3)
    assert (
        points_of(np.array(falls)[:8] * [0.1, 1, 1, 1, 1], latency_s=0.0, window_s=0.0, period_s=0.1) is None
    )


def test_what_two_hundred_publications_taught_is_enough():
    """Until then a channel is read more often, after that no more: 40 ends show about 100 publications."""
    assert not played(calls=40).sated
    assert played(calls=150).sated


# Listening


def test_listening_leaves_the_pace_of_integration_alone():
    """Readings in between find publications to a millisecond; those that are integrated stay an interval apart."""
    response, updates = Response(), UpdateTimes(0.1, silent=True)
    probe, now_s, integrated = UpdateProbe(updates, response, 0.1), 0.0, []
    for _ in range(400):
        value = 100.0 + 7919 * math.floor((now_s - 0.037) / 0.1) % 101
        if probe.take(Reading(now_s, now_s + 3e-4, Outcome.OK, value)):
            integrated.append(now_s)
        now_s = max(probe.due_s(now_s + 3e-4, 0.05), now_s + 4e-4)
    assert np.diff(integrated) == pytest.approx(0.05, abs=0.001)
    found = list(response._recent)[20:]
    assert len(found) > 60
    for one in found:
        assert abs((one.time_s - 0.037 + 0.05) % 0.1 - 0.05) <= one.half_s + 1e-6
        assert one.half_s < 0.002


def test_a_sensor_that_fails_is_not_asked_more_often():
    """Failing readings come at the interval, and enough listening is enough."""
    response = Response()
    probe = UpdateProbe(UpdateTimes(0.1, silent=True), response, 0.1)
    now_s = 0.0
    for _ in range(20):
        probe.take(Reading(now_s, now_s + 3e-4, Outcome.AGAIN, None))
        due_s = probe.due_s(now_s + 3e-4, 0.05)
        assert due_s >= now_s + 0.01
        now_s = due_s
    response.sated = True
    assert probe.due_s(now_s, 0.05) == pytest.approx(now_s + 0.05, abs=0.06)


# On emulated hardware


def serve(nvml, preset, *, counter=True, calls=60, interval_s=0.05, **sensor):
    """Play calls on one emulated GPU as a sampler would see them; return its trace, the GPU and the calls."""
    clock, choose = EmulatedClock(nvml), random.Random(5)
    gpu = nvml.add(preset, latency_s=3e-4, **sensor)
    if not counter:
        gpu.fault(ENERGY, NOT_SUPPORTED)
    idle_w, most_w = PRESETS[preset]["idle_w"], PRESETS[preset]["max_limit_w"]
    (source,), _ = nvml_sensor.probe({}, clock)
    trace = Trace(source.channels[0], interval_s)

    def go_on(until_s):
        while clock() < until_s:
            trace.take(source.read()[0])
            clock.now_s = min(max(trace.due_s(clock()), clock() + 1e-4), until_s)

    go_on(clock() + 1.0)
    spans = []
    for _ in range(calls):
        begin_s = clock()
        until_s = begin_s + choose.uniform(0.45, 0.8)
        while clock() < until_s:
            gpu.set_power(most_w * 0.6 * choose.gauss(1, 0.03))
            go_on(min(clock() + 0.02, until_s))
        end_s = clock()
        gpu.set_power(1.5 * idle_w)
        gpu.set_power(idle_w, at=end_s + 1e-6, tau_s=0.4)
        go_on(end_s + choose.uniform(0.4, 0.6))
        # As settling does: once everything up to then is surely known.
        trace.note_idle(end_s, clock() - 0.25, end_s)
        spans.append((begin_s, end_s))
    go_on(clock() + 1.0)
    return trace, gpu, spans


@pytest.mark.parametrize(("period_s", "latency_s", "half_s"), [(0.1, 0.015, 0.0029), (0.02, 0.005, 0.0017)])
def test_a_late_counter_is_put_right(nvml, period_s, latency_s, half_s):
    """Once its latency is learned, a counter's curve is where the energy was drawn, and no joule is lost."""
    trace, gpu, spans = serve(nvml, "h100", counter_period_s=period_s, counter_latency_s=latency_s)
    assert abs(trace.learned.latency.value_s - latency_s) <= trace.learned.latency.error_s
    assert trace.learned.latency.error_s == pytest.approx(half_s, rel=0.3)
    times, joules, _ = trace.curve.knots
    assert (np.diff(times) > 0).all()
    truth = np.array([gpu.true_energy_j(times[-60], time) for time in times[-60:]])
    off_j = np.diff(joules[-60:]) - np.diff(truth)
    assert np.abs(off_j).max() < 500 * (trace.learned.latency.error_s + 0.002)
    whole_j = gpu.true_energy_j(times[0] - latency_s, times[-1])
    assert joules[-1] - joules[0] == pytest.approx(whole_j, abs=500 * 0.02)
    begin_s, end_s = (np.array(one) for one in zip(*spans[-10:], strict=True))
    energy_j, _ = energy_between(trace.curve, begin_s, end_s)
    true_j = [gpu.true_energy_j(*span) for span in spans[-10:]]
    assert energy_j.sum() == pytest.approx(sum(true_j), rel=0.05)


def test_a_counter_as_late_as_expected_is_left_so(nvml):
    """What is found is not told from what is expected of the kind, and nothing is changed."""
    trace, _, _ = serve(nvml, "h100")
    assert trace.learned.latency == Estimate(0.004, 0.003)
    found = trace.learned.response.ramp.latency
    assert abs(found.value_s - 0.004) <= found.error_s < 0.005


@pytest.mark.parametrize(
    ("preset", "window_s"), [("a100", 0.018), ("t4", 0.02)], ids=["A100 of 18 ms", "Turing of 20 ms"]
)
def test_a_window_that_is_not_as_documented_is_learned(nvml, preset, window_s):
    """A100 of 18 ms (25 documented), Turing of 20 ms (100): the true window is found and used; joules are conserved."""
    trace, gpu, _ = serve(nvml, preset, counter=False, calls=120, instant_window_s=window_s)
    assert abs(trace.learned.window.value_s - window_s) <= trace.learned.window.error_s
    assert trace.learned.window.error_s == pytest.approx(0.0025, rel=0.3)
    assert trace.curve.seen == pytest.approx(10 * trace.learned.window.value_s)
    assert trace.curve.reach_s == pytest.approx(
        0.1 + trace.learned.window.value_s + trace.learned.latency.error_s
    )
    assert not trace.curve.counted
    times, joules, _ = trace.curve.knots
    assert (np.diff(times) > 0).all()
    assert (np.diff(joules) >= 0).all()
    assert joules[-1] - joules[0] == pytest.approx(gpu.true_energy_j(times[0], times[-1]), rel=0.04)


def test_a_window_as_documented_stays_so(nvml):
    """25 ms are found to be about 25 ms, and are used as documented, without error."""
    trace, _, _ = serve(nvml, "a100", counter=False, calls=120)
    assert trace.learned.window == Estimate(0.025, 0.0)
    assert trace.learned.response.ramp.window.value_s == pytest.approx(0.025, abs=0.004)


def test_an_average_of_a_whole_period_that_is_late_is_put_right(nvml):
    """A power that sees all of the time is a counter in disguise, and its latency is learned like one's."""
    trace, gpu, _ = serve(nvml, "rtx3090", counter=False, instant_latency_s=0.012)
    assert abs(trace.learned.latency.value_s - 0.012) <= trace.learned.latency.error_s
    assert trace.learned.latency.error_s == pytest.approx(0.0026, rel=0.3)
    assert trace.curve.counted
    times, joules, _ = trace.curve.knots
    assert joules[-1] - joules[-200] == pytest.approx(gpu.true_energy_j(times[-200], times[-1]), rel=0.01)


@pytest.mark.parametrize("changes", [{"period_s": 0.001}, {"method": "estimate"}, {"method": "power", "quantity": "power", "window_s": 1.0}])  # fmt: skip
def test_where_nothing_can_be_learned_nothing_is_tried(changes):
    """A counter of a millisecond, an estimate and an average over a second are left at what is documented."""
    fields = {
        "id": "x:0", "kind": "gpu", "method": "counter", "quantity": "energy", "name": "x", "device": "x", "source": "x",
        "period_s": 0.1, **changes,
    }  # fmt: skip
    trace = Trace(Channel(**fields), 0.05)
    assert trace.learned.response is None
    assert trace.conclude() is None
