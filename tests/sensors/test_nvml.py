"""The NVML sensor, on emulated GPUs behind the real pynvml, against the exact integral of their power."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pynvml
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aimeter
from aimeter.sensors.base import Outcome, Sensor
from aimeter.sensors.discover import discover
from aimeter.sensors.nvml import NvmlGpu, driver_version, probe
from aimeter.sensors.nvml_gpu import timing
from aimeter.sensors.visible import Gpu
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import (
    DRIVER_NOT_LOADED,
    ENERGY,
    FIELD_AVERAGE,
    FIELD_INSTANT,
    FUNCTION_NOT_FOUND,
    GPU_IS_LOST,
    LIB_RM_VERSION_MISMATCH,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    NOT_SUPPORTED,
    POWER,
    RESET_REQUIRED,
    TIMEOUT,
    UNKNOWN,
)

STEP_J = 0.001


@pytest.fixture
def rig(nvml):
    """An emulated NVML whose clock stands at 100 s, and which closes the sensors it gave."""
    opened = []
    nvml.time = 100.0

    def look(**environ):
        sensors, findings = probe(environ, clock=lambda: nvml.time)
        opened.extend(sensors)
        return sensors, findings

    nvml.look = look
    yield nvml
    for sensor in opened:
        sensor.close()
    assert nvml.references == 0


def read(sensor):
    (reading,) = sensor.read()
    return reading


def finding_of(findings, subject):
    (found,) = (finding for finding in findings if finding.subject.startswith(subject))
    return found


# What is measured


def test_energy_agrees_with_the_exact_integral(rig):
    """A difference of two counter readings is the true energy between the two steps they show."""
    gpu = rig.add("a100")
    gpu.play([(0.317, 91.0), (0.05, 384.0), (1.2, 207.5), (0.4, 60.0)], start=100.2)
    (sensor,), _ = rig.look()
    first = read(sensor).value
    for t in (100.25, 100.5, 101.0, 102.3):
        rig.time = t
        reading = read(sensor)
        assert reading.outcome is Outcome.OK
        published = [100.013 + 0.1 * k for k in range(-2, 40)]
        start, end = (max(p for p in published if p <= at) for at in (100.0, t))
        assert reading.value - first == pytest.approx(
            gpu.true_energy_j(start - 0.004, end - 0.004), abs=2 * STEP_J
        )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(1, 400)), min_size=1, max_size=10),
    st.lists(st.floats(0.001, 0.5), min_size=2, max_size=10),
)
def test_energy_is_right_within_a_step(nvml, pieces, waits):
    """Whatever the load, the counter's difference is the truth to within one update period at each end."""
    nvml.reset()
    nvml.time = 100.0
    gpu = nvml.add("a100", idle_w=50)
    gpu.play(pieces)
    (sensor,), _ = probe({}, clock=lambda: nvml.time)
    readings = [(nvml.time, read(sensor).value)]
    for wait in waits:
        nvml.time += wait
        readings.append((nvml.time, read(sensor).value))
    sensor.close()
    for (t0, e0), (t1, e1) in pairwise(readings):
        slack_j = gpu.true_energy_j(t0 - 0.104, t0) + gpu.true_energy_j(t1 - 0.104, t1) + 2 * STEP_J
        assert e1 >= e0
        assert abs((e1 - e0) - gpu.true_energy_j(t0, t1)) <= slack_j


def test_joules_and_watts(rig):
    """NVML's millijoules and milliwatts come out as joules and watts."""
    rig.add("a100", idle_w=250, counter_start_j=1000.0, counter_period_s=0, counter_latency_s=0)
    rig.add("gtx1080", idle_w=120)
    (counter, power), _ = rig.look()
    assert read(counter).value == pytest.approx(1000 + 250 * 100)
    assert read(power).value == 120.0
    assert counter.channels[0].quantity == "energy"
    assert power.channels[0].quantity == "power"


def test_a_reading_is_stamped_around_the_call(rig):
    """The stamps enclose the time the driver took, bursts included."""
    gpu = rig.add("a100")
    (sensor,), _ = rig.look()
    gpu.set(latency_s=0.004, burst_s=0.03, burst_every=2)
    durations = {round(r.after_s - r.before_s, 9) for r in (read(sensor), read(sensor))}
    assert durations == {0.004, 0.03}


