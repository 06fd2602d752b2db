"""Bars of rows from both sides: looks, steps and powers are known, so how wrong a row may be is reckoned by hand."""

from __future__ import annotations

import math

import pytest

import aimeter
from aimeter._curve.health import DEAD_AFTER_S
from aimeter.sensors.base import Outcome
from aimeter.testing import FakeClock, FakeSensor
from tests.fakes import Looked

IDLE_W, LOAD_W = 60.0, 300.0
NEVER_S = 60.0


class Bench:
    """A meter that looks only when told to, at devices that draw 60 W, and 300 W when told to."""

    def __init__(self, *devices, idle_w=IDLE_W, load_w=LOAD_W):
        self.clock = FakeClock(1.0)
        self.idle_w, self.load_w = idle_w, load_w
        self.loads, self.running = [], []
        self.sensors = [
            Looked(self.clock, 0.0, energy_j=self.drawn_j, **device) for device in devices or [{}]
        ]
        self.meter = aimeter.Meter(
            sensors=self.sensors, clock=self.clock, region="FR", calibration="off", interval_s=NEVER_S
        )

    def drawn_j(self, begin_s, end_s):
        loaded_s = sum(max(0.0, min(end_s, end) - max(begin_s, begin)) for begin, end in self.loads)
        return self.idle_w * (end_s - begin_s) + (self.load_w - self.idle_w) * loaded_s

    def look(self):
        self.meter.sampler.refresh(0)

    def rest(self, seconds):
        """Let time pass, with a look at its end."""
        self.clock.sleep(seconds)
        self.look()

    def begin(self, **settings):
        """Begin a call beside those that are open."""
        call = self.meter.track("call", **settings)
        call.__enter__()
        call._parent = None
        if not self.loads or self.loads[-1][1] < math.inf:
            self.loads.append((self.clock(), math.inf))
        self.running.append(call)
        return call

    def end(self, call):
        call.finish("ok", None)
        self.running.remove(call)
        if not self.running:
            self.loads[-1] = (self.loads[-1][0], self.clock())

    def learn_idle(self, pauses=12):
        """Show the idle power in so many pauses between calls."""
        for _ in range(pauses):
            call = self.begin()
            self.clock.sleep(0.2)
            self.end(call)
            self.rest(0.05)
            self.rest(0.15)

    def rows(self):
        """Return the rows of all calls so far, by call."""
        self.rest(0.1)
        self.rest(0.1)
        self.meter.flush()
        return {row.call_id: row for row in self.meter.records()}

    def bar(self, *calls):
        rows = self.rows()
        found = [rows[call.call_id].resolution_j for call in calls]
        return found if len(found) > 1 else found[0]


# One call


@pytest.mark.parametrize(("pauses", "spread"), [(6, 0.2), (12, 0.0004)])
def test_a_call_between_two_looks_is_as_wrong_as_the_idle_power(pauses, spread):
    """20 ms before it, 30 ms after it: 3 sigma, a fifth of the idle power until eight pauses were seen, then 0.04 %."""
    bench = Bench()
    bench.learn_idle(pauses)
    bench.rest(0.1)
    bench.clock.sleep(0.02)
    call = bench.begin()
    bench.clock.sleep(0.04)
    bench.end(call)
    bench.rest(0.03)
    half_w = 3 * spread * IDLE_W
    assert bench.bar(call) == pytest.approx(half_w * math.hypot(0.02, 0.03), rel=1e-6)
    assert bench.rows()[call.call_id].energy_j == pytest.approx(LOAD_W * 0.04)


ROUNDED_J, LOOK_S, RENEWED_S = 0.3, 2e-3, 1e-3
ROUNDED = {"quantum_j": ROUNDED_J}
RENEWED = {"period_s": RENEWED_S, "max_power_w": LOAD_W}
LOOKED = {"look_s": LOOK_S, "max_power_w": LOAD_W}
HALF_S = 1.05 * RENEWED_S / 2
"""Half of what is open of when a value was renewed that was not there a look before."""

nearly = 5e-3
"""What the idle power, known to 0.04 %, adds to all."""


