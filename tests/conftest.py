"""Fixtures and settings for every test module."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.emulator.fixtures import nvml
from tests.fakes import clock, meter

__all__ = ["clock", "meter", "nvml"]

# Whatever the user of this machine has calibrated is no part of a test.
os.environ.setdefault("AIMETER_CALIBRATION", "off")

# Machines are slow at times, and a run in CI is to be repeatable. AIMETER_TEST_FUZZ=50 tries fifty times as many examples.
settings.register_profile(
    "aimeter",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=100 * int(os.environ.get("AIMETER_TEST_FUZZ", "1")),
)
settings.load_profile("aimeter")
