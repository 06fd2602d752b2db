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


class Looked(FakeSensor):
    """A counter of which a look takes a while; the value is of the moment at which it begins."""

    def __init__(self, clock, *arguments, look_s=0.0, **settings):
        super().__init__(clock, *arguments, **settings)
        self._look_s = look_s

    def read(self):
        [reading] = super().read()
        self._clock.now_s += self._look_s
        return [reading._replace(after_s=self._clock())]
