"""From the sensor to the row, on emulated hardware whose energy is known exactly."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest

import aimeter
from aimeter.sensors import nvml as nvml_sensor
from aimeter.sensors.powercap import probe as probe_powercap
from aimeter.testing import FakeClock
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import ENERGY, FIELD_INSTANT, FIELD_MODULE, GPU_IS_LOST, NOT_SUPPORTED, POWER
from tests.emulator.powercap import PowercapTree
from tests.energies import used_part


def metered(nvml, preset="h100", *, environ=None, **settings):
    """One emulated GPU at its idle power, a clock that drives it, and a meter."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add(preset, **{"latency_s": 0.0003, **settings})
    gpu.set_power(70.0)
    sensors, _ = nvml_sensor.probe(environ or {}, clock)
    return clock, gpu, aimeter.Meter(sensors=sensors, clock=clock, region="FR")


def settle_in(clock, meter):
    """One call and a pause, from which the idle power is learned."""
    with meter.track("warm-up"):
        clock.sleep(0.5)
    clock.sleep(3.0)


def serve(clock, gpu, meter, *, calls, seed, longest_s=3.0):
    """Calls that cause their own load: a spike, a plateau with noise, an afterglow."""
    choose = random.Random(seed)
    made = []
    for _ in range(calls):
        left = math.exp(choose.uniform(math.log(0.01), math.log(longest_s)))
        plateau = choose.uniform(200, 400)
        with meter.track("serve") as call:
            gpu.set_power(choose.uniform(450, 690))
            spike = min(0.1 * left, 0.05)
            clock.sleep(spike)
            left -= spike
            while left > 0:
                gpu.set_power(plateau * choose.gauss(1, 0.03))
                clock.sleep(min(left, 0.02))
                left -= 0.02
        gpu.set_power(110.0)
        gpu.set_power(70.0, at=clock() + 1e-6, tau_s=0.4)
        clock.sleep(choose.uniform(0.02, 0.3))
        made.append(call)
    meter.flush()
    return made


PROFILES = {
    "h100": {},
    "h100, 20 ms counter": {"counter_period_s": 0.02},
    "h100, gain 0.955": {"counter_gain": 0.955},
    "h100, slow readings": {"latency_s": 0.01},
    "h100, no counter": {},
    "h100, average only": {},
    "rtx3090": {"max_limit_w": 700, "limit_w": 700},
    "v100, no counter": {"max_limit_w": 700, "limit_w": 700},
}

USED = {
    "h100": 0.97,
    "h100, 20 ms counter": 0.77,
    "h100, gain 0.955": 0.97,
    "h100, slow readings": 0.63,
    "h100, no counter": 0.50,
    "h100, average only": 0.39,
    "rtx3090": 1.06,
    "v100, no counter": 0.31,
}
"""Which part of its bar the 95th of a hundred calls uses. What is known of a counter's steps makes it nearly all; where a
sensor looks at a part of the time, calls that keep step with it would use more than these do."""


def board(nvml, profile):
    """One emulated GPU of a profile, its clock, and a meter that has seen it idle."""
    clock, gpu, meter = metered(nvml, profile.split(",")[0], **PROFILES[profile])
    if "no counter" in profile or "average" in profile:
        gpu.fault(ENERGY, NOT_SUPPORTED)
        if "average" in profile:
            gpu.fault(FIELD_INSTANT, NOT_SUPPORTED)
        sensors, _ = nvml_sensor.probe({}, clock)
        meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    settle_in(clock, meter)
    return clock, gpu, meter


def used(calls, truths_j):
    """Return which part of its bar, without calibration, the 95th of a hundred calls is off by."""
    errors = [call.energy_j - truth_j for call, truth_j in zip(calls, truths_j, strict=True)]
    return used_part(errors, [call.resolution_j for call in calls])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_truth_lies_within_the_error(nvml, profile):
    """Honesty: over a serving load the true joules lie within error_j in at least 95 % of the calls, and bars are no
    wider than that takes."""
    clock, gpu, meter = board(nvml, profile)
    calls = serve(clock, gpu, meter, calls=80, seed=1)
    truths = [gpu.true_energy_j(c.start_s, c.end_s) for c in calls]
    inside = [abs(c.energy_j - truth) <= c.error_j for c, truth in zip(calls, truths, strict=True)]
    assert sum(inside) >= 0.95 * len(inside) - 1
    gain = PROFILES[profile].get("counter_gain", 1.0)
    assert used(calls, [gain * truth for truth in truths]) == pytest.approx(USED[profile], rel=0.3)
    assert all(call.record.coverage == pytest.approx(1) for call in calls)
    expected = "power" if "no counter" in profile or "average" in profile else "counter"
    assert {call.record.gpu_method for call in calls} == {expected}