@pytest.mark.parametrize(("device", "end_j"), [(ROUNDED, ROUNDED_J), (RENEWED, IDLE_W * HALF_S)])
def test_a_call_is_as_wrong_as_the_knots_beside_it(device, end_j):
    """A counter that is rounded, or renewed between two times: its two ends by themselves."""
    bench = Bench(device)
    bench.learn_idle()
    bench.rest(0.1)
    bench.clock.sleep(5e-3)
    call = bench.begin()
    bench.clock.sleep(0.04)
    bench.end(call)
    bench.rest(5e-3)
    assert bench.bar(call) == pytest.approx(end_j * math.sqrt(2), rel=nearly)


def test_a_look_that_takes_a_while_is_off_by_the_same_at_both_ends():
    """From rest to rest it makes no difference when in a look its value is of."""
    bench = Bench({"look_s": LOOK_S})
    bench.learn_idle()
    bench.rest(0.1)
    bench.clock.sleep(0.01)
    call = bench.begin()
    bench.clock.sleep(0.04)
    bench.end(call)
    bench.rest(0.01)
    assert bench.bar(call) == pytest.approx(3 * 0.0004 * IDLE_W * 0.011 * math.sqrt(2), rel=0.02)


def test_a_first_call_is_as_wrong_as_its_knots_allow():
    """Before the idle power is known: between knots that are off by half a look of their power, and by the rounding."""
    bench = Bench({"look_s": LOOK_S, "quantum_j": ROUNDED_J, "max_power_w": 700.0})
    bench.rest(1.0)
    bench.rest(0.2)
    bench.clock.sleep(0.1)
    call = bench.begin()
    bench.clock.sleep(0.1)
    bench.rest(0.0)
    bench.clock.sleep(0.3)
    bench.end(call)
    bench.rest(0.1)
    bench.rest(0.2)
    shift_s = LOOK_S / 2
    # Knots at the middles of looks, each with the mean power before it, or that before the one before if it is more.
    step_s = 0.2 + LOOK_S
    first_w = (IDLE_W * (0.1 + LOOK_S) + LOAD_W * 0.1) / step_s
    second_s = 0.4 + LOOK_S
    second_w = (LOAD_W * (0.3 + LOOK_S) + IDLE_W * 0.1) / second_s
    quiet_j, first_j, second_j = (
        shift_s * watts + ROUNDED_J for watts in (IDLE_W, first_w, max(first_w, second_w))
    )
    begin_part = (0.1 + shift_s) / step_s
    step_j = first_w * step_s
    begin_j = step_j * begin_part
    at_begin = max(begin_j + quiet_j, min(step_j + first_j, quiet_j + 700.0 * (0.1 + shift_s)) - begin_j)
    left_j = second_w * (0.1 + shift_s)
    whole_j = second_w * second_s
    least_j = max(-first_j, whole_j - second_j - 700.0 * (0.1 + shift_s))
    at_end = max(whole_j - left_j - least_j, left_j + second_j)
    assert bench.bar(call) == pytest.approx(math.hypot(at_begin, at_end), rel=1e-6)


# Calls beside others


class Apart:
    """What happens in the middle between two looks that are 0.1 s apart, more than 1 s from one to the next."""

    def __init__(self, bench):
        self.bench = bench
        bench.learn_idle()

    def __enter__(self):
        self.bench.rest(0.5)
        self.bench.clock.sleep(0.05)

    def __exit__(self, *_):
        self.bench.rest(0.05)
        self.bench.rest(0.5)


def two_that_overlap(bench):
    """Begin one call, then another, end the one, then the other; return both."""
    apart = Apart(bench)
    with apart:
        first = bench.begin()
    with apart:
        second = bench.begin()
    with apart:
        bench.end(first)
    with apart:
        bench.end(second)
    return first, second


def test_knots_that_are_off_by_themselves_count_for_each_of_them():
    """A counter that is renewed every millisecond: in the middle between two knots at work, each is off by half of itself."""
    bench = Bench(RENEWED)
    first, second = two_that_overlap(bench)
    rest_j, work_j = IDLE_W * HALF_S, LOAD_W * HALF_S * math.hypot(0.5, 0.5)
    expected = math.sqrt(rest_j**2 + (work_j / 2) ** 2 + (work_j / 2) ** 2)
    assert bench.bar(first, second) == pytest.approx([expected] * 2, rel=2 * nearly)


