"""The emulated NVML keeps NVML's ABI and protocols, and its readings follow from a power known exactly."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import threading
import time

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulator.nvml import (
    ENERGY,
    FIELD_AVERAGE,
    FIELD_INSTANT,
    FIELD_MODULE,
    GPU_IS_LOST,
    LIB_RM_VERSION_MISMATCH,
    NO_PERMISSION,
    NOT_SUPPORTED,
    POWER,
    UNKNOWN,
    FakeNvml,
)

PROMPT = {"counter_latency_s": 0.0, "instant_latency_s": 0.0, "average_latency_s": 0.0}
"""Meters that publish at once."""


def energy_j(handle):
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000


def field(handle, *ids):
    return pynvml.nvmlDeviceGetFieldValues(handle, list(ids))


def opened(index=0):
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def test_layouts_of_the_binding():
    """The structures of pynvml have the sizes that the emulator's own static assertions have."""
    sizes = {
        pynvml.c_nvmlFieldValue_t: 40,
        pynvml.c_nvmlSample_t: 16,
        pynvml.nvmlPciInfo_t: 68,
        pynvml.c_nvmlMemory_t: 24,
        pynvml.c_nvmlMemory_v2_t: 40,
        pynvml.c_nvmlUtilization_t: 8,
    }
    assert {structure: ctypes.sizeof(structure) for structure in sizes} == sizes
    assert pynvml.c_nvmlFieldValue_t.value.offset == 32
    assert pynvml.c_nvmlFieldValue_t.nvmlReturn.offset == 28
    assert pynvml.nvmlPciInfo_t.busId.offset == 36


def test_identity_through_the_real_binding(nvml):
    """Every call that names a device gives what the device was told to be."""
    gpu = nvml.add("h100")
    nvml.add("rtx3090")
    handle = opened()
    assert pynvml.nvmlDeviceGetCount() == 2
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3"
    assert pynvml.nvmlDeviceGetUUID(handle) == gpu.uuid
    assert pynvml.nvmlDeviceGetPciInfo(handle).busId == gpu.bus_id
    assert pynvml.nvmlDeviceGetPciInfo(handle).bus == 1
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(nvml.device(1).uuid)) == 1
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(nvml.device(1).bus_id)) == 1
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [200_000, 700_000]
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 700_000
    assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert pynvml.nvmlSystemGetDriverVersion() == "570.86.15"
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 12080
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetHandleByIndex(2)
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetHandleByUUID("GPU-none")


def test_what_other_meters_ask_for(nvml):
    """Memory, utilisation, processes and samples obey the protocols of the binding."""
    nvml.add("a100", utilization=37)
    nvml.time = 100.0
    handle = opened()
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == 16 * 2**30
    assert pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).free == 16 * 2**30
    assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 37
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    assert pynvml.nvmlDeviceGetProcessUtilization(handle, 0) == []
    kind, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, 0)
    assert kind == pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
    assert len(samples) == 120
    assert {sample.sampleValue.uiVal for sample in samples} == {55_000}
    assert samples[-1].timeStamp == pytest.approx(99.991e6, abs=1)


def test_the_ring_of_powers_tells_of_the_last_seconds_without_a_gap(nvml):
    """Means of 20 ms, one after the other: their sum is the energy."""
    gpu = nvml.add("h100")
    nvml.time = 100.0
    gpu.play([(0.5, 400.0), (0.3, 600.0), (1.0, 70.0)], start=98.0)
    _, samples = pynvml.nvmlDeviceGetSamples(opened(), pynvml.NVML_TOTAL_POWER_SAMPLES, int(98.0e6))
    joules = sum(0.02 * one.sampleValue.uiVal / 1e3 for one in samples)
    ends = [samples[0].timeStamp / 1e6 - 0.022, samples[-1].timeStamp / 1e6 - 0.002]
    assert joules == pytest.approx(gpu.true_energy_j(*ends), rel=1e-4)