def overlap(clock, gpu, meter, *, calls, seed):
    """Up to four calls at once, each of which changes the power; return them and what each has of it by the rule."""
    choose, made, left, edges = random.Random(seed), [], [], []
    while len(made) < calls or left:
        for call, _ in [one for one in left if one[1] <= clock()]:
            call.finish("ok", None)
            edges.append((call.end_s, call))
        left = [one for one in left if not one[0].ended]
        if len(made) < calls and (not left or (len(left) < 4 and choose.random() < 0.5)):
            call = meter.track("call")
            call.__enter__()
            call._parent = None
            made.append(call)
            edges.append((call.start_s, call))
            left.append((call, clock() + choose.uniform(0.02, 0.6)))
        gpu.set_power(min(70 + len(left) * choose.uniform(80, 200), 690))
        clock.sleep(choose.uniform(0.003, 0.06) if left else choose.uniform(0.05, 0.4))
    meter.flush()
    shares, sharers = dict.fromkeys(made, 0.0), set()
    for (since_s, call), (until_s, _) in pairwise([*edges, (clock(), None)]):
        sharers ^= {call}
        for one in sharers:
            shares[one] += gpu.true_energy_j(since_s, until_s) / len(sharers)
    return made, [shares[call] for call in made]


@pytest.mark.parametrize(
    ("profile", "part"), [("h100", 0.44), ("h100, 20 ms counter", 0.49), ("h100, no counter", 0.29)]
)
def test_shares_of_calls_that_overlap_lie_within_the_error(nvml, profile, part):
    """Whoever begins or ends beside a call: the 95th of a hundred uses about half of its bar to hold its true share."""
    clock, gpu, meter = board(nvml, profile)
    calls, truths = overlap(clock, gpu, meter, calls=100, seed=1)
    assert used(calls, truths) == pytest.approx(part, rel=0.3)


def test_long_calls_are_right_to_a_percent_or_two(nvml):
    """Calls of a second and more agree with the exact integral, and shorter ones as well as a step of 0.1 s lets them."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    off = {0.03: [], 0.1: [], 0.3: [], 1.0: [], 9.0: []}
    for call in serve(clock, gpu, meter, calls=60, seed=2):
        truth = gpu.true_energy_j(call.start_s, call.end_s)
        off[min(longest_s for longest_s in off if call.duration_s < longest_s)].append(
            abs(call.energy_j / truth - 1)
        )
    assert min(map(len, off.values())) >= 10
    assert max(off[9.0]) < 0.01
    medians = [statistics.median(some) for some in off.values()]
    assert all(one < most for one, most in zip(medians, (0.07, 0.015, 0.004, 0.002, 0.002), strict=True))


def test_shares_over_a_run_agree_with_the_runs_own_counter(nvml):
    """All calls and what is nobody's add up to the counter's difference within its step."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    serve(clock, gpu, meter, calls=60, seed=3)
    clock.sleep(1.0)
    with meter.track("last"):
        pass
    rows = meter.records()
    total = sum(row.self_j for row in rows) + meter.unattributed_j()["gpu:0"]
    # The first edge is the start of the warm-up call, at rest; a step of 0.1 s may be open at either end.
    assert total == pytest.approx(gpu.true_energy_j(1000.0, clock()), abs=70 * 0.2)


