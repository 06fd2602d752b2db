"""A value speaks for the time that its sensor documents, and no longer; no figure is trusted that physics excludes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import aimeter
from aimeter.sensors import nvml as nvml_sensors
from aimeter.sensors import rapl
from aimeter.sensors.estimate import UNKNOWN, power_w, probe
from aimeter.sensors.powercap import Counter, Powercap
from aimeter.testing import FakeClock
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import (
    ENERGY,
    FIELD_AVERAGE,
    FIELD_INSTANT,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    POWER,
    TIMEOUT,
    FakeNvml,
)
from tests.emulator.nvml import (
    UNKNOWN as UNKNOWN_ERROR,
)

WAYS = {
    "counter": ("h100", ()),
    "instant, 20 ms": ("gtx1080", ()),
    "instant, 25 of 100 ms": ("h100", (ENERGY,)),
    "instant, 100 ms": ("rtx3090", (ENERGY,)),
    "mean over 1 s": ("rtx3090", (ENERGY, FIELD_INSTANT)),
}
LIMITS = (
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementLimit",
)


def machine(nvml, way, **settings):
    """Return a stepped clock, one emulated GPU of 700 W that is read in this way, and a meter of it."""
    preset, unsupported = WAYS[way]
    clock = EmulatedClock(nvml)
    gpu = nvml.add(preset, latency_s=0.0003, max_limit_w=700, limit_w=700, **settings)
    for function in unsupported:
        gpu.fault(function, NOT_SUPPORTED)
    gpu.set_power(10.0)
    return clock, gpu


def meter_of(clock):
    return aimeter.Meter(sensors=nvml_sensors.probe({}, clock)[0], clock=clock, calibration="off")


@pytest.mark.parametrize("stall_s", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("way", WAYS)
def test_a_published_power_speaks_for_its_own_window_only(nvml, way, stall_s):
    """Nobody reads for a while in a call, as a native call holds the GIL; the power rises meanwhile."""
    clock, gpu = machine(nvml, way)
    meter = meter_of(clock)
    with meter.track("warm"):
        clock.sleep(2.0)
    clock.sleep(3.0)
    begin_s = clock()
    with meter.track("x") as call:
        clock.sleep(1.0)
        gpu.set_power(300.0, at=clock() + 0.7 * stall_s)
        clock.now_s += stall_s
        clock.sleep(0.05)
    end_s = clock()
    gpu.set_power(10.0)
    clock.sleep(2.0)
    record = call.record
    assert record.gpu_j == pytest.approx(gpu.true_energy_j(begin_s, end_s), abs=record.error_j)
    if way == "counter":
        assert record.coverage == pytest.approx(1.0)
    else:
        assert 0.0 < record.coverage < 1.0


class Register(Counter):
    """A RAPL register that a function shows."""

    def __init__(self, joules):
        super().__init__(Path("/none"))
        self._joules = joules

    def read_uj(self):
        return int(self._joules() * 1e6)

    def close(self):
        pass


def package(clock, joules, *, wrap_j):
    channel = rapl.channel(
        "cpu", 0, name="package-0", device="x", source="powercap", quantum_j=2**-16, wrap_j=wrap_j
    )
    return aimeter.Meter(
        sensors=[Powercap([(channel, Register(joules))], clock=clock)], clock=clock, calibration="off"
    )


@pytest.mark.parametrize("stopped_s", [30.0, 60.0, 100.0, 200.0, 400.0, 1000.0])
def test_a_counter_that_may_have_wrapped_more_than_once_has_a_gap(stopped_s):
    """400 W wrap a counter of 65.5 kJ every 164 s; a package of up to 1 kW may do so in 66 s."""
    wrap_j = 65_532.610987
    clock = FakeClock()
    began_s = clock()
    meter = package(clock, lambda: (40_000.0 + 400.0 * (clock() - began_s)) % wrap_j, wrap_j=wrap_j)
    with meter.track("x") as call:
        clock.sleep(10.0)
        clock.now_s += stopped_s
        clock.sleep(10.0)
    record = call.record
    read_s = record.duration_s - (stopped_s if stopped_s > 65 else 0.0)
    assert record.cpu_j == pytest.approx(400.0 * read_s, rel=0.05)
    assert record.coverage == pytest.approx(read_s / record.duration_s, abs=0.02)


@pytest.mark.parametrize("catches_up", [True, False])
@pytest.mark.parametrize("still_s", [0.2, 0.5, 1.0, 1.5])
def test_a_counter_that_stands_still_has_to_catch_up(still_s, catches_up):
    """A register that is not renewed for a while: what it makes good is energy, what it does not is unknown."""
    clock = FakeClock()
    began_s = clock()

    def joules():
        now_s = clock() - began_s
        if now_s <= 8.0:
            return 200.0 * now_s
        return 200.0 * (8.0 if now_s <= 8.0 + still_s else now_s - still_s * (not catches_up))

    meter = package(clock, joules, wrap_j=262_143.328850)
    with meter.track("rest"):
        clock.sleep(1.0)
    clock.sleep(3.0)
    with meter.track("x") as call:
        clock.sleep(10.0)
    record = call.record
    assert abs(record.cpu_j - 2000.0) <= record.error_j
    if catches_up:
        assert record.coverage == pytest.approx(1.0)
        assert record.cpu_j == pytest.approx(2000.0, rel=0.01)
    elif still_s > 0.5:  # shorter than that nobody may have looked twice, in the middle of a long call
        assert record.coverage == pytest.approx(1.0 - still_s / 10.0, abs=0.06)


@pytest.mark.parametrize("apart_j", [50.0, 700.0, 148_361.0])
def test_a_register_that_shows_two_counters_is_not_a_meter(apart_j):
    """A virtual machine that moves between sockets: it is given up within some moves, and the row says so."""
    clock = FakeClock()
    began_s = clock()

    def joules():
        moved = int(clock() - began_s) % 7 in {2, 3, 6}
        return (45_766.4 + apart_j * moved + 65.0 * (clock() - began_s)) % 262_143.328850

    meter = package(clock, joules, wrap_j=262_143.328850)
    with meter.track("x") as call:
        clock.sleep(60.0)
    assert call.record.coverage < 0.5
    assert "not one meter" in call.record.meta["aimeter"]["missing"]["cpu:0"]
    with meter.track("later") as later:
        clock.sleep(10.0)
    assert later.record.cpu_j is None


@pytest.mark.parametrize("limit_known", [True, False])
@pytest.mark.parametrize("garbage_w", [4_294_967.295, 12_000.0])
@pytest.mark.parametrize(
    ("unsupported", "garbled"), [((ENERGY, FIELD_INSTANT, FIELD_AVERAGE), POWER), ((ENERGY,), FIELD_INSTANT)]
)
def test_a_power_that_no_device_draws_is_not_energy(nvml, unsupported, garbled, garbage_w, limit_known):
    """One reading is garbage, on a GPU that tells its limit and on one that does not."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add("rtx3090", latency_s=0.0003)
    for function in (*unsupported, *(() if limit_known else LIMITS)):
        gpu.fault(function, NOT_SUPPORTED)
    gpu.set_power(60.0)
    meter = meter_of(clock)
    with meter.track("warm"):
        clock.sleep(2.0)
    clock.sleep(3.0)
    with meter.track("x") as call:
        clock.sleep(5.0)
        gpu.force(garbled, 1e3 * garbage_w, calls=1)
        clock.sleep(5.0)
    clock.sleep(2.0)
    assert call.record.gpu_j == pytest.approx(600.0, rel=0.02)