def test_power_is_a_boxcar_held_for_a_period(nvml):
    """A published power is gain x mean(p over W) + offset, taken every T and held."""
    gpu = nvml.add("rtx3090", idle_w=100, gain=0.956, offset_w=-2.7, **PROMPT)
    nvml.time = 50.0
    gpu.set_power(300, at=50.5)
    handle = opened()

    def read(t):
        nvml.time = t
        average, instant = field(handle, 185, 186)
        return average.value.uiVal, instant.value.uiVal, pynvml.nvmlDeviceGetPowerUsage(handle)

    # Instant: T = 100 ms from 0.031 on, W = 100 ms. The one at 50.531 has seen 31 ms of 300 W.
    low, high, mixed = (0.956 * watts - 2.7 for watts in (100, 300, 100 + 200 * 0.31))
    assert read(50.53)[1] == pytest.approx(1000 * low, abs=5)
    assert read(50.532)[1] == read(50.63)[1] == pytest.approx(1000 * mixed, abs=5)
    assert read(50.632)[1] == pytest.approx(1000 * high, abs=5)
    # Average: W = 1 s, and on this family it is what nvmlDeviceGetPowerUsage gives.
    average, _, usage = read(51.06)
    assert average == usage == pytest.approx(1000 * (0.956 * (100 + 200 * 0.557) - 2.7), abs=5)


def test_power_usage_is_instantaneous_before_ampere_and_on_ga100(nvml):
    """GetPowerUsage gives the instant power where the vendor says so; field 185 is then not offered."""
    gpu = nvml.add("a100", idle_w=100, **PROMPT)
    nvml.time = 50.0
    gpu.set_power(300, at=50.0)
    handle = opened()
    nvml.time = 50.2
    average, instant = field(handle, 185, 186)
    assert average.nvmlReturn == NOT_SUPPORTED
    assert instant.nvmlReturn == 0
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == instant.value.uiVal == 300_000


def test_a_late_meter_tells_of_the_time_before(nvml):
    """With a latency every meter publishes, when it always would, what was true so much earlier."""
    prompt = nvml.add("h100", idle_w=100, **PROMPT)
    late = nvml.add(
        "h100", idle_w=100, counter_latency_s=0.03, instant_latency_s=0.02, average_latency_s=0.05
    )
    for gpu in (prompt, late):
        gpu.play([(0.013, 100.0), (0.03, 500.0), (0.1, 300.0), (1.0, 100.0)], start=10.0)
    nvml.time = 11.0
    handles = opened(), opened(1)
    seen = []
    for handle in handles:
        powers = [value.value.uiVal / 1e3 for value in field(handle, 185, 186)]
        seen.append([energy_j(handle), *powers])
    # By then the counter was renewed at phase 13 ms and the powers at 57 and 31 ms, every 100 ms.
    published = [prompt.true_energy_j(0, end) for end in (10.913, 10.883)]
    assert seen[0][0] - seen[1][0] == pytest.approx(published[0] - published[1], abs=0.002)
    nvml.time = 10.1301
    prompt_w, late_w = (field(handle, 186)[0].value.uiVal / 1e3 for handle in handles)
    assert prompt_w == pytest.approx(prompt.true_energy_j(10.031 - 0.025, 10.031) / 0.025, abs=0.01)
    assert late_w == pytest.approx(prompt.true_energy_j(10.011 - 0.025, 10.011) / 0.025, abs=0.01)
    nvml.time = 10.1571
    prompt_w, late_w = (field(handle, 185)[0].value.uiVal / 1e3 for handle in handles)
    assert prompt_w == pytest.approx(prompt.true_energy_j(9.157, 10.157), abs=0.01)
    assert late_w == pytest.approx(prompt.true_energy_j(9.107, 10.107), abs=0.01)