def test_a_30_ms_call_in_a_100_ms_step(nvml):
    """30 ms at 300 W: 9 J, neither 0 nor a whole step, and the truth within the error."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    with meter.track("short") as call:
        gpu.set_power(300.0)
        clock.sleep(0.03)
    gpu.set_power(70.0)
    assert call.energy_j == pytest.approx(9.0, rel=0.02)
    assert abs(call.energy_j - 9.0) <= call.resolution_j


@pytest.mark.parametrize(("meter_of", "off_j"), [(FIELD_INSTANT, 10.0), (POWER, 18.0)])
def test_a_jump_of_power_is_found_where_it_was(nvml, meter_of, off_j):
    """60 W for 4.9 s, then 300 W: 294 J until the jump, whether the power is instant or a 1 s average."""
    clock, gpu, _ = metered(nvml, "rtx3090")
    gpu.fault(ENERGY, NOT_SUPPORTED)
    if meter_of == POWER:
        gpu.fault(FIELD_INSTANT, NOT_SUPPORTED)
    sensors, _ = nvml_sensor.probe({}, clock)
    gpu.set_power(60.0)
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    clock.sleep(2.0)
    with meter.track("flat") as flat:
        clock.sleep(4.9)
    with meter.track("high") as high:
        gpu.set_power(300.0)
        clock.sleep(1.0)
    gpu.set_power(60.0)
    clock.sleep(2.0)
    assert abs(flat.energy_j - 294.0) <= flat.resolution_j
    assert flat.energy_j == pytest.approx(294.0, abs=off_j)
    assert high.energy_j == pytest.approx(300.0, abs=off_j)
    assert abs(high.energy_j - 300.0) <= high.resolution_j


def test_b4_the_edges_of_a_power_only_call(nvml):
    """A call with hardly a sample in it, and edges between samples, still have a value and an error."""
    clock, gpu, _ = metered(nvml, "v100")
    gpu.fault(ENERGY, NOT_SUPPORTED)
    sensors, _ = nvml_sensor.probe({}, clock)
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    settle_in(clock, meter)
    for seconds in (0.001, 0.01, 0.05, 0.123):
        with meter.track("short") as call:
            clock.sleep(seconds)
        truth = gpu.true_energy_j(call.start_s, call.end_s)
        assert call.energy_j == pytest.approx(truth, rel=0.05)
        clock.sleep(0.5)


def test_equal_calls_are_equal_within_the_error(nvml):
    """20 equal calls of 20 ms are equal within the error that their rows state."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    calls = []
    for _ in range(20):
        with meter.track("equal") as call:
            gpu.set_power(300.0)
            clock.sleep(0.02)
        gpu.set_power(70.0)
        clock.sleep(0.5)
        calls.append(call)
    assert all(abs(call.energy_j - 6.0) <= call.error_j for call in calls)
    assert sum(call.energy_j for call in calls) == pytest.approx(120.0, rel=0.02)


def test_the_first_call_costs_what_it_costs(nvml):
    """The first call is not charged for setting the meter up."""
    clock, gpu, meter = metered(nvml)
    with meter.track("first") as first:
        clock.sleep(0.2)
    assert first.energy_j == pytest.approx(14.0, rel=0.05)
    assert abs(first.energy_j - gpu.true_energy_j(first.start_s, first.end_s)) <= first.error_j


def test_figures_are_of_the_call_and_not_of_the_run(nvml):
    """Mean power over a call is that call's, whatever came before."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    for watts in (100.0, 400.0, 200.0):
        gpu.set_power(watts)
        clock.sleep(0.5)
        with meter.track("steady") as call:
            clock.sleep(2.0)
        assert call.energy_j / call.duration_s == pytest.approx(watts, rel=0.02)


def test_an_implausible_power_is_flagged(nvml):
    """A call whose mean power no such device can draw is kept, and flagged in its row."""
    clock, gpu, meter = metered(nvml, counter_gain=2.0)
    settle_in(clock, meter)
    gpu.set_power(600.0)
    with meter.track("hot") as hot:
        clock.sleep(2.0)
    gpu.set_power(70.0)
    clock.sleep(1.0)
    with meter.track("usual") as usual:
        clock.sleep(2.0)
    assert "700 W limit" in hot.record.meta["aimeter"]["implausible"]["gpu:0"]
    assert "implausible" not in usual.record.meta["aimeter"]


def test_a_gpu_lost_in_mid_call_is_admitted(nvml, caplog):
    """A GPU that falls off the bus: the call goes on, coverage says how far the row can be trusted."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    with meter.track("unlucky") as call:
        clock.sleep(1.0)
        for function in (ENERGY, FIELD_INSTANT, FIELD_MODULE, POWER):
            gpu.fault(function, GPU_IS_LOST)
        clock.sleep(1.0)
    row = call.record
    assert row.coverage == pytest.approx(0.5, abs=0.08)
    assert row.energy_j == pytest.approx(70.0, rel=0.15)
    assert abs(row.energy_j - 140.0) <= row.error_j
    assert "gpu:0" in row.meta["aimeter"]["missing"]
    with meter.track("after") as after:
        clock.sleep(1.0)
    assert after.gpu_j is None
    assert after.record.gpu_method == "none"
    assert len([r for r in caplog.records if "gpu:0" in r.message]) == 1


def test_a_counter_that_stops_falls_back_to_power(nvml, caplog):
    """A counter that freezes: the instant power takes over, and the rows say power."""
    clock, gpu, meter = metered(nvml)
    settle_in(clock, meter)
    gpu.freeze(ENERGY)
    with meter.track("during") as call:
        clock.sleep(5.0)
    during = call.record
    with meter.track("after") as after:
        clock.sleep(2.0)
    assert during.gpu_method == "power"
    assert 0.5 < during.coverage < 0.7
    assert abs(during.energy_j - 350.0) <= during.error_j
    assert after.record.gpu_method == "power"
    assert after.gpu_j == pytest.approx(140.0, rel=0.03)
    assert any("is used instead" in r.message for r in caplog.records)


