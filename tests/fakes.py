"""The fixtures of tests that need a meter of one device at constant power, and no hardware."""

from __future__ import annotations

import pytest

import aimeter
from aimeter.testing import FakeClock, FakeSensor

WATT = 100.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def meter(clock):
    """A meter of one GPU that draws `WATT` by the fake clock."""
    with aimeter.Meter(sensors=[FakeSensor(clock, WATT)], clock=clock, region="FR") as made:
        yield made