def test_scopes_of_the_power_field(nvml):
    """The module's scope exists on Grace Hopper only and contains the CPU."""
    nvml.add("gh200", idle_w=80)
    nvml.add("a100")
    nvml.time = 10.0
    handle, other = opened(), opened(1)
    gpu, module, memory = field(handle, (186, 0), (186, 1), (186, 2))
    assert (gpu.value.uiVal, module.value.uiVal, memory.nvmlReturn) == (80_000, 200_000, NOT_SUPPORTED)
    assert field(other, (186, 1))[0].nvmlReturn == NOT_SUPPORTED


def test_counter_is_a_staircase_of_the_integral(nvml):
    """The counter stands still for a period, then shows the energy of that instant, from a big offset."""
    gpu = nvml.add("a100", idle_w=100, **PROMPT)
    nvml.time = 50.0
    gpu.set_power(300, at=50.04)
    handle = opened()
    nvml.time = 50.02
    first = energy_j(handle)
    assert first == pytest.approx(123_456.789 + 50.013 * 100, abs=0.002)
    nvml.time = 50.112
    assert energy_j(handle) == first
    nvml.time = 50.114
    assert energy_j(handle) - first == pytest.approx(0.027 * 100 + 0.073 * 300, abs=0.002)
    assert [value.value.ullVal / 1000 for value in field(handle, 83, 191)] == [energy_j(handle)] * 2


@given(
    pieces=st.lists(
        st.tuples(st.floats(0.001, 3), st.floats(0, 700), st.sampled_from([0.0, 0.05, 0.4])),
        min_size=1,
        max_size=8,
    ),
    cut=st.floats(0, 1),
)
def test_truth_adds_up_and_agrees_with_a_sum(pieces, cut):
    """The exact integral is additive and equals a fine midpoint sum of the exact power."""
    fake = FakeNvml()
    gpu = fake.add("a100")
    start = end = 7.0
    for seconds, watts, tau_s in pieces:
        gpu.set_power(watts, at=end, tau_s=tau_s)
        end += seconds
    middle = start + cut * (end - start)
    whole = gpu.true_energy_j(start, end)
    assert gpu.true_energy_j(start, middle) + gpu.true_energy_j(middle, end) == pytest.approx(whole, abs=1e-6)
    total, at, n = 0.0, start, 400
    for seconds, _, _ in pieces:
        total += sum(gpu.true_power_w(at + (k + 0.5) * seconds / n) for k in range(n)) * seconds / n
        at += seconds
    assert whole == pytest.approx(total, rel=1e-3, abs=0.05)
    fake.unplug()


def test_a_meter_may_be_renewed_late(nvml):
    """With jitter each step of the counter comes up to that much later than the last, and holds the energy of then."""
    gpu = nvml.add("a100", idle_w=100, counter_period_s=0.1, counter_phase_s=0, jitter_s=0.02, **PROMPT)
    nvml.time = 1000.0
    handle = opened()
    late = []
    for step in range(10_000, 10_050):
        for after_ms in range(101):
            nvml.time = 0.1 * step + 0.001 * after_ms + 1e-5
            counted = energy_j(handle) - 123_456.789
            if counted >= 100 * 0.1 * step - 1e-3:
                late.append(0.001 * after_ms)
                assert counted == pytest.approx(gpu.true_energy_j(0, nvml.time), abs=0.11)
                break
    assert len(late) == 50
    assert min(late) < 0.004
    assert 0.016 < max(late) <= 0.0201


def test_counter_variants(nvml):
    """A counter may be absent, 43 % low, reset in mid-run or frozen."""
    absent = nvml.add("gtx1080")
    low = nvml.add("a100", idle_w=100, counter_gain=0.57, **PROMPT)
    reset = nvml.add("a100", idle_w=100, **PROMPT)
    frozen = nvml.add("a100", idle_w=100, **PROMPT)
    nvml.time = 20.013
    handles = [opened(i) for i in range(4)]
    reset.reset_counter(after_s=1.0)
    frozen.freeze(ENERGY, after_s=0.45)
    before = [energy_j(handle) for handle in handles[1:]]
    nvml.time = 22.014
    with pytest.raises(pynvml.NVMLError_NotSupported):
        energy_j(handles[0])
    after = [energy_j(handle) for handle in handles[1:]]
    assert absent.calls(ENERGY) == 1
    assert after[0] - before[0] == pytest.approx(0.57 * low.true_energy_j(20.013, 22.013), abs=0.01)
    assert after[1] == pytest.approx(100, abs=0.01)
    assert after[2] - before[2] == pytest.approx(40, abs=0.01)


