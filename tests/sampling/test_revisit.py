"""What was decided once is looked at again: sensors that come back, devices chosen later, and what is held meanwhile."""

from __future__ import annotations

import pynvml
import pytest

import aimeter
from aimeter.sensors.nvml import probe
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import (
    DRIVER_NOT_LOADED,
    ENERGY,
    FIELD_AVERAGE,
    FIELD_INSTANT,
    FIELD_MODULE,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    POWER,
    TIMEOUT,
    UNKNOWN,
    FakeNvml,
)
from tests.programs import run

EVERY_WAY = (ENERGY, POWER, FIELD_INSTANT, FIELD_AVERAGE, FIELD_MODULE)


def meter_of(clock):
    return aimeter.Meter(sensors=probe({}, clock)[0], clock=clock, calibration="off")


@pytest.mark.parametrize("rest_s", [2.0, 60.0])
@pytest.mark.parametrize(
    "code", [NOT_SUPPORTED, GPU_IS_LOST, UNKNOWN, TIMEOUT, NO_PERMISSION, DRIVER_NOT_LOADED]
)
def test_a_gpu_that_comes_back_is_metered_again(nvml, code, rest_s):
    """All ways of reading fail for five seconds, as after a sleep or a reset; calls after that are whole."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add("h100", latency_s=3e-4)
    gpu.set_power(300.0)
    meter = meter_of(clock)
    with meter.track("before"):
        clock.sleep(2.0)
    for function in EVERY_WAY:
        gpu.fault(function, code)
    with meter.track("without") as without:
        clock.sleep(5.0)
    for function in EVERY_WAY:
        gpu.heal(function)
    clock.sleep(rest_s)
    with meter.track("again") as again:
        clock.sleep(5.0)
    clock.sleep(1.0)
    assert (without.record.gpu_j, without.record.coverage < 1) == (None, True)
    assert "gpu:0" in without.record.meta["aimeter"]["missing"]
    assert again.record.gpu_j == pytest.approx(1500.0, rel=0.01)
    assert again.record.coverage == pytest.approx(1.0)
    assert again.record.gpu_method == "counter"
    assert "missing" not in again.record.meta["aimeter"]
    meter.close()


def test_a_device_that_comes_and_goes_costs_no_memory(nvml):
    """However often it is lost, no more is remembered than its ways of reading."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add("h100", latency_s=3e-4)
    meter = meter_of(clock)
    for _ in range(20):
        with meter.track("x"):
            clock.sleep(1.0)
            for function in EVERY_WAY:
                gpu.fault(function, GPU_IS_LOST)
            clock.sleep(1.0)
            for function in EVERY_WAY:
                gpu.heal(function)
            clock.sleep(1.0)
    assert len(meter.sampler.readers.traces) <= 4
    meter.close()


def test_nvml_that_somebody_else_shut_down_is_initialised_again(nvml):
    """A program that calls nvmlShutdown once too often costs a moment, not the rest of the run."""
    clock = EmulatedClock(nvml)
    gpu = nvml.add("h100", latency_s=3e-4)
    gpu.set_power(300.0)
    meter = meter_of(clock)
    with meter.track("before"):
        clock.sleep(2.0)
    while nvml.references:
        pynvml.nvmlShutdown()
    with meter.track("meanwhile") as meanwhile:
        clock.sleep(5.0)
    with meter.track("after") as after:
        clock.sleep(5.0)
    clock.sleep(1.0)
    assert meanwhile.record.coverage == pytest.approx(1.0)
    assert after.record.gpu_j == pytest.approx(1500.0, rel=0.01)
    meter.close()
    assert nvml.references == 0


PROGRAM = """
import ctypes, time, types
import aimeter.settings
lib = ctypes.CDLL("libnvidia-ml.so.1")
"""


@pytest.fixture
def two_gpus(tmp_path):
    """The environment of a process with two emulated GPUs, at 400 and at 100 W."""
    fake = FakeNvml()
    for watts in (400.0, 100.0):
        fake.add("h100").set_power(watts, at=0)
    yield fake.environ(tmp_path, base={})
    fake.unplug()


@pytest.mark.parametrize("early", [False, True])
def test_devices_chosen_before_cuda_starts_are_honoured(two_gpus, tmp_path, early):
    """A notebook configures aimeter in one cell and sets CUDA_VISIBLE_DEVICES in the next: the other GPU is somebody else's."""
    source = f"""
{PROGRAM}
meter = aimeter.Meter(log=LOG, region="FR")
if {early}:
    with meter.track("load data"): time.sleep(0.1)
    time.sleep(0.3)
os.environ["CUDA_VISIBLE_DEVICES"] = "1"
with meter.track("x") as call: time.sleep(1.0)
record = call.record
assert [name[:5] for name in record.devices.split() if name[:3] == "gpu"] == ["gpu:1"], record.devices
assert abs(record.gpu_j - 100 * record.duration_s) < 30, record.gpu_j
assert "missing" not in record.meta["aimeter"], record.meta
"""
    run(source, tmp_path / "calls.csv", environ=two_gpus)


def test_gpus_wanted_at_the_limit_of_open_files_are_found_later(two_gpus, tmp_path):
    """What reads them cannot be loaded then; once files can be opened again, they are looked for anew."""
    source = f"""
{PROGRAM}
import resource
meter = aimeter.Meter(log=LOG, region="FR")
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
held = []
try:
    while True: held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
with meter.track("at the limit"): time.sleep(0.2)
for one in held: os.close(one)
with meter.track("finds them"): time.sleep(0.5)
with meter.track("x") as call: time.sleep(1.0)
record = call.record
assert [name[:5] for name in record.devices.split() if name[:3] == "gpu"] == ["gpu:0", "gpu:1"], record.devices
assert abs(record.gpu_j - 500 * record.duration_s) <= 3 * record.error_j, record.gpu_j
"""
    run(source, tmp_path / "calls.csv", environ=two_gpus)


def test_a_meter_of_the_cpu_alone_opens_no_gpu(two_gpus, tmp_path):
    """An open NVML keeps a laptop's GPU awake: it is opened once a call may use it, and let go of with the meter."""
    source = f"""
{PROGRAM}
meter = aimeter.Meter(log=LOG, region="FR")
for _ in range(3):
    with meter.track("cpu", devices="cpu"): time.sleep(0.1)
meter.flush()
assert lib.emu_references() == 0
with meter.track("any") as call: time.sleep(0.5)
assert abs(call.gpu_j - 500 * call.duration_s) <= 3 * call.error_j, (call.record, call.error_j)
assert lib.emu_references() > 0
meter.close()
assert lib.emu_references() == 0, lib.emu_references()
with meter.track("late") as late: time.sleep(0.5)
assert abs(late.gpu_j - 500 * late.duration_s) <= 3 * late.error_j, (late.record, late.error_j)
"""
    run(source, tmp_path / "calls.csv", environ=two_gpus)