def test_knots_that_are_off_alike_cancel_as_far_as_powers_and_shares_do():
    """A look of 2 ms: rest at one end, half of the work at the other; and half of what the other's end is off by."""
    bench = Bench(LOOKED)
    first, second = two_that_overlap(bench)
    shift_s = LOOK_S / 2
    ends_j = (LOAD_W / 2 - IDLE_W) * shift_s
    expected = math.hypot(ends_j, LOAD_W * shift_s / 2)
    assert bench.bar(first, second) == pytest.approx([expected] * 2, rel=2 * nearly)


def test_whoever_has_nearly_all_loses_little_to_others():
    """A call that shares for 1 s of 16 has 97 % of the device: three tenths of its error by others count, squared."""
    bench = Bench(ROUNDED)
    bench.learn_idle()
    bench.rest(1.0)
    long = bench.begin()
    bench.rest(7.5)
    short = bench.begin()
    bench.rest(1.0)
    bench.end(short)
    bench.rest(7.5)
    bench.end(long)
    alone = 15.5 / 16
    by_others = 10 * (1 - alone) * 2 * (1 - 1 / 2) ** 2
    expected = [ROUNDED_J * math.sqrt(2 + by_others), ROUNDED_J * math.sqrt(2 / 4)]
    assert bench.bar(long, short) == pytest.approx(expected, rel=nearly)


# Several devices


def test_devices_are_off_independently_but_for_what_their_calibration_shares():
    """Two GPUs of one kind of meter, wrong alike, and a CPU: knots and kinds in quadrature, the GPUs' gains plainly."""
    devices = [
        {"id": "gpu:0", "quantum_j": 0.3, "relative_error": 0.05},
        {"id": "gpu:1", "quantum_j": 0.4, "relative_error": 0.04},
        {"id": "cpu:0", "quantum_j": 1.2, "relative_error": 0.1},
    ]
    bench = Bench(*devices)
    bench.learn_idle()
    bench.rest(1.0)
    call = bench.begin()
    bench.rest(1.0)
    bench.end(call)
    resolution_j = math.hypot(0.3, 0.4, 1.2) * math.sqrt(2)
    row = bench.rows()[call.call_id]
    assert row.resolution_j == pytest.approx(resolution_j, rel=nearly)
    gpus_j, cpu_j = (0.05 + 0.04) * LOAD_W, 0.1 * LOAD_W
    assert row.error_j == pytest.approx(math.hypot(resolution_j, gpus_j, cpu_j), rel=1e-3)


def test_devices_that_can_tell_little_of_a_call_are_off_alike():
    """10 ms of 3 J, known to 0.42 and 0.57 J by two devices: they add up, and what a third knows well is independent."""
    devices = [{"id": f"gpu:{n}", "quantum_j": quantum_j} for n, quantum_j in enumerate((0.3, 0.4, 0.1))]
    bench = Bench(*devices)
    bench.learn_idle()
    bench.rest(1.0)
    call = bench.begin()
    bench.rest(0.01)
    bench.end(call)
    assert bench.bar(call) == pytest.approx(math.hypot(0.3 + 0.4, 0.1) * math.sqrt(2), rel=nearly)


# Devices that go and come


@pytest.mark.parametrize("ends", ["while it is away", "after it came back"])
def test_a_device_that_goes_away_leaves_open_what_it_drew_last(ends):
    """Of what nobody saw the row has nothing, and for its error the power last seen, times the time."""
    bench = Bench(ROUNDED)
    bench.learn_idle()
    bench.rest(1.0)
    call = bench.begin()
    bench.rest(1.0)
    bench.sensors[0].fault = Outcome.AGAIN
    for _ in range(5):
        bench.rest(0.5)
    last_w, away_s, seen_j = LOAD_W, 2.5, LOAD_W * 1.0
    if ends == "after it came back":
        bench.sensors[0].fault = None
        bench.look()
        bench.rest(0.5)
        seen_j += LOAD_W * 0.5
    bench.end(call)
    row = bench.rows()[call.call_id]
    assert row.coverage == pytest.approx(1 - away_s / call.duration_s)
    assert row.energy_j == pytest.approx(seen_j)
    knots_j = ROUNDED_J * math.sqrt(2)
    assert row.resolution_j == pytest.approx(knots_j + away_s * last_w, rel=1e-6)


