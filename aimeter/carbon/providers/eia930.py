"""The US EIA's hourly grid monitor (form EIA-930): generation by fuel of balancing authorities, times factors.

``GET /v2/electricity/rto/fuel-type-data/data/`` with ``api_key`` (https://www.eia.gov/opendata/documentation.php),
megawatt-hours of the hour that ends at ``period``, UTC ("hour ending", https://www.eia.gov/electricity/gridmonitor/about).
Public domain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aimeter._support.secret import Secret
from aimeter.carbon.location import Zone
from aimeter.carbon.providers import mix
from aimeter.carbon.providers.base import DAY_S, HOUR_S, ProviderFault, answer, epoch, no_zone, utc
from aimeter.carbon.providers.http import Request, get_json
from aimeter.carbon.series import Series

_MOST_ROWS = 5000
"""What one request gives at most."""
_LONGEST_S = 14 * DAY_S
_UNIT = "megawatthours"
_FUELS = {
    "BIO": "biomass",
    "COL": "coal",
    "GEO": "geothermal",
    "NG": "gas",
    "NUC": "nuclear",
    "OIL": "oil",
    "SUN": "solar",
    "WAT": "hydro",
    "WND": "wind",
}
"""Fuel types of the form; other and unknown have no factor."""
_STORAGE = frozenset({"PS", "BAT"})
"""What they give was generated before, and counted then."""


@dataclass(frozen=True, slots=True)
class Eia930:
    """The EIA. A zone is a respondent: ``US48``, ``CISO``, ``PJM``.

    Args:
        key: The key.
        base: Address of the service.
    """

    key: Secret
    base: str = field(default="https://api.eia.gov", repr=False)
    period_s: float = HOUR_S
    name: str = "eia930"

    @property
    def cache_key(self) -> str:
        """Where it was asked, and by whom: another key is another try."""
        return f"{self.base} {self.key.mark()}"

    def zone_of(self, zone: Zone) -> str:
        """Return ``US48`` for the country; which authority serves a state is not one answer."""
        if zone.grid != "US":
            raise no_zone(self.name, zone, "CISO, PJM or US48")
        return "US48"

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the intensity of each hour's generation; what is newest is some hours old."""
        first_s = max(start_s - 6 * HOUR_S, end_s - _LONGEST_S)
        key = self.key.reveal()
        document = get_json(
            Request(
                f"{self.base}/v2/electricity/rto/fuel-type-data/data/",
                (
                    ("api_key", key),
                    ("frequency", "hourly"),
                    ("data[0]", "value"),
                    ("facets[respondent][]", zone),
                    ("start", utc(first_s, "%Y-%m-%dT%H")),
                    ("end", utc(end_s + HOUR_S, "%Y-%m-%dT%H")),
                    ("sort[0][column]", "period"),
                    ("sort[0][direction]", "desc"),
                    ("length", str(_MOST_ROWS)),
                ),
                secrets=(key,),
            )
        )
        try:
            reports = _reports(document["response"]["data"], zone)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            reports = None
        if reports is None:
            message = "eia930: the answer is not of the documented form"
            raise ProviderFault(message)
        return answer(zone, mix.KIND, f"EIA-930; {zone}; {mix.FACTOR_SET}", mix.points(reports))


def _reports(rows: list[Any], zone: str) -> dict[mix.Source, mix.Steps]:
    reports: dict[mix.Source, mix.Steps] = {}
    for row in rows:
        if row["respondent"] != zone:
            message = f"eia930: it answered for {row['respondent']!r:.20}, not {zone}"
            raise ProviderFault(message, refused=True)
        unit = row.get("value-units", _UNIT)
        if unit != _UNIT:
            message = f"eia930: its unit is {unit!r:.40}, not {_UNIT}"
            raise ProviderFault(message, refused=True)
        if row["value"] is None or row["fueltype"] in _STORAGE:
            continue
        end_s = epoch(f"{row['period']}:00")
        fuel = _FUELS.get(row["fueltype"], f"other {row['fueltype']}")
        steps = reports.setdefault(mix.Source(fuel, row["fueltype"]), [])
        steps.append((end_s - HOUR_S, end_s, float(row["value"])))
    if len(rows) >= _MOST_ROWS and reports:  # the oldest hour may lack fuels
        oldest_s = min(step[0] for steps in reports.values() for step in steps)
        return {source: [step for step in steps if step[0] > oldest_s] for source, steps in reports.items()}
    return reports