def test_a_reading_costs_one_call(rig):
    """Reading a GPU asks NVML once, and never for processes."""
    for preset, function in (("a100", ENERGY), ("gtx1080", "nvmlDeviceGetFieldValues")):
        gpu = rig.add(preset)
        (sensor,), _ = rig.look(CUDA_VISIBLE_DEVICES=gpu.uuid)
        before = {name: gpu.calls(name) for name in (ENERGY, POWER, "nvmlDeviceGetFieldValues")}
        for _ in range(10):
            read(sensor)
        after = {name: gpu.calls(name) for name in before}
        assert {name: after[name] - before[name] for name in before} == {
            **dict.fromkeys(before, 0),
            function: 10,
        }
        assert gpu.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 0
        assert gpu.calls("nvmlDeviceGetProcessUtilization") == 0


def test_the_channel_says_what_it_is(rig):
    """A channel carries the identity, the timing and the error of the way it is read."""
    gpu = rig.add("a100")
    (sensor,), findings = rig.look()
    (channel,) = sensor.channels
    assert isinstance(sensor, Sensor)
    assert (channel.id, channel.kind, channel.source) == ("gpu:0", "gpu", "nvml")
    assert (channel.method, channel.quantity, channel.window_s) == ("counter", "energy", 0.0)
    assert (channel.device, channel.name) == (gpu.uuid, "NVIDIA A100-SXM4-40GB")
    assert (channel.max_power_w, channel.relative_error, channel.wrap_j) == (400.0, 0.13, None)
    assert (channel.shared, channel.note) == (False, None)
    finding = finding_of(findings, "gpu:0")
    assert finding.status == "used"
    assert "energy counter" in finding.detail


# Ways of reading


def test_gpu_without_counter(rig):
    """Without a counter power is read and labelled so; without any meter there is no sensor, not a 0."""
    gpu = rig.add("gtx1080", idle_w=120)
    (sensor,), findings = rig.look()
    (channel,) = sensor.channels
    assert (channel.method, channel.quantity, channel.window_s, channel.period_s) == (
        "power",
        "power",
        0.01,
        0.02,
    )
    assert "energy counter: Not Supported" in finding_of(findings, "gpu:0").detail
    for function in (FIELD_INSTANT, POWER):
        gpu.fault(function, NOT_SUPPORTED)
    sensors, findings = rig.look()
    assert sensors == []
    assert finding_of(findings, "gpu:0").status == "missing"


@pytest.mark.parametrize(
    ("preset", "window_s"), [("h100", 1.0), ("rtx3090", 1.0), ("a100", 0.025), ("t4", 0.1), ("v100", 0.01)]
)
def test_power_usage_has_the_window_of_its_family(rig, preset, window_s):
    """nvmlDeviceGetPowerUsage is a 1 s mean on GA10x, Ada, Hopper and newer only, as readings bear out."""
    gpu = rig.add(preset, idle_w=60)
    gpu.fault(ENERGY, NOT_SUPPORTED)
    gpu.fault(FIELD_INSTANT, NOT_SUPPORTED)
    (sensor,), _ = rig.look()
    (channel,) = sensor.channels
    assert channel.window_s == window_s
    gpu.set_power(70)
    rig.time += window_s + 0.9 * channel.period_s
    assert 60 < read(sensor).value <= 70
    rig.time += 1.1 * channel.period_s
    assert read(sensor).value == 70


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((3, 5), (0.1, 0.1, False)),
        ((6, 1), (0.02, 0.01, False)),
        ((7, 0), (0.02, 0.01, False)),
        ((7, 5), (0.1, 0.1, False)),
        ((8, 0), (0.1, 0.025, False)),
        ((8, 6), (0.1, 0.1, True)),
        ((8, 9), (0.1, 0.1, True)),
        ((9, 0), (0.1, 0.025, True)),
        ((12, 0), (0.1, 0.025, True)),
        (None, (0.1, 0.025, True)),
    ],
)
def test_timing_by_compute_capability(capability, expected):
    """Period and window are those measured by arXiv 2312.02741; GA100 differs from GA10x."""
    assert timing(capability) == expected