def test_a_device_that_comes_back_at_work_may_have_been_at_work():
    """It went away at rest, and a call began meanwhile: the higher of the powers around what nobody saw."""
    bench = Bench(ROUNDED)
    bench.learn_idle()
    bench.rest(1.0)
    bench.sensors[0].fault = Outcome.AGAIN
    for _ in range(5):
        bench.rest(0.5)
    call = bench.begin()
    bench.rest(0.5)
    bench.sensors[0].fault = None
    bench.look()
    bench.rest(0.5)
    bench.end(call)
    row = bench.rows()[call.call_id]
    assert row.coverage == pytest.approx(0.5)
    assert row.energy_j == pytest.approx(LOAD_W * 0.5)
    knots_j = ROUNDED_J * math.sqrt(2)
    assert row.resolution_j == pytest.approx(knots_j + 0.5 * LOAD_W, rel=1e-6)


@pytest.mark.parametrize(("window_s", "away_s"), [(0.025, 1.0), (0.1, 1.0), (0.1, 3.0)])
def test_a_power_that_goes_and_comes_may_have_been_anything(window_s, away_s):
    """Not read for a second, 300 W are guessed, and it may have been 700; away for longer, it is a device that was away."""
    clock, loads = FakeClock(1.0), []

    def drawn_j(begin_s, end_s):
        loaded_s = sum(max(0.0, min(end_s, end) - max(begin_s, begin)) for begin, end in loads)
        return IDLE_W * (end_s - begin_s) + (LOAD_W - IDLE_W) * loaded_s

    limit_w, period_s = 700.0, 0.1
    sensor = FakeSensor(
        clock,
        energy_j=drawn_j,
        quantity="power",
        period_s=period_s,
        window_s=window_s,
        max_power_w=limit_w,
    )
    meter = aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off")
    for seconds, away in [*[(0.5, 0.0)] * 12, (4.0, away_s)]:
        loads.append((clock(), clock() + seconds + away))
        with meter.track("call") as call:
            clock.sleep(seconds / 2)
            if away:
                sensor.fault = Outcome.AGAIN
                clock.sleep(away)
                sensor.fault = None
            clock.sleep(seconds / 2)
        clock.sleep(1.0)
    clock.sleep(1.0)
    row = call.record
    missing_s = (1 - row.coverage) * row.duration_s
    assert missing_s == pytest.approx(away_s, abs=1.1 * period_s + window_s)
    ends_j = (LOAD_W - IDLE_W) * (period_s + window_s) * math.sqrt(2) if window_s < period_s else 0.0
    guess_j = (limit_w - LOAD_W) * missing_s if away_s < DEAD_AFTER_S else 0.0
    assert row.resolution_j == pytest.approx(math.hypot(ends_j, guess_j) + LOAD_W * missing_s, rel=0.01)
    assert abs(row.energy_j - LOAD_W * row.duration_s) <= row.resolution_j


def test_an_end_that_is_told_late_is_settled_late():
    """A thread was kept from the queue: what was drawn until then is on the wrong side, and all of it in the error."""
    bench = Bench(ROUNDED)
    bench.learn_idle()
    bench.rest(1.0)
    call, kept = bench.begin(), []
    bench.rest(1.0)
    put, call._put = call._put, kept.append
    bench.end(call)
    bench.rest(1.0)
    put(kept.pop())
    row = bench.rows()[call.call_id]
    off_j = row.energy_j - LOAD_W * 1.0
    assert off_j == pytest.approx(IDLE_W * 1.0, rel=0.11)
    assert row.resolution_j == pytest.approx(ROUNDED_J * math.sqrt(2) + off_j, rel=1e-6)