def test_faults_by_time_by_number_and_by_value(nvml):
    """A fault begins when told, lasts as many calls as told, and may be a value as well as a code."""
    gpu = nvml.add("a100", idle_w=100, **PROMPT)
    nvml.time = 10.0
    handle = opened()
    gpu.fault(POWER, GPU_IS_LOST, after_s=1.0, calls=2)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000
    nvml.time = 11.0
    for _ in range(2):
        with pytest.raises(pynvml.NVMLError_GpuIsLost, match="GPU is lost"):
            pynvml.nvmlDeviceGetPowerUsage(handle)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000
    gpu.force(POWER, 593_000)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 593_000
    gpu.force(POWER, 0, calls=1)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 0
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000
    gpu.freeze(POWER)
    gpu.set_power(300)
    nvml.time = 60.0
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000
    gpu.heal(POWER)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 300_000
    assert gpu.calls(POWER) == 9


def test_a_field_fails_alone(nvml):
    """The call succeeds whatever becomes of its fields: each field's own return code counts."""
    gpu = nvml.add("h100")
    nvml.time = 10.0
    handle = opened()
    gpu.fault(FIELD_INSTANT, UNKNOWN)
    average, instant = field(handle, 185, 186)
    assert (average.nvmlReturn, instant.nvmlReturn) == (0, UNKNOWN)
    gpu.fault(FIELD_AVERAGE, UNKNOWN)
    assert [value.nvmlReturn for value in field(handle, 185, 186)] == [UNKNOWN, UNKNOWN]
    gpu.fault("nvmlDeviceGetFieldValues", UNKNOWN)
    with pytest.raises(pynvml.NVMLError_Unknown):
        field(handle, 185, 186)
    assert (gpu.calls(FIELD_AVERAGE), gpu.calls(FIELD_INSTANT), gpu.calls(FIELD_MODULE)) == (2, 2, 0)


def test_refusals_of_the_library(nvml):
    """Initialisation fails as told; without it every call is refused; a handle may be denied."""
    gpu = nvml.add("a100")
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    nvml.init_error(LIB_RM_VERSION_MISMATCH)
    with pytest.raises(pynvml.NVMLError_LibRmVersionMismatch):
        pynvml.nvmlInit()
    nvml.init_error(0)
    gpu.fault("nvmlDeviceGetHandleByIndex_v2", NO_PERMISSION)
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 1
    with pytest.raises(pynvml.NVMLError_NoPermission):
        pynvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.references == 1
    pynvml.nvmlShutdown()
    assert nvml.references == 0


def test_mig_instances_share_their_parents_counter(nvml):
    """Every instance has its own UUID and its parent's energy; utilisation is not supported."""
    gpu = nvml.add("a100", idle_w=100, **PROMPT)
    uuids = [gpu.add_mig(), gpu.add_mig(gpu_instance=5)]
    nvml.time = 30.0
    parent = opened()
    instances = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, i) for i in range(2)]
    assert [pynvml.nvmlDeviceGetUUID(handle) for handle in instances] == uuids
    assert {energy_j(handle) for handle in (parent, *instances)} == {energy_j(parent)}
    assert pynvml.nvmlDeviceGetMigMode(parent) == [1, 1]
    assert pynvml.nvmlDeviceGetGpuInstanceId(instances[1]) == 5
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instances[1])) == (
        gpu.uuid
    )
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID(uuids[0])) == uuids[0]
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 2)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetUtilizationRates(parent)


