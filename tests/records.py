"""Records for tests of logs and reports."""

from __future__ import annotations

from typing import Any

from aimeter.record import SCHEMA, Record

_USUAL: dict[str, Any] = {
    "schema": SCHEMA,
    "call_id": "5b1f0c9e4a7d4c5e",
    "parent_id": None,
    "name": "image-gen",
    "status": "ok",
    "error_type": None,
    "start": "2026-11-22T10:00:00.000001Z",
    "duration_s": 0.25,
    "pid": 4711,
    "thread": "MainThread",
    "energy_j": 12.5,
    "error_j": 1.3,
    "resolution_j": 0.5,
    "self_j": 12.5,
    "window_j": 12.5,
    "idle_j": 2.25,
    "gpu_j": 10.0,
    "cpu_j": 2.5,
    "dram_j": None,
    "other_j": None,
    "gpu_method": "counter",
    "cpu_method": "estimate",
    "dram_method": "none",
    "devices": "gpu:0 cpu:0",
    "coverage": 1.0,
    "concurrency": 1.0,
    "items": None,
    "images": 4.0,
    "tokens_in": None,
    "tokens_out": None,
    "steps": None,
    "audio_s": None,
    "model": None,
    "pue": 1.0,
    "intensity_g_per_kwh": 475.0,
    "intensity_source": "codecarbon 3.3.2 world 2023",
    "intensity_method": "average",
    "zone": "world",
    "co2e_g": 0.00165,
    "embodied_g": None,
    "meta": {},
    "aimeter_version": "0.1.0",
    "co2e_error_g": 0.000172,
    "intensity_lower_g_per_kwh": None,
    "intensity_upper_g_per_kwh": None,
    "market_g_per_kwh": None,
    "market_co2e_g": None,
    "embodied_lower_g": None,
    "embodied_upper_g": None,
    "water_site_l": None,
    "water_grid_l": None,
    "pue_source": "at the plug",
    "devices_j": (10.0, 2.5),
    "machine": "m0123456789abcdef",
}


def make_record(**changes: Any) -> Record:
    """Build a usual record with some columns changed."""
    return Record(**{**_USUAL, **changes})
