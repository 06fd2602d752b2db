"""A meter whose joules and grams are known in the head."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aimeter import Meter
from aimeter.testing import FakeClock, FakeSensor


@pytest.fixture
def meter(clock: FakeClock) -> Iterator[Meter]:
    """A meter of one device of 100 W, in a grid of 360 g/kWh."""
    made = Meter(sensors=[FakeSensor(clock, power_w=lambda _: 100.0)], clock=clock, intensity_g_per_kwh=360.0)
    yield made
    made.close()