def test_latency_and_bursts_pass_time(nvml):
    """A read takes its latency of the library's time, some reads more, and samples half-way."""
    gpu = nvml.add("a100", idle_w=100, latency_s=0.004, burst_s=0.03, burst_every=3, **PROMPT)
    nvml.time = 10.0
    handle = opened()
    durations = []
    for _ in range(6):
        start = nvml.time
        energy_j(handle)
        durations.append(round(nvml.time - start, 9))
    assert durations == [0.004, 0.004, 0.03] * 2
    gpu.set(burst_every=0, power_latency_s=0.0001, latency_spread=0.5)
    start = nvml.time
    pynvml.nvmlDeviceGetPowerUsage(handle)
    assert nvml.time - start == pytest.approx(0.0001)
    durations = []
    for _ in range(400):
        start = nvml.time
        energy_j(handle)
        durations.append(nvml.time - start)
    assert min(durations) >= 0.004
    assert sum(durations) / 400 == pytest.approx(0.006, rel=0.1)
    gpu.set(latency_spread=0.0)
    nvml.time = 20.012
    early = energy_j(handle)  # sampled at 20.014, after the step at 20.013
    assert early == pytest.approx(123_456.789 + 2001.3, abs=0.002)


def test_threads_wait_for_one_another(nvml):
    """Reads of several threads are serialised, as the driver does."""
    nvml.add("a100", latency_s=0.01)
    handle = opened()
    start = time.monotonic()
    threads = [threading.Thread(target=energy_j, args=(handle,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start >= 0.04


def test_fork_makes_nvml_unusable_until_initialised_again(nvml):
    """In a forked child calls are refused; after nvmlInit the parent's handles are still stale."""
    nvml.add("a100")
    handle = opened()
    energy_j(handle)
    child = os.fork()
    if child == 0:
        verdict = 1
        try:
            try:
                energy_j(handle)
            except pynvml.NVMLError_Uninitialized:
                pynvml.nvmlInit()
                try:
                    energy_j(handle)
                except pynvml.NVMLError_InvalidArgument:
                    verdict = 0 if energy_j(pynvml.nvmlDeviceGetHandleByIndex(0)) > 0 else 3
        finally:
            os._exit(verdict)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert energy_j(handle) > 0


READER = """
import pynvml, time
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
print(pynvml.nvmlDeviceGetUUID(handle), time.monotonic(), pynvml.nvmlDeviceGetPowerUsage(handle))
try:
    print(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
except pynvml.NVMLError as error:
    print(error.value)
"""


def run_reader(environ):
    command = [sys.executable, "-c", READER]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.split()


def test_a_subprocess_finds_the_same_gpus(nvml, tmp_path):
    """Through LD_LIBRARY_PATH and a file a new process sees the same devices, drawing by the same clock."""
    gpu = nvml.add("a100", idle_w=100, counter_period_s=0)
    gpu.play([(0.5, 250), (60, 300)], start=nvml.time - 1)
    lines = run_reader(nvml.environ(tmp_path))
    assert lines[0] == gpu.uuid
    assert int(lines[2]) == 300_000
    expected = 123_456.789 + gpu.true_energy_j(0, float(lines[1]))
    assert int(lines[3]) / 1000 == pytest.approx(expected, abs=300 * 0.5)


def test_a_symbol_can_be_missing(nvml, tmp_path):
    """A variant without a function makes the real binding report FUNCTION_NOT_FOUND at its first call."""
    nvml.add("a100")
    environ = nvml.environ(tmp_path, omit=(ENERGY,))
    assert run_reader(environ)[-1] == str(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)


def test_bad_commands_are_refused(nvml):
    """A misspelt key or function is an error in the test, not a silent no-op."""
    gpu = nvml.add("a100")
    with pytest.raises(ValueError, match="colour"):
        gpu.set(colour=1)
    with pytest.raises(ValueError, match="nvmlNothing"):
        gpu.fault("nvmlNothing", 1)
    with pytest.raises(ValueError, match="nvmlNothing"):
        gpu.calls("nvmlNothing")
    assert math.isfinite(gpu.true_power_w(0))
