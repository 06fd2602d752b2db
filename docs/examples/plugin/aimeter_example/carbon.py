"""A carbon provider: what a building's own control writes into a file for each hour of the day (UTC)."""

from __future__ import annotations

import json
from pathlib import Path

from aimeter.carbon import Zone
from aimeter.carbon.providers import ProviderFault
from aimeter.carbon.series import Kind, Point, Series

_HOUR_S = 3600.0


class BuildingMix:
    """Reads a JSON list of 24 numbers in g CO2e/kWh, from midnight on."""

    name = "building"  # in rows: aimeter.carbon.provider of meta
    period_s = _HOUR_S  # it is asked again no sooner
    cache_key = None  # keeps its answers off the disk: the file is as near

    def __init__(self, file: Path) -> None:
        self._file = file

    def zone_of(self, zone: Zone) -> str:
        """Return its name for a zone; a provider with names of its own translates here."""
        return zone.code

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the hours from `start_s` to `end_s`, seconds since 1970; asked in the background."""
        try:
            by_hour = [float(value) for value in json.loads(self._file.read_text("utf-8"))]
            hours = range(int(start_s // _HOUR_S), int(end_s // _HOUR_S) + 1)
            points = tuple(Point(hour * _HOUR_S, (hour + 1) * _HOUR_S, by_hour[hour % 24]) for hour in hours)
        except (OSError, ValueError, TypeError, IndexError) as error:
            message = f"building: {self._file} has no 24 numbers ({error})"
            raise ProviderFault(message) from error
        return Series(zone, Kind("lifecycle", "consumption"), "building control", points)

    forecast = series  # it looks ahead, too: `aimeter.carbon.providers.Forecaster`