def test_grace_hopper_falls_back_to_the_module_and_says_so(rig):
    """Only where nothing of the GPU alone answers is the module read, which contains the CPU."""
    gpu = rig.add("gh200", idle_w=80)
    for function in (ENERGY, FIELD_INSTANT):
        gpu.fault(function, NOT_SUPPORTED)
    (sensor,), _ = rig.look()
    assert read(sensor).value == 80
    gpu.fault(POWER, NOT_SUPPORTED)
    assert sensor.fall_back()
    assert read(sensor).value == 200
    assert "CPU included" in sensor.channels[0].note


def test_the_counter_of_a_superchip_is_its_modules(rig):
    """On Grace Hopper the counter holds GPU, CPU and memory (ml-energy/zeus PR 172): it says so, and no CPU is added."""
    gpu = rig.add("gh200", counter_gain=420 / 300)
    gpu.set_power(300.0)
    (sensor,), findings = rig.look()
    (channel,) = sensor.channels
    assert channel.covers == ("cpu", "dram")
    assert "CPU included" in channel.note
    assert "CPU included" in findings[0].detail
    found = discover(environ={}, clock=lambda: rig.time)
    assert {one.kind for each in found.sensors for one in each.channels} == {"gpu"}
    told = [finding for finding in found.findings if finding.source == "estimate"]
    assert (told[0].status, "module" in told[0].detail) == ("unused", True)
    for each in found.sensors:
        each.close()


def test_rows_say_what_a_modules_meter_covers(rig):
    """A reader of the log sees that gpu_j holds more than the GPU."""
    clock = EmulatedClock(rig)
    rig.add("gh200", idle_w=80.0, counter_gain=200 / 80)
    sensors, _ = probe({}, clock)
    meter = aimeter.Meter(sensors=sensors, clock=clock, calibration="off")
    with meter.track("x") as call:
        clock.sleep(2.0)
    clock.sleep(1.0)
    assert "CPU included" in call.record.meta["aimeter"]["covers"]["gpu:0"]
    assert call.record.gpu_j == pytest.approx(400.0, rel=0.02)
    # The instant power beside it is the module's, too: no contradiction.
    assert "contradiction" not in call.record.meta["aimeter"]
    meter.close()


@pytest.mark.parametrize("name", [b"\xf8\x95\xa0\x81", b"\xff\xfe"])
def test_a_garbled_name_loses_the_name_alone(rig, name):
    """Drivers under WSL2 gave names that are no UTF-8: two GPUs are metered all the same."""
    rig.add("h100")
    rig.add("h100")
    rig.lib.emu_command(b"name 0 " + name)
    sensors, findings = rig.look()
    assert [sensor.channels[0].id for sensor in sensors] == ["gpu:0", "gpu:1"]
    assert {finding.status for finding in findings} == {"used"}


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"), KeyError(1)]
)
@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetPciInfo",
    ],
)
def test_no_exception_of_one_device_costs_another(rig, monkeypatch, function, error):
    """Whatever the binding raises for the first GPU, the second is metered."""
    rig.add("h100")
    rig.add("h100")
    real = getattr(pynvml, function)
    calls = []

    def odd(handle, *arguments):
        calls.append(handle)
        if len(calls) == 1:
            raise error
        return real(handle, *arguments)

    monkeypatch.setattr(pynvml, function, odd)
    sensors, findings = rig.look()
    assert "gpu:1" in {sensor.channels[0].id for sensor in sensors}
    assert {finding.subject[:5] for finding in findings} >= {"gpu:0", "gpu:1"}


def test_a_binding_that_warns_prints_nothing_and_works_when_warnings_are_errors(rig, tmp_path):
    """The deprecated package pynvml 13 warns when imported; test suites run with -W error."""
    rig.add("h100")
    (tmp_path / "pynvml.py").write_text(
        "import warnings\nwarnings.warn('pynvml is deprecated', FutureWarning)\n"
        f"exec(open({pynvml.__file__!r}).read())\n"
    )
    program = "from aimeter.sensors.nvml import probe; print(len(probe()[0]))"
    environ = rig.environ(tmp_path) | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])}
    for flags in ([], ["-W", "error"]):
        command = [sys.executable, *flags, "-c", program]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_missing_symbol_is_a_method_that_does_not_work(rig):
    """A driver too old for a function leaves the others."""
    gpu = rig.add("h100")
    gpu.fault(ENERGY, FUNCTION_NOT_FOUND)
    (sensor,), _ = rig.look()
    assert sensor.channels[0].method == "power"


