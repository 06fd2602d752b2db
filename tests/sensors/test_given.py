"""Sensors that a program hands to its meter."""

from __future__ import annotations

import pytest

import aimeter
from aimeter.errors import ConfigurationError
from aimeter.testing import FakeClock, FakeSensor


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
