"""RAPL through perf, on an emulated PMU whose energy is known exactly, and the real system call."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from aimeter.sensors import perf
from aimeter.sensors.base import Outcome, Sensor
from tests.children import descriptors
from tests.emulator.perf import PowerPmu

SOFTWARE, CPU_CLOCK = 1, 0
"""perf_event_open(2): a clock that any kernel can count."""


@pytest.fixture
def make(tmp_path):
    made = []

    def build(events, **options):
        made.append(PowerPmu(tmp_path / str(len(made)), events, **options))
        return made[-1]

    yield build
    for pmu in made:
        pmu.close()


def probe(pmu, proc=Path("/none")):
    return perf.probe(
        pmu.root,
        clock=pmu.clock,
        sleep=pmu.sleep,
        open_event=pmu.open_event,
        topology=pmu.topology,
        proc=proc,
    )


def only(sensors):
    (sensor,) = sensors
    assert isinstance(sensor, Sensor)
    return sensor


def values(sensor):
    readings = sensor.read()
    assert {reading.outcome for reading in readings} == {Outcome.OK}
    return {channel.id: reading.value for channel, reading in zip(sensor.channels, readings, strict=True)}


def joules(sensor, pmu, seconds):
    before = values(sensor)
    pmu.time += seconds
    return {key: value - before[key] for key, value in values(sensor).items()}


def statuses(findings):
    return {finding.subject: finding.status for finding in findings}


def test_joules_are_the_exact_integral(make):
    """Packages and server memory give their exact energy over a changing power, without a wrap at 32 bits."""
    pmu = make(
        {"energy-pkg": {0: 100, 18: 80}, "energy-ram": {0: 9, 18: 7}, "energy-psys": {0: 300, 18: 0}},
        packages={0: 0, 18: 1},
    )
    sensor = only(probe(pmu)[0])
    start = pmu.time
    pmu.curves[2, 0].set(start + 1000, 250)
    measured = joules(sensor, pmu, 5000.0)
    assert set(measured) == {"cpu:0", "dram:0", "cpu:1", "dram:1"}
    assert measured["cpu:0"] == pytest.approx(pmu.true_energy_j("energy-pkg", 0, start, pmu.time), abs=1e-4)
    assert measured["cpu:0"] > 2**18
    assert measured["cpu:1"] == pytest.approx(400_000, abs=1e-4)
    assert measured["dram:1"] == pytest.approx(35_000, abs=1e-4)
    assert {channel.wrap_j for channel in sensor.channels} == {None}


def test_channels_say_what_they_are(make):
    """A channel carries kind, source, place, period and error."""
    pmu = make({"energy-pkg": {0: 100}, "energy-ram": {0: 9}})
    package, memory = only(probe(pmu)[0]).channels
    assert (package.kind, package.source, package.device) == ("cpu", "perf", "power/energy-pkg/cpu0")
    assert (memory.kind, memory.relative_error, memory.period_s) == ("dram", 0.2, 0.001)


def test_laptop_counts_the_package_only(make):
    """On a client (it has ``energy-gpu``) nothing is added to the package."""
    events = {"energy-cores": 10, "energy-pkg": 15, "energy-ram": 3, "energy-gpu": 1, "energy-psys": 30}
    pmu = make({name: {0: watts} for name, watts in events.items()})
    sensors, findings = probe(pmu)
    assert joules(only(sensors), pmu, 10.0) == {"cpu:0": pytest.approx(150, rel=1e-4)}
    assert statuses(findings) == {"energy-pkg on CPU 0": "used", "energy-ram on CPU 0": "unused"}


def test_mirrored_dies_count_once(make):
    """Dies, or packages, that move by the same counts time after time are one counter; others are counters of their own."""
    same = {"energy-pkg": {0: 68, 8: 68, 16: 68, 24: 68}}
    dies = make(same, packages=dict.fromkeys((0, 8, 16, 24), 0))
    assert joules(only(probe(dies)[0]), dies, 10.0) == {"cpu:0": pytest.approx(680, rel=1e-4)}
    guest = make(same, packages={0: 0, 8: 1, 16: 2, 24: 3})
    assert joules(only(probe(guest)[0]), guest, 10.0) == {"cpu:0": pytest.approx(680, rel=1e-4)}
    alike = {"energy-pkg": {0: 68, 8: 68.068, 16: 68.136, 24: 68.2}}
    packages = make(alike, packages={0: 0, 8: 1, 16: 2, 24: 3})
    assert len(only(probe(packages)[0]).channels) == 4
    unknown = make(alike)
    assert len(only(probe(unknown)[0]).channels) == 4


@pytest.mark.parametrize(
    ("model", "release", "doubted"), [(143, "5.15.0-91", True), (143, "6.1.0", False), (106, "5.15.0", False)]
)
def test_memory_of_sapphire_rapids_is_doubted_under_old_kernels(make, tmp_path, model, release, doubted):
    """Its unit was wrong by 4 before Linux 6.1, unless a distribution has mended that: nothing shows which."""
    write = tmp_path / "proc" / "sys" / "kernel"
    write.mkdir(parents=True)
    (write / "osrelease").write_text(release)
    cpu = f"vendor_id : GenuineIntel\ncpu family : 6\nmodel : {model}\nstepping : 8\n"
    (tmp_path / "proc" / "cpuinfo").write_text(cpu)
    pmu = make({"energy-pkg": {0: 200}, "energy-ram": {0: 15}})
    sensors, _ = probe(pmu, proc=tmp_path / "proc")
    _, memory = only(sensors).channels
    assert (memory.relative_error == 3.0) == doubted == ("quarter" in memory.note)


def test_psys_that_stays_at_zero(make):
    """A guest's PMU with nothing but a psys that reads 0 for ever is dead, not 0 J."""
    pmu = make({"energy-psys": {0: 0}})
    sensors, (finding,) = probe(pmu)
    assert (sensors, finding.status) == ([], "dead")


