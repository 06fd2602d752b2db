"""Great Britain's Carbon Intensity API, of its system operator: half hours, national and by region, without a key.

``GET /intensity/{from}/{to}`` and ``/regional/intensity/{from}/{to}/regionid/{id}`` (or ``postcode/{code}``), at most
14 days (https://carbon-intensity.github.io/api-definitions). CO2 at the power station, imports included: its factors
of nuclear and wind are 0, so it lies below any life-cycle figure. Regional values are forecasts only. Data: CC BY 4.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aimeter.carbon.location import Zone
from aimeter.carbon.providers.base import (
    DAY_S,
    HALF_HOUR_S,
    ProviderFault,
    answer,
    epoch,
    no_zone,
    utc,
)
from aimeter.carbon.providers.http import Request, get_json
from aimeter.carbon.series import Kind, Point, Series

_KIND = Kind("direct-co2", "consumption")
_LONGEST_S = 13 * DAY_S
_POSTCODE = re.compile(r"[A-Z]{1,2}\d[A-Z\d]?")


@dataclass(frozen=True, slots=True)
class GreatBritain:
    """The Carbon Intensity API. A zone is ``GB``, a region's number (1 to 17) or an outward postcode (``RG10``).

    Args:
        base: Address of the service.
    """

    base: str = field(default="https://api.carbonintensity.org.uk", repr=False)
    period_s: float = HALF_HOUR_S
    name: str = "gb"

    @property
    def cache_key(self) -> str:
        """Where it was asked."""
        return self.base

    def zone_of(self, zone: Zone) -> str:
        """Return ``GB``, for the country and for the cloud regions in it."""
        if zone.grid != "GB":
            raise no_zone(self.name, zone, "GB, 13 or RG10; it knows Great Britain alone")
        return "GB"

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the half hours of an interval, of which it gives 14 days at once."""
        first_s = max(start_s, end_s - _LONGEST_S)
        return self._ask(zone, f"{_time(first_s)}/{_time(end_s + HALF_HOUR_S)}")

    def forecast(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the forecast, which reaches 48 hours ahead."""
        ahead = "fw24h" if end_s - start_s <= DAY_S else "fw48h"
        return self._ask(zone, f"{_time(start_s)}/{ahead}")

    def _ask(self, zone: str, span: str) -> Series:
        document = get_json(
            Request(f"{self.base}/{_path(zone, span)}", headers={"Accept": "application/json"})
        )
        try:
            return self._read(document, zone)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError):
            pass
        message = "gb: the answer is not of the documented form"
        raise ProviderFault(message)

    def _read(self, document: Any, zone: str) -> Series:  # noqa: ANN401 - foreign JSON
        data = document["data"]
        if isinstance(data, dict):
            told = str(data.get("shortname") or zone)
            data = data["data"]
        else:
            told = zone
        points = []
        for one in data:
            found = one["intensity"]
            actual = found.get("actual")
            value = found.get("forecast") if actual is None else actual
            if value is not None:
                points.append(Point(epoch(one["from"]), epoch(one["to"]), value, actual is None))
        return answer(zone, _KIND, f"GB Carbon Intensity API; {told}", points)


def _path(zone: str, span: str) -> str:
    if zone.upper() == "GB":
        return f"intensity/{span}"
    if zone.isdigit():
        return f"regional/intensity/{span}/regionid/{zone}"
    if _POSTCODE.fullmatch(zone.upper()):
        return f"regional/intensity/{span}/postcode/{quote(zone.upper(), '')}"
    message = f"gb: {zone!r:.40} is neither GB, a region's number nor an outward postcode"
    raise ProviderFault(message, refused=True)


def _time(seconds: float) -> str:
    return utc(seconds, "%Y-%m-%dT%H:%MZ")