def test_one_refused_query_costs_only_itself(rig):
    """A device that refuses some questions is metered all the same, and so are the others."""
    odd = rig.add("h100")
    rig.add("h100")
    for function in (
        "nvmlDeviceGetPowerManagementLimitConstraints",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetUUID",
    ):
        odd.fault(function, NOT_SUPPORTED)
    sensors, _ = rig.look()
    assert [read(sensor).outcome for sensor in sensors] == [Outcome.OK, Outcome.OK]
    assert sensors[0].channels[0].max_power_w is None
    assert sensors[0].channels[0].device == "NVML index 0"


@pytest.mark.parametrize(("enforced_w", "refused", "most_w"), [
    (500.0, (), 700.0),
    (500.0, ("nvmlDeviceGetPowerManagementLimitConstraints",), 500.0),
    (500.0, ("nvmlDeviceGetEnforcedPowerLimit",), 700.0),
])  # fmt: skip
def test_the_most_that_a_gpu_may_draw_is_the_highest_limit_that_can_be_set(rig, enforced_w, refused, most_w):
    """Whoever meters may not be the one who lowered it; a laptop's GPU has no limits to choose from, but has one."""
    gpu = rig.add("h100", limit_w=enforced_w)
    for function in refused:
        gpu.fault(function, NOT_SUPPORTED)
    [sensor], _ = rig.look()
    assert sensor.channels[0].max_power_w == most_w


def test_a_dead_counter_gives_way_to_power(rig):
    """The ways of reading are tried in turn, each said to be what it is, until none is left."""
    gpu = rig.add("rtx3090", idle_w=100)
    gpu.freeze(ENERGY)
    (sensor,), _ = rig.look()
    seen = [sensor.channels[0]]
    while sensor.fall_back():
        seen.append(sensor.channels[0])
        assert read(sensor).value == 100
    assert [(channel.method, channel.window_s) for channel in seen] == [
        ("counter", 0.0),
        ("power", 0.1),
        ("power", 1.0),
    ]
    assert read(sensor).outcome is Outcome.OK


@pytest.mark.parametrize(("gain", "told"), [(0.57, True), (1.6, True), (0.9, False), (1.1, False)])
def test_a_counter_and_the_power_beside_it_that_contradict_each_other_are_reported(rig, gain, told):
    """Beside a counter 43 % low (ml-energy/zeus#181) the instant power still tells the truth, and each row says so."""
    clock = EmulatedClock(rig)
    gpu = rig.add("a100", idle_w=65.4, counter_gain=gain, latency_s=3e-4)
    sensors, _ = probe({}, clock)
    meter = aimeter.Meter(sensors=sensors, clock=clock, calibration="off")
    for _ in range(4):
        gpu.set_power(300.0)
        with meter.track("x"):
            clock.sleep(1.0)
        gpu.set_power(65.4)
        clock.sleep(1.0)
    with meter.track("x") as call:
        clock.sleep(1.0)
    clock.sleep(1.0)
    remarks = call.record.meta["aimeter"]
    meter.close()
    assert ("contradiction" in remarks) == told
    if told:
        assert f"{100 * gain:.0f} %" in remarks["contradiction"]["gpu:0"]


# Values that cannot be true


def test_absurd_power_is_rejected(rig):
    """593 W from a part that can draw 216 W is no reading."""
    gpu = rig.add("gtx1080", idle_w=100)
    (sensor,), _ = rig.look()
    gpu.force(FIELD_INSTANT, 593_000, calls=1)
    reading = read(sensor)
    assert (reading.outcome, reading.value) == (Outcome.AGAIN, None)
    assert "593 W" in reading.reason
    assert read(sensor).value == 100


def test_absurd_counter_is_rejected(rig):
    """A counter that jumps by more than the device can draw is not believed until it comes to itself."""
    gpu = rig.add("a100", idle_w=100)
    (sensor,), _ = rig.look()
    before = read(sensor).value
    gpu.force(ENERGY, 9.2e17, calls=3)
    for _ in range(3):
        rig.time += 0.1
        assert read(sensor).outcome is Outcome.AGAIN
    rig.time += 0.1
    assert read(sensor).value == pytest.approx(before + 40, abs=10.1)