@pytest.mark.parametrize("readings", [1, 2, 5])
@pytest.mark.parametrize("glitch_s", [-1000.0, -100.0, -1.0, 1.0, 100.0, 1000.0])
def test_cpu_times_that_jump_and_come_back_are_no_work(tmp_path, glitch_s, readings):
    """Torn or wrong sums for some readings: neither the jump nor the way back counts, if it could not be work."""
    clock = FakeClock()
    asked = [0]

    def used():
        asked[0] += 1
        return SimpleNamespace(user=50_000.0 + glitch_s * (20 <= asked[0] < 20 + readings))

    sensors, _ = probe(tmp_path, tmp_path, clock=clock, cpu_times=used, online=4)
    meter = aimeter.Meter(sensors=sensors, clock=clock, calibration="off")
    with meter.track("x") as call:
        clock.sleep(10.0)
    assert asked[0] > 30
    could_be = abs(glitch_s) < 4 * 0.4
    right = pytest.approx(power_w(UNKNOWN, 4, 0.0) * 10.0, abs=call.record.error_j if could_be else 1e-6)
    assert call.record.cpu_j == right


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 0.5),
            st.floats(0.0, 1.0),
            st.sampled_from([0.0, 0.0, 0.0, -5000.0, -500.0, 500.0, 5000.0]),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_estimated_work_is_never_more_than_was_done(steps):
    """Whatever single readings say, the joules lie between those of idle and those of the work that was really done."""
    clock, true_s, shown_s = FakeClock(), [1000.0], [0.0]
    sensors, _ = probe(
        Path("/none"),
        Path("/none"),
        clock=clock,
        cpu_times=lambda: SimpleNamespace(user=true_s[0] + shown_s[0]),
        online=2,
    )
    [first] = sensors[0].read()
    for seconds, busy, glitch_s in steps:
        clock.now_s += seconds
        true_s[0] += 2 * seconds * busy
        shown_s[0] = glitch_s
        [last] = sensors[0].read()
    joules, seconds = last.value - first.value, clock() - 1000.0
    idle_j = power_w(UNKNOWN, 2, 0.0) * seconds
    done_j = (power_w(UNKNOWN, 1, 1.0) - power_w(UNKNOWN, 1, 0.0)) * (true_s[0] - 1000.0)
    assert idle_j - 1e-9 <= joules <= idle_j + done_j + 1e-9


