"""What a sensor may offer besides reading: other ways to read its device, a new start, a companion."""

from __future__ import annotations

from dataclasses import replace

import pytest

import aimeter
from aimeter.commands.watch import Watched
from aimeter.sensors.base import Accompanied, FallsBack, Outcome, Retakes, Sensor
from aimeter.sensors.nvml import probe
from aimeter.testing import FakeClock, FakeSensor


class Reserve(FakeSensor):
    """A counter that can be given up for another."""

    def __init__(self, clock):
        super().__init__(clock, 100.0)
        self.reserves = 1

    def fall_back(self):
        if not self.reserves:
            return False
        self.reserves -= 1
        self.fault = None
        self.channels = (replace(self.channels[0], name="reserve", method="estimate"),)
        return True


@pytest.fixture
def clock():
    return FakeClock()


@pytest.mark.parametrize("wrap", [lambda sensor: sensor, Watched])
def test_anybodys_sensor_may_fall_back(clock, wrap, caplog):
    """One method is all that it takes, also where the sensor is watched: the other way of reading goes on at once."""
    sensor = Reserve(clock)
    meter = aimeter.Meter(sensors=[wrap(sensor)], clock=clock, calibration="off", region="FR")
    with meter.track("before"):
        clock.sleep(1.0)
    sensor.fault = Outcome.GONE
    clock.sleep(1.0)
    with meter.track("after") as after:
        clock.sleep(2.0)
    assert after.energy_j == pytest.approx(200.0)
    assert [channel.name for channel in sensor.channels] == ["reserve"]
    assert [text for text in caplog.messages if "is used instead of" in text] == caplog.messages


@pytest.mark.parametrize("wrap", [lambda sensor: sensor, Watched])
def test_nothing_is_asked_of_a_sensor_that_has_no_other_way(clock, wrap, caplog):
    """Its channel is lost, which is said once."""
    sensor = FakeSensor(clock, 100.0)
    meter = aimeter.Meter(sensors=[wrap(sensor)], clock=clock, calibration="off", region="FR")
    sensor.fault = Outcome.GONE
    with meter.track("without") as without:
        clock.sleep(1.0)
    assert without.energy_j is None
    assert [text for text in caplog.messages if "is not metered any more" in text] == caplog.messages


def test_the_abilities_are_told_by_their_methods(nvml, clock):
    """A GPU has all of them, a sensor of three methods none."""
    nvml.add("h100")
    ((gpu,), _) = probe({}, clock)
    plain = FakeSensor(clock)
    assert isinstance(gpu, Sensor)
    assert isinstance(plain, Sensor)
    for ability in (FallsBack, Retakes, Accompanied):
        assert isinstance(gpu, ability)
        assert not isinstance(plain, ability)
    gpu.close()
