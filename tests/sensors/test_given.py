"""Sensors that a program hands to its meter."""

from __future__ import annotations

import pytest

import aimeter
from aimeter.errors import ConfigurationError
from aimeter.sensors.base import Finding, Outcome
from aimeter.sensors.nvml import probe
from aimeter.testing import FakeClock, FakeSensor
from tests.emulator.clock import EmulatedClock
from tests.emulator.nvml import GPU_IS_LOST
from tests.sampling.test_revisit import EVERY_WAY


@pytest.fixture
def clock():
    return FakeClock()


def test_channels_of_one_id_are_refused(clock, tmp_path):
    """Figures are told apart by it: two plugs of one would be one device, and its error one plug's."""
    plugs = [FakeSensor(clock, watts, id="other:0", device=f"plug {watts}") for watts in (60.0, 20.0)]
    log = tmp_path / "calls.csv"
    with pytest.raises(ConfigurationError, match=r"other:0' .*FakeSensor.*id of its own"):
        aimeter.Meter(sensors=plugs, clock=clock, region="FR", log=log)
    assert not log.exists()
    own = [FakeSensor(clock, watts, id=f"other:{k}") for k, watts in enumerate((60.0, 20.0))]
    meter = aimeter.Meter(sensors=own, clock=clock, region="FR")
    with meter.track("x") as call:
        clock.sleep(1.0)
    assert call.energy_j == pytest.approx(80.0)


@pytest.mark.parametrize("takes_s", [0.0, 0.3])
@pytest.mark.parametrize("window_s", [0.0, 0.5])
def test_a_power_that_is_published_all_the_time_is_metered_by_every_reading(clock, window_s, takes_s):
    """A period of 0 says so: nothing is waited for, nothing is lost, and no sensor is asked more often than usual."""

    class Plug(FakeSensor):
        def read(self):
            (reading,) = super().read()
            clock.sleep(takes_s)
            return [reading._replace(after_s=clock())]

    sensor = Plug(
        clock, lambda t: 100.0 if 1005.0 <= t < 1012.0 else 20.0, quantity="power", window_s=window_s
    )
    with aimeter.Meter(sensors=[sensor], clock=clock, region="FR", calibration="off") as meter:
        with meter.track("before"):
            clock.sleep(1005.0 - clock())
        reads = sensor.reads
        with meter.track("call") as call:
            clock.sleep(7.0)
        assert sensor.reads - reads <= 7.0 / (0.05 + takes_s) * 1.1 + 2
        assert call.record.coverage == 1.0
        assert call.energy_j == pytest.approx(700.0, abs=call.error_j)
        assert call.error_j < 1.5 * 80.0 * (window_s + takes_s + 0.2)
        with meter.track("steady") as steady:
            clock.sleep(20.0)
        assert steady.record.coverage == 1.0


def test_a_sensor_that_never_gave_a_value_is_named_in_rows(clock):
    """Whether it stopped or never began: the row says what is not in its joules, and why."""
    broken, cpu = FakeSensor(clock, id="other:0"), FakeSensor(clock, id="cpu:0")
    broken.fault = Outcome.GONE
    with aimeter.Meter(sensors=[broken, cpu], clock=clock, region="FR") as meter:
        with meter.track("x") as call:
            clock.sleep(1.0)
        assert call.record.meta["aimeter"]["missing"] == {"other:0": "the test says so"}
        broken.fault = None
        clock.sleep(60.0)
        with meter.track("x") as call:
            clock.sleep(1.0)
        assert "missing" not in call.record.meta["aimeter"]


def test_the_doctor_is_not_named_where_it_knows_nothing(caplog, nvml):
    """It looks for the meters that aimeter knows; of those that a program hands over it knows nothing."""
    clock, device = EmulatedClock(nvml), nvml.add("h100")
    ((gpu,), _) = probe({}, clock)
    own = FakeSensor(clock, id="other:0")
    meter = aimeter.Meter(sensors=[own, gpu], clock=clock, region="FR", calibration="off")
    own.fault = Outcome.GONE
    for function in EVERY_WAY:
        device.fault(function, GPU_IS_LOST)
    with meter.track("x"):
        clock.sleep(1.0)
    lost = {line.partition(" ")[0]: line for line in caplog.messages if "not metered any more" in line}
    assert lost["other:0"].endswith("Rows say so in `coverage`.")
    assert lost["gpu:0"].endswith("`aimeter doctor` looks for the cause.")
    meter.close()


def test_a_sensor_that_another_one_covers_is_found_unused(clock):
    """It is not read beside it, so that no joule counts twice; that it was left out can be seen."""
    plug = FakeSensor(clock, 60.0, id="other:0", covers=("cpu", "dram"))
    cpu = FakeSensor(clock, 20.0, id="cpu:0", name="package-0", source="powercap")
    with aimeter.Meter(sensors=[cpu, plug], clock=clock, region="FR") as meter:
        with meter.track("x") as call:
            clock.sleep(1.0)
        assert call.energy_j == pytest.approx(60.0)
        assert meter.findings == [
            Finding(
                "powercap", "cpu:0 package-0", "unused", "It works, but the figure of other:0 covers the cpu."
            )
        ]


def test_a_figure_that_covers_others_says_so_in_rows_without_a_note(clock):
    """A note is optional; what the figure holds is not unknown for that."""
    wall = FakeSensor(clock, 60.0, id="other:0", covers=("gpu", "cpu"))
    with aimeter.Meter(sensors=[wall], clock=clock, region="FR") as meter:
        with meter.track("x") as call:
            clock.sleep(1.0)
        assert call.record.meta["aimeter"]["covers"] == {"other:0": "includes gpu, cpu"}