def test_a_long_pause_is_no_jump(rig):
    """After hours without a reading the counter is believed as after a tenth of a second."""
    gpu = rig.add("a100", idle_w=390)
    (sensor,), _ = rig.look()
    before = read(sensor).value
    rig.time += 36_000
    assert read(sensor).value - before == pytest.approx(gpu.true_energy_j(100, 36_100), abs=40)


def test_a_counter_reset_is_passed_on(rig):
    """A counter that starts again is not hidden: a negative difference is for the curve to see as a reset."""
    gpu = rig.add("a100", idle_w=100)
    (sensor,), _ = rig.look()
    before = read(sensor).value
    gpu.reset_counter(after_s=0.5)
    rig.time += 2
    reading = read(sensor)
    assert reading.outcome is Outcome.OK
    assert reading.value < before


@pytest.mark.parametrize(("preset", "meter"), [("gtx1080", FIELD_INSTANT), ("a100", ENERGY)])
def test_zero_is_no_reading(rig, preset, meter):
    """0 mW, which NVML gives when asked too fast, and a counter at 0 are no values."""
    gpu = rig.add(preset)
    (sensor,), _ = rig.look()
    gpu.force(meter, 0, calls=1)
    reading = read(sensor)
    assert (reading.outcome, reading.value) == (Outcome.AGAIN, None)
    assert "reads 0" in reading.reason
    assert read(sensor).outcome is Outcome.OK


def test_a_counter_at_zero_is_not_chosen(rig):
    """A counter that is there but reads 0 gives way to power when the sensor is opened."""
    gpu = rig.add("a100")
    gpu.force(ENERGY, 0)
    (sensor,), findings = rig.look()
    assert sensor.channels[0].method == "power"
    assert "energy counter: reads 0" in finding_of(findings, "gpu:0").detail


def test_a_passing_fault_does_not_cost_the_counter(rig):
    """A time-out while the sensor is opened is tried again."""
    gpu = rig.add("a100")
    gpu.fault(ENERGY, TIMEOUT, calls=2)
    (sensor,), _ = rig.look()
    assert sensor.channels[0].method == "counter"


def test_a_stuck_value_is_passed_on(rig):
    """A power that never changes may be true: whether it is, the sampler judges."""
    gpu = rig.add("gtx1080", idle_w=46.19)
    gpu.freeze(FIELD_INSTANT)
    (sensor,), _ = rig.look()
    gpu.set_power(200)
    rig.time += 700
    assert read(sensor).value == 46.19


# Faults


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (GPU_IS_LOST, Outcome.GONE),
        (RESET_REQUIRED, Outcome.GONE),
        (NOT_SUPPORTED, Outcome.GONE),
        (NO_PERMISSION, Outcome.GONE),
        (TIMEOUT, Outcome.AGAIN),
        (19, Outcome.AGAIN),
        (UNKNOWN, Outcome.AGAIN),
        (12345, Outcome.AGAIN),
    ],
)
def test_a_failed_reading_has_a_reason_and_no_value(rig, code, outcome):
    """A fault in mid-run is an outcome with its reason, never an exception and never a 0."""
    gpu = rig.add("a100")
    other = rig.add("a100", idle_w=100)
    (sensor, healthy), _ = rig.look()
    gpu.fault(ENERGY, code, after_s=1.0)
    assert read(sensor).outcome is Outcome.OK
    rig.time += 2
    reading = read(sensor)
    assert (reading.outcome, reading.value) == (outcome, None)
    assert reading.reason.startswith("gpu:0 (NVIDIA A100-SXM4-40GB): energy counter: ")
    assert read(healthy).outcome is Outcome.OK
    assert other.calls(ENERGY) == 2


def test_power_fields_fail_each_for_itself(rig):
    """The return code of the field counts, not that of the call."""
    gpu = rig.add("gtx1080")
    (sensor,), _ = rig.look()
    gpu.fault(FIELD_INSTANT, GPU_IS_LOST)
    gpu.fault(FIELD_AVERAGE, NOT_SUPPORTED)
    assert read(sensor).outcome is Outcome.GONE


def test_shutdown_by_someone_else_is_a_fault_not_an_exception(rig):
    """If other code shuts NVML down once too often, it is initialised again; if that fails, the sensor says so."""
    rig.add("a100")
    (sensor,), _ = rig.look()
    pynvml.nvmlShutdown()
    assert read(sensor).outcome is Outcome.OK
    pynvml.nvmlShutdown()
    rig.init_error(DRIVER_NOT_LOADED)
    assert read(sensor).outcome is Outcome.GONE
    rig.init_error(0)
    sensor.close()


