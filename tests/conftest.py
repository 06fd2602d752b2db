"""Fixtures and settings for every test module."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.emulator.fixtures import nvml

__all__ = ["nvml"]

# Machines are slow at times, and a run in CI is to be repeatable.
settings.register_profile("aimeter", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("aimeter")
