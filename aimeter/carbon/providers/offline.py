"""The offline tables as a provider: one value that holds for every time."""

from __future__ import annotations

from dataclasses import dataclass

from aimeter.carbon.location import Zone
from aimeter.carbon.offline import lookup
from aimeter.carbon.providers.base import DAY_S, ProviderFault, answer
from aimeter.carbon.series import Point, Series, kind_from
from aimeter.errors import UnknownRegionError


@dataclass(frozen=True, slots=True)
class Offline:
    """Codecarbon's installed tables; see `aimeter.carbon.offline`."""

    period_s: float = DAY_S
    name: str = "offline"

    @property
    def cache_key(self) -> None:
        """None: what it says is not kept."""
        return None

    def zone_of(self, zone: Zone) -> str:
        """Return the zone's own code."""
        return zone.code

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return one point over the interval, with the year that it is of."""
        try:
            found = lookup(zone)
        except UnknownRegionError as error:
            raise ProviderFault(str(error), refused=True) from None
        if found.g_per_kwh is None:
            raise ProviderFault(found.source)
        words = found.method.split(";")
        point = Point(start_s, end_s, found.g_per_kwh, estimated="estimated=yes" in words)
        series = answer(found.zone or zone, kind_from(found.method), found.source, [point])
        return Series(series.zone, series.kind, series.source, series.points, found.year)
