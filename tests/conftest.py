"""Fixtures for every test module."""

from __future__ import annotations

from tests.emulator.fixtures import nvml

__all__ = ["nvml"]