@pytest.mark.parametrize("way", WAYS)
def test_idle_of_a_short_call_lies_between_nothing_and_the_call(nvml, way):
    """Shorter than a window, a call's idle part is still a part of it."""
    clock, gpu = machine(nvml, way)
    meter = meter_of(clock)
    for _ in range(20):
        gpu.set_power(400.0)
        with meter.track("short"):
            clock.sleep(0.01)
        gpu.set_power(10.0)
        clock.sleep(1.3)
    meter.flush()
    told = [record for record in meter.records() if record.idle_j is not None]
    assert len(told) >= 19  # the first one may come before the device was seen at rest
    for record in told:
        assert record.idle_j == pytest.approx(min(10.0 * record.duration_s, record.energy_j), rel=0.2)


FAULTS = {"lost": GPU_IS_LOST, "unknown": UNKNOWN_ERROR, "timeout": TIMEOUT}
METERS = {"counter": ENERGY, "mean over 1 s": POWER}

EVENTS = st.one_of(
    st.tuples(st.just("work"), st.floats(0.3, 3.0), st.floats(50.0, 690.0)),
    st.tuples(st.just("rest"), st.floats(0.05, 3.0), st.just(0.0)),
    st.tuples(st.just("stall"), st.floats(0.15, 5.0), st.floats(50.0, 690.0)),
    st.tuples(st.sampled_from(sorted(FAULTS)), st.floats(0.05, 5.0), st.floats(50.0, 690.0)),
    st.tuples(st.just("garbage"), st.floats(0.3, 2.0), st.sampled_from([0.0, 2.0e6, 4294967295.0, 2.0**63])),
    st.tuples(st.just("frozen"), st.floats(2.5, 5.0), st.floats(50.0, 690.0)),
    st.tuples(st.just("reset"), st.floats(0.3, 2.0), st.floats(50.0, 690.0)),
)