def test_two_gpus_one_without_a_meter(nvml):
    """A GPU that answers no query does not stop the other, and is not counted as 0."""
    clock = EmulatedClock(nvml)
    good, bad = nvml.add("h100"), nvml.add("h100")
    good.set_power(100.0)
    bad.set_power(100.0)
    for name in (ENERGY, FIELD_INSTANT, FIELD_MODULE, POWER):
        bad.fault(name, NOT_SUPPORTED)
    sensors, findings = nvml_sensor.probe({}, clock)
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert call.gpu_j == pytest.approx(100.0, rel=0.05)
    assert call.record.devices.split(":")[:2] == ["gpu", "0"]
    assert [f.status for f in findings if "gpu:1" in f.subject] != ["used"]


def test_a_mig_instance_is_its_whole_device_and_says_so(nvml):
    """An instance has no energy of its own: the parent's is reported, marked as shared."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add("a100")
    gpu.set_power(200.0)
    instance = gpu.add_mig()
    sensors, _ = nvml_sensor.probe({"CUDA_VISIBLE_DEVICES": instance}, clock)
    meter = aimeter.Meter(sensors=sensors, clock=clock, region="FR")
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert call.gpu_j == pytest.approx(200.0, rel=0.05)
    assert call.record.devices.endswith("~")


# RAPL


@pytest.fixture
def tree(tmp_path):
    return PowercapTree(tmp_path)


class TreeClock(FakeClock):
    """A clock that moves the powercap tree along."""

    def __init__(self, tree, start_s=100.0):
        self._tree = tree
        super().__init__(start_s)

    @property
    def now_s(self):
        return self._now

    @now_s.setter
    def now_s(self, seconds):
        self._now = seconds
        self._tree.time = seconds


def rapl(tree):
    clock = TreeClock(tree)

    def sleep(seconds):
        clock.now_s += seconds

    sensors, findings = probe_powercap(tree.root, clock, sleep)
    return clock, aimeter.Meter(sensors=sensors, clock=clock, region="FR"), findings


def test_rapl_gives_the_counters_own_difference(tree):
    """A call's CPU joules are those of the counter, package and DRAM once each."""
    package = tree.zone("package-0", watts=40.0)
    dram = tree.zone("dram", watts=5.0, parent=package)
    clock, meter, _ = rapl(tree)
    with meter.track("x") as call:
        clock.sleep(2.0)
        package.set_power(80.0)
        clock.sleep(1.0)
    assert call.cpu_j == pytest.approx(package.true_energy_j(call.start_s, call.end_s), rel=0.005)
    assert call.dram_j == pytest.approx(dram.true_energy_j(call.start_s, call.end_s), rel=0.005)
    assert call.energy_j == pytest.approx(call.cpu_j + call.dram_j)
    assert (call.record.cpu_method, call.record.dram_method) == ("counter", "counter")


def test_a_rapl_counter_wraps_in_mid_call(tree):
    """A call that lasts across several wraps of the counter has all its joules."""
    package = tree.zone("package-0", watts=100.0, start_j=65_500.0, unit_j=2**-16)
    clock, meter, _ = rapl(tree)
    with meter.track("long") as call:
        for _ in range(30):
            clock.sleep(1.0)
    assert call.cpu_j == pytest.approx(package.true_energy_j(call.start_s, call.end_s), rel=0.005)


def test_short_calls_on_rapl_lie_within_the_error(tree):
    """Calls far shorter than the sampling interval are told from idle, within the stated error."""
    package = tree.zone("package-0", watts=20.0)
    clock, meter, _ = rapl(tree)
    settle_in(clock, meter)
    choose = random.Random(5)
    bars = []
    for _ in range(60):
        with meter.track("short") as call:
            package.set_power(choose.uniform(60, 120))
            clock.sleep(choose.uniform(0.005, 0.2))
        package.set_power(20.0)
        clock.sleep(choose.uniform(0.05, 0.4))
        truth = package.true_energy_j(call.start_s, call.end_s)
        assert abs(call.energy_j - truth) <= call.resolution_j
        bars.append(call.resolution_j)
    # Renewed every millisecond, read at any moment of one: at rest that is all that is open at either end.
    assert statistics.median(bars) == pytest.approx(20.0 * 1.05e-3 / 2 * math.sqrt(2), rel=0.05)
