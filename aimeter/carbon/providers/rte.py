"""France: RTE's eCO2mix, published every quarter of an hour on the ODRÉ portal, without a key.

``GET /api/explore/v2.1/catalog/datasets/DATASET/records`` (Opendatasoft Explore API 2.1) of ``eco2mix-national-tr``
(measured from afar, preliminary) and of ``eco2mix-national-cons-def`` (consolidated, some months later). Grams of CO2
at the power station for each kilowatt-hour generated in France, no imports (RTE, "Eclairages sur le calcul du taux
de CO2").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aimeter._support.clocks import time
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
from aimeter.carbon.providers.http import TOTAL_S, Request, get_json
from aimeter.carbon.series import Kind, Point, Series

_KIND = Kind("direct-co2", "production")
_QUARTER_S = 900.0
_PAGE = 100
"""Records that the portal gives at once."""
_PAGES = 10
_LIVE_S = 45 * DAY_S
"""The live data set reaches back so far at least: the consolidated one follows within the month after."""


@dataclass(frozen=True, slots=True)
class Rte:
    """ECO2mix.

    Args:
        base: Address of the portal.
    """

    base: str = field(default="https://odre.opendatasoft.com", repr=False)
    period_s: float = _QUARTER_S
    name: str = "rte"

    @property
    def cache_key(self) -> str:
        """Where it was asked."""
        return self.base

    def zone_of(self, zone: Zone) -> str:
        """Return ``FR``, for the country and for the cloud regions in it."""
        if zone.grid != "FR":
            raise no_zone(self.name, zone, "FR; it knows France alone")
        return "FR"

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the quarters or half hours of an interval, at most a thousand."""
        if zone != "FR":
            message = f"rte: it knows FR alone, not {zone!r:.20}"
            raise ProviderFault(message, refused=True)
        live = time.time() - start_s < _LIVE_S
        dataset = "eco2mix-national-tr" if live else "eco2mix-national-cons-def"
        # A value comes half an hour late and more: the newest one before the interval is wanted as well.
        since, until = utc(start_s - 4 * HALF_HOUR_S), utc(end_s)
        records: list[Any] = []
        late_s = time.monotonic() + TOTAL_S
        for page in range(_PAGES):
            found = self._page(dataset, since, until, page * _PAGE)
            records += found
            if len(found) < _PAGE or time.monotonic() > late_s:  # the newest come first
                break
        step_s = _QUARTER_S if live else HALF_HOUR_S
        try:
            points = [
                Point(epoch(one["date_heure"]), epoch(one["date_heure"]) + step_s, one["taux_co2"], live)
                for one in records
                if one["taux_co2"] is not None
            ]
        except (KeyError, TypeError, ValueError, OverflowError):
            points = None
        if points is None:
            raise _strange()
        return answer("FR", _KIND, f"RTE eCO2mix; {dataset}", points)

    def _page(self, dataset: str, since: str, until: str, offset: int) -> list[Any]:
        document = get_json(
            Request(
                f"{self.base}/api/explore/v2.1/catalog/datasets/{dataset}/records",
                {
                    "select": "date_heure,taux_co2",
                    # Without this the newest rows are the quarters still to come, all empty.
                    "where": f"taux_co2 IS NOT NULL AND date_heure >= date'{since}' AND date_heure <= date'{until}'",
                    "order_by": "date_heure DESC",
                    "limit": str(_PAGE),
                    "offset": str(offset),
                },
            )
        )
        found = document.get("results") if isinstance(document, dict) else None
        if not isinstance(found, list):
            raise _strange()
        return found


def _strange() -> ProviderFault:
    return ProviderFault("rte: the answer is not of the documented form")