def once_reset(events):
    """Tell whether no counter starts again a moment after it has: that nobody could see."""
    return sum(kind == "reset" for kind, *_ in events) < 2


def disturbed(events):
    """Tell whether anything has happened but work and rest, which alone leave no gap."""
    return any(kind not in {"work", "rest"} for kind, *_ in events)


@settings(max_examples=int(os.environ.get("AIMETER_TEST_EXAMPLES", "1000")))
@example(  # another way of reading begins in the middle of work
    "instant, 100 ms", [("work", 0.515625, 475.0), ("lost", 1.234375, 269.0), ("work", 0.5, 50.0)]
)
@example(  # a publication that nobody could see was dated by half a period wrong
    "instant, 100 ms", [("stall", 0.69140625, 50.0), ("rest", 1.25, 0.0), ("timeout", 0.05078125, 92.0)]
)
@example("instant, 20 ms", [("work", 0.46875, 50.0), ("timeout", 0.0703125, 86.0)])  # most of a short call
@example(  # a link of a chain that is known to be off says nothing against the links after it
    "mean over 1 s", [("rest", 1.0, 0.0), ("rest", 3.0, 0.0), ("work", 1.5, 449.0), ("rest", 0.5, 0.0)]
)
@given(way=st.sampled_from(sorted(WAYS)), events=st.lists(EVENTS, min_size=1, max_size=6).filter(once_reset))
def test_the_truth_lies_inside_the_error_or_coverage_says_why_not(way, events):
    """Stalls, lost and returning devices, garbage, frozen meters, resets: each call holds the truth or says it is not whole."""
    fake = FakeNvml()
    try:
        clock, gpu = machine(fake, way)
        meter = meter_of(clock)
        function = METERS.get(way, FIELD_INSTANT)
        with meter.track("warm"):
            clock.sleep(2.0)
        clock.sleep(3.0)
        calls = []
        for kind, seconds, amount in events:
            begin_s = clock()
            with meter.track(kind) as call:
                happen(kind, seconds, amount, clock, gpu, function)
            calls.append((call, begin_s, clock()))
            gpu.set_power(10.0)
            clock.sleep(0.3)
        clock.sleep(4.0)
        meter.flush()
        for call, begin_s, end_s in calls:
            record = call.record
            if record.gpu_j is None or record.coverage < 0.999:
                assert disturbed(events[: calls.index((call, begin_s, end_s)) + 1]), record
                continue
            off_j = abs(record.gpu_j - gpu.true_energy_j(begin_s, end_s))
            # The bars are of 95 %, and hypothesis looks for the worst case there is: six standard deviations.
            assert off_j <= 3 * record.error_j, record
    finally:
        fake.unplug()


def happen(kind, seconds, amount, clock, gpu, function):
    """Let one event happen in a call that is open."""
    if kind in {"work", "rest", "stall", "frozen", "reset", *FAULTS}:
        gpu.set_power(max(amount, 10.0), at=clock() + (0.5 * seconds if kind == "stall" else 0.0))
    if kind == "stall":
        clock.now_s += seconds
        clock.sleep(0.02)
    elif kind in FAULTS:
        gpu.fault(function, FAULTS[kind])
        clock.sleep(seconds)
        gpu.heal(function)
    elif kind == "garbage":
        gpu.force(function, amount, calls=1)
        clock.sleep(seconds)
    elif kind == "frozen":
        if function == ENERGY:  # a power without noise that stands still may as well be a steady one
            gpu.freeze(function)
        clock.sleep(seconds)
        gpu.heal(function)
    elif kind == "reset":
        clock.sleep(0.5 * seconds)
        if function == ENERGY:
            gpu.reset_counter()
        clock.sleep(0.5 * seconds)
    else:
        clock.sleep(seconds)