def test_psys_alone_is_not_the_cpu(make):
    """A psys that lives is no meter of the CPU either."""
    sensors, (finding,) = probe(make({"energy-psys": {0: 30}}))
    assert (sensors, finding.status) == ([], "unused")


def test_pmu_without_events(make):
    """A PMU that offers no event of use is reported as missing."""
    sensors, (finding,) = probe(make({"energy-cores": {0: 30}}))
    assert (sensors, finding.status) == ([], "missing")


def test_dead_package(make):
    """A package that never advances is dead; the other package is used, its memory with it."""
    pmu = make({"energy-pkg": {0: 0, 1: 50}, "energy-ram": {0: 0, 1: 5}}, packages={0: 0, 1: 1})
    sensors, findings = probe(pmu)
    assert [channel.id for channel in only(sensors).channels] == ["cpu:0", "dram:0"]
    assert only(sensors).channels[0].device.endswith("cpu1")
    assert statuses(findings)["energy-pkg on CPU 0"] == "dead"


def test_denied(make):
    """Where the kernel refuses, one finding names the setting that permits it."""
    pmu = make({"energy-pkg": {0: 50, 1: 50}})
    pmu.denied = True
    sensors, (finding,) = probe(pmu)
    assert (sensors, finding.status) == ([], "denied")
    assert finding.remedy.startswith("sudo sysctl kernel.perf_event_paranoid=0 ")


def test_no_pmu(tmp_path):
    """Without the PMU there is no sensor and one finding says so."""
    sensors, (finding,) = perf.probe(tmp_path)
    assert (sensors, finding.status) == ([], "missing")


def test_event_the_kernel_does_not_know(make):
    """An event that cannot be opened is left out with its reason."""
    pmu = make({"energy-pkg": {0: 50}, "energy-ram": {0: 5}})
    del pmu.curves[3, 0]
    sensors, findings = probe(pmu)
    assert [channel.id for channel in only(sensors).channels] == ["cpu:0"]
    assert statuses(findings)["energy-ram on CPU 0"] == "failed"


def test_read_that_gives_nothing(make):
    """An event in error state gives no value and a reason; it is asked again."""
    pmu = make({"energy-pkg": {0: 50}})
    sensor = only(probe(pmu)[0])
    pmu.break_reads()
    (reading,) = sensor.read()
    assert (reading.outcome, reading.value) == (Outcome.AGAIN, None)
    assert reading.reason
    pmu.time += 1
    assert sensor.read()[0].outcome is Outcome.OK


def test_right_withdrawn(make):
    """An event that may not be opened again is gone."""
    pmu = make({"energy-pkg": {0: 50}})
    sensor = only(probe(pmu)[0])
    pmu.denied = True
    sensor.reopen()
    (reading,) = sensor.read()
    assert (reading.outcome, reading.value) == (Outcome.GONE, None)


def test_reopen_and_close(make):
    """A reopened event counts on from 0; closing twice is harmless and leaves no file open."""
    pmu = make({"energy-pkg": {0: 50}, "energy-ram": {0: 5}})
    sensor = only(probe(pmu)[0])
    pmu.time += 10
    sensor.reopen()
    sensor.read()
    pmu.time += 10
    assert values(sensor)["cpu:0"] == pytest.approx(500, rel=1e-4)
    sensor.close()
    sensor.close()
    pmu.close()
    before = descriptors()
    fresh = only(probe(pmu)[0])
    fresh.close()
    pmu.close()
    assert descriptors() == before


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the power PMU exists on x86 only")
def test_real_system_call():
    """The real system call opens a counter that advances with time, or refuses with an error number."""
    try:
        fd = perf.open_event(SOFTWARE, CPU_CLOCK, 0)
    except OSError as error:
        pytest.skip(f"perf is not permitted here: {error}")
    try:
        first = int.from_bytes(os.read(fd, 8), "little")
        time.sleep(0.005)
        last = int.from_bytes(os.read(fd, 8), "little")
    finally:
        os.close(fd)
    assert last > first > 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the power PMU exists on x86 only")
def test_real_system_call_refuses():
    """A PMU that does not exist is an OSError with the kernel's number, not a file descriptor of -1."""
    with pytest.raises(OSError, match=r"\[Errno \d+\]") as caught:
        perf.open_event(2**31 - 1, 0, 0)
    assert caught.value.errno