def test_close_is_balanced_and_repeatable(rig):
    """Each sensor holds NVML once and gives it back once."""
    rig.add("a100")
    rig.add("gtx1080").fault("nvmlDeviceGetHandleByUUID", NO_PERMISSION)
    meterless = rig.add("gtx1080")
    meterless.fault(FIELD_INSTANT, NOT_SUPPORTED)
    meterless.fault(POWER, NOT_SUPPORTED)
    sensors, findings = rig.look()
    assert rig.references == len(sensors) == 1
    assert finding_of(findings, "gpu:1").status == "denied"
    sensors[0].close()
    sensors[0].close()
    assert rig.references == 0


def test_reopen_in_the_same_process(rig):
    """Reopening finds the device again by its UUID and keeps the balance."""
    rig.add("a100")
    (sensor,), _ = rig.look()
    sensor.reopen()
    assert read(sensor).outcome is Outcome.OK
    assert rig.references == 1
    rig.init_error(DRIVER_NOT_LOADED)
    sensor.reopen()
    assert read(sensor).outcome is Outcome.GONE


def test_reopen_without_the_device(rig):
    """A device that is not found again is gone, and found again it is read again."""
    gpu = rig.add("a100")
    (sensor,), _ = rig.look()
    gpu.fault("nvmlDeviceGetHandleByUUID", GPU_IS_LOST, calls=1)
    sensor.reopen()
    assert read(sensor).outcome is Outcome.GONE
    sensor.reopen()
    assert read(sensor).outcome is Outcome.OK


def test_a_gpu_without_a_meter_gives_no_reading(rig):
    """Opened by hand, a GPU with no working meter has no channel and no reading."""
    gpu = rig.add("gtx1080")
    for function in (FIELD_INSTANT, POWER):
        gpu.fault(function, NOT_SUPPORTED)
    sensor = NvmlGpu(pynvml, Gpu(0, gpu.uuid))
    assert (sensor.channels, sensor.read()) == ((), [])
    sensor.close()


def test_fork_in_mid_run(rig):
    """In a forked child every sensor refuses, reopens, and agrees with the parent; the parent goes on."""
    gpus = [rig.add("a100", idle_w=100, counter_period_s=0), rig.add("h100", idle_w=200, counter_period_s=0)]
    sensors, _ = rig.look()
    before = [read(sensor).value for sensor in sensors]
    child = os.fork()
    if child == 0:
        verdict = 1
        try:
            refused = [read(sensor).outcome for sensor in sensors]
            for sensor in sensors:
                sensor.reopen()
            rig.time += 10
            gained = [read(sensor).value - start for sensor, start in zip(sensors, before, strict=True)]
            for sensor in sensors:
                sensor.close()
            right = gained == pytest.approx([1000, 2000], abs=0.01) and rig.references == 0
            verdict = 0 if refused == [Outcome.GONE] * 2 and right else 2
        finally:
            os._exit(verdict)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    rig.time += 5
    gained = [read(sensor).value - start for sensor, start in zip(sensors, before, strict=True)]
    assert gained == pytest.approx([gpu.true_energy_j(100, 105) for gpu in gpus], abs=0.01)


def test_fork_child_that_never_reopens(rig):
    """Closing in a child that did not reopen takes NVML from nobody."""
    rig.add("a100")
    (sensor,), _ = rig.look()
    child = os.fork()
    if child == 0:
        verdict = 1
        try:
            pynvml.nvmlInit()  # the child's own business
            sensor.close()
            verdict = 0 if rig.references == 1 else 2
        finally:
            os._exit(verdict)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Which devices


