"""What doctor makes of readings and findings; its behaviour on whole machines is in test_cli."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimeter.commands import doctor, watch
from aimeter.commands.diagnosis import METERED, NOT_METERED, PARTLY
from aimeter.sensors.base import Channel, Finding, Outcome, Reading

COUNTER = Channel(
    id="gpu:0", kind="gpu", method="counter", quantity="energy", name="GPU", device="GPU-1", source="nvml",
    period_s=0.1,
)  # fmt: skip


def readings(values, step_s=0.04):
    return [Reading(k * step_s, k * step_s + 0.001, Outcome.OK, value) for k, value in enumerate(values)]


def test_a_staircase_shows_its_period_and_power():
    """A counter that moves at every third reading has a period of three intervals, and its true power."""
    seen = watch.observe(COUNTER, readings([12.0 * (k // 3) for k in range(40)]))
    assert seen.period_s == pytest.approx(0.12)
    assert seen.power_w == pytest.approx(100)
    assert seen.interval_s == pytest.approx(0.04)
    assert seen.reading_s == pytest.approx(0.001)
    assert seen.fault is None


def test_a_value_new_at_every_reading_shows_no_period():
    """A period shorter than the time between readings is not made up; a fall of the counter is no energy."""
    seen = watch.observe(COUNTER, readings([*range(20), *range(20)]))
    assert seen.period_s is None
    assert seen.power_w == pytest.approx(1 / 0.04, rel=0.05)


def test_silence_is_a_fault_of_counters_only():
    """A counter that does not move is faulty, a power that does not is steady, no value has a reason."""
    still = readings([5.0] * 20)
    power = replace(COUNTER, quantity="power", method="power")
    refused = [Reading(0.0, 0.0, Outcome.GONE, None, "the GPU is lost")]
    assert watch.observe(COUNTER, still).fault == "has not advanced for 0.8 s"
    assert watch.observe(power, still)[3:] == (5.0, None)
    assert watch.observe(COUNTER, refused).fault == "the GPU is lost"
    assert watch.observe(COUNTER, []).fault == "was not read"


def finding(source, status, subject="x", remedy=""):
    return Finding(source, subject, status, "Detail.", remedy)


def test_only_what_would_meter_a_device_is_a_gap():
    """No driver without a GPU, and other views of a metered CPU, are no gaps; what is broken is one."""
    counted = finding("powercap", "used", "package-0")
    no_driver = finding("nvml", "missing", "NVIDIA driver", "install it")
    assert doctor.gaps_among([counted, no_driver, finding("perf", "denied")], nvidia=False) == []
    assert doctor.gaps_among([counted, no_driver], nvidia=True) == [no_driver]
    for gap in (
        finding("powercap", "dead", "package-1"),
        finding("nvml", "failed", "NVIDIA driver"),
        finding("nvml", "missing", "gpu:0 Old GPU"),
        finding("somebody's", "failed"),
    ):
        assert doctor.gaps_among([counted, gap], nvidia=False) == [gap]
    mendable = finding("perf", "denied", remedy="sysctl")
    no_rapl = finding("powercap", "missing")
    estimated = finding("estimate", "used")
    assert doctor.gaps_among([no_rapl, mendable, estimated], nvidia=False) == [mendable]


def test_verdicts():
    """The status is 0 only if everything found is measured, and 2 if nothing is metered at all."""
    good = watch.report_of(COUNTER, watch.observe(COUNTER, readings(range(20))))
    estimate = replace(good, id="cpu:0", method="estimate")
    broken = replace(good, id="gpu:1", fault="is lost")
    gap = finding("nvml", "failed")
    assert doctor.judge([good], [], enabled=True)[0] == METERED
    assert doctor.judge([good, estimate], [], enabled=True)[0] == PARTLY
    assert doctor.judge([good, broken], [], enabled=True)[0] == PARTLY
    assert doctor.judge([good], [gap], enabled=True)[0] == PARTLY
    assert doctor.judge([broken], [gap], enabled=True)[0] == NOT_METERED
    assert doctor.judge([], [], enabled=True)[0] == NOT_METERED
    assert doctor.judge([good], [], enabled=False)[0] == NOT_METERED


@pytest.mark.parametrize(("gain", "told"), [(0.57, True), (1.0, False)])
def test_a_counter_that_its_power_contradicts_is_told(nvml, gain, told):
    """What ml-energy/zeus#181 reports of a counter 43 % low: the doctor names both figures."""
    nvml.add("a100", counter_gain=gain).set_power(200.0)
    found = doctor.examine({"calibration": "off", "region": "FR"})
    (gpu,) = [meter for meter in found.meters if meter.id == "gpu:0"]
    assert any("one of them is wrong" in note for note in gpu.notes) == told


def test_an_nvidia_gpu_shows_on_the_bus(tmp_path):
    """A display controller by NVIDIA is a GPU; its audio function, and another vendor's display, are not."""
    for name, vendor, base_class in (
        ("00", "0x10de", "0x040300"),
        ("01", "0x8086", "0x030000"),
        ("02", "", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{base_class}\n")
    assert not doctor.nvidia_on_bus(tmp_path)
    (tmp_path / "00" / "class").write_text("0x030200\n")
    assert doctor.nvidia_on_bus(tmp_path)
    assert not doctor.nvidia_on_bus(tmp_path / "absent")