@pytest.mark.parametrize(
    ("environ", "expected_w"),
    [
        ({}, {100, 300}),
        ({"CUDA_VISIBLE_DEVICES": "0"}, {100}),
        ({"CUDA_VISIBLE_DEVICES": "1"}, {300}),
        ({"CUDA_VISIBLE_DEVICES": ""}, set()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, set()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-22222222-bbbb"}, {300}),
        ({"CUDA_VISIBLE_DEVICES": "1,9,0"}, {300}),
    ],
)
def test_to_c4_selected_devices_are_metered(rig, environ, expected_w):
    """The watts metered are those of the devices that CUDA would use; the rest is said to be hidden."""
    rig.add("gtx1080", idle_w=100, uuid="GPU-11111111-aaaa-0000-0000-000000000000")
    rig.add("gtx1080", idle_w=300, uuid="GPU-22222222-bbbb-0000-0000-000000000000")
    sensors, findings = rig.look(**environ)
    assert {read(sensor).value for sensor in sensors} == expected_w
    assert sum(finding.status == "unused" for finding in findings) == 2 - len(expected_w)


def test_order_of_unequal_gpus(rig):
    """With unequal GPUs, a number means CUDA's order; the doubt is a finding with its remedy."""
    rig.add("v100", idle_w=100)
    rig.add("h100", idle_w=300)
    (sensor,), findings = rig.look(CUDA_VISIBLE_DEVICES="0")
    assert sensor.channels[0].id == "gpu:1"
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in finding_of(findings, "CUDA_VISIBLE_DEVICES").remedy
    (sensor,), findings = rig.look(CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert sensor.channels[0].id == "gpu:0"


def test_torch_knows_the_order(rig, monkeypatch):
    """If torch has initialised CUDA, the devices that it enumerated are metered, and there is no doubt."""
    rig.add("v100")
    slow = rig.add("t4")
    rig.add("h100")
    properties = SimpleNamespace(uuid=slow.uuid.removeprefix("GPU-"))
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 1, get_device_properties=lambda _: properties
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    (sensor,), findings = rig.look(CUDA_VISIBLE_DEVICES="1")
    assert sensor.channels[0].device == slow.uuid
    assert [finding.status for finding in findings] == ["used", "unused", "unused"]


@pytest.mark.parametrize("naming", ["uuid", "legacy", "parent", "number"])
def test_mig_is_the_whole_device_marked_shared(rig, naming):
    """A MIG instance has no counter of its own: the parent's is given, as an upper bound."""
    gpu = rig.add("h100", idle_w=100, counter_period_s=0)
    instance = gpu.add_mig(gpu_instance=7)
    gpu.add_mig(gpu_instance=9)
    names = {"uuid": instance, "legacy": f"MIG-{gpu.uuid}/7/0", "parent": gpu.uuid, "number": "0"}
    (sensor,), findings = rig.look(CUDA_VISIBLE_DEVICES=names[naming])
    (channel,) = sensor.channels
    assert (channel.shared, channel.device) == (True, gpu.uuid)
    assert channel.note == "whole device, upper bound"
    assert "upper bound" in finding_of(findings, "gpu:0").detail
    before = read(sensor).value
    rig.time += 1
    assert read(sensor).value - before == pytest.approx(gpu.true_energy_j(100, 101), abs=0.01)


def test_c7_only_the_tracked_gpus_are_opened(rig):
    """Of four GPUs the one that is selected is a sensor, and no other is ever read."""
    gpus = [rig.add("a100") for _ in range(4)]
    (sensor,), findings = rig.look(CUDA_VISIBLE_DEVICES="1")
    read(sensor)
    assert sensor.channels[0].device == gpus[1].uuid
    assert [gpu.calls(ENERGY) for gpu in gpus] == [0, 2, 0, 0]
    assert [finding.status for finding in findings] == ["used", "unused", "unused", "unused"]


# What is missing, and what to do


@pytest.mark.parametrize(
    ("code", "status", "remedy"),
    [
        (LIBRARY_NOT_FOUND, "missing", "install its driver"),
        (DRIVER_NOT_LOADED, "missing", "sudo modprobe nvidia"),
        (NO_PERMISSION, "denied", "/dev/nvidia"),
        (LIB_RM_VERSION_MISMATCH, "failed", "sudo reboot"),
        (UNKNOWN, "failed", "restart the container"),
        (20, "failed", ""),
    ],
)
def test_findings_of_a_library_that_does_not_start(rig, code, status, remedy):
    """Each way in which NVML refuses to start is named, with what would mend it."""
    rig.add("a100")
    rig.init_error(code)
    sensors, (finding,) = rig.look()
    assert sensors == []
    assert (finding.source, finding.status) == ("nvml", status)
    assert remedy in finding.remedy
    assert finding.detail.endswith(".")


def test_a_device_that_may_not_be_used_leaves_the_others(rig):
    """A handle refused for want of permission is a finding; the count includes it, the sensors do not."""
    rig.add("a100").fault("nvmlDeviceGetHandleByIndex_v2", NO_PERMISSION)
    rig.add("a100")
    (sensor,), findings = rig.look()
    assert sensor.channels[0].id == "gpu:1"
    assert finding_of(findings, "gpu:0").status == "denied"


def test_a_driver_without_gpus(rig):
    """A driver that shows no GPU is told from no driver."""
    sensors, (finding,) = rig.look()
    assert sensors == []
    assert finding.status == "missing"
    assert "--gpus all" in finding.remedy


def test_the_version_of_a_driver_that_tells_none_is_unknown(rig):
    """Whoever asks has the version or None, whatever fails, and leaves the library as it was."""
    before = rig.references
    rig.command("driver 999.1")
    assert driver_version() == "999.1"
    rig.fault("nvmlSystemGetDriverVersion", UNKNOWN)
    assert driver_version() is None
    rig.init_error(DRIVER_NOT_LOADED)
    assert driver_version() is None
    assert rig.references == before


def test_counting_devices_may_fail(rig):
    """A library that starts and then fails is a finding too."""
    rig.fault("nvmlDeviceGetCount_v2", UNKNOWN)
    sensors, (finding,) = rig.look()
    assert sensors == []
    assert finding.status == "failed"


def test_mps_enumeration_explains_missing_meters(rig):
    """Where MPS enumeration turns every meter off, the setting is named."""
    gpu = rig.add("a100")
    for function in (ENERGY, FIELD_INSTANT, POWER):
        gpu.fault(function, NOT_SUPPORTED)
    sensors, (finding,) = rig.look(NVML_MPS_DEVICE_ENUMERATION="1")
    assert sensors == []
    assert finding.remedy == "unset NVML_MPS_DEVICE_ENUMERATION"


def test_the_wrong_pynvml_is_recognised(monkeypatch):
    """A module of that name without NVIDIA's private loader is another package; the remedy swaps it."""
    monkeypatch.setitem(sys.modules, "pynvml", ModuleType("pynvml"))
    sensors, (finding,) = probe({})
    assert sensors == []
    assert finding.status == "failed"
    assert "pip uninstall -y pynvml" in finding.remedy
    assert "nvidia-ml-py" in finding.remedy


def test_no_pynvml_at_all(monkeypatch):
    """Without the binding there is a finding, not an ImportError."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sensors, (finding,) = probe({})
    assert sensors == []
    assert (finding.status, finding.remedy) == ("missing", "python -m pip install nvidia-ml-py")


def test_importing_the_sensor_imports_no_binding():
    """pynvml is imported when a probe needs it, and numpy not at all."""
    code = "import sys, aimeter.sensors.nvml; print({'pynvml', 'numpy', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


METER = textwrap.dedent("""
    import time
    from aimeter.sensors.nvml import probe
    (sensor,), findings = probe()
    (first,) = sensor.read()
    time.sleep(0.25)
    (second,) = sensor.read()
    print(sensor.channels[0].method, first.after_s, first.value, second.after_s, second.value)
    sensor.close()
""")


@pytest.mark.parametrize(("omit", "method"), [((), "counter"), ((ENERGY,), "power")])
def test_in_a_process_of_its_own(nvml, tmp_path, omit, method):
    """Loaded by the system's loader and on the real clock, the sensor agrees with the truth within a step."""
    gpu = nvml.add("v100", idle_w=150, counter_period_s=0.02)
    environ = nvml.environ(tmp_path, omit=omit)
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    run = subprocess.run(
        [sys.executable, "-c", METER], env=environ, capture_output=True, text=True, check=True
    )
    said, *numbers = run.stdout.split()
    t0, first, t1, second = map(float, numbers)
    assert said == method
    if method == "counter":
        assert second - first == pytest.approx(gpu.true_energy_j(t0, t1), abs=2 * 150 * 0.03)
    else:
        assert first == second == 150


@pytest.mark.skipif(ctypes.util.find_library("nvidia-ml") is not None, reason="this machine has the driver")
def test_without_a_driver_in_a_process_of_its_own():
    """On a machine without NVIDIA's library the probe finds nothing and says why."""
    code = "from aimeter.sensors.nvml import probe; print(*probe())"
    environ = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("[] [Finding(source='nvml', subject='NVIDIA driver', status='missing'")
