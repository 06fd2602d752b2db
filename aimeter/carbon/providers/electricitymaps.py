"""Electricity Maps: hourly intensity of some 350 zones; API v4, and v3 for old contracts.

``GET /v4/carbon-intensity/{latest|history|past-range|forecast}`` with the header ``auth-token``
(https://app.electricitymaps.com/docs). ``disableCallerLookup`` is always sent: without it, a zone that cannot be
resolved is answered with that of the caller's IP address. The zone in the answer is compared as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from aimeter._support.clocks import time
from aimeter._support.secret import Secret
from aimeter.carbon.location import Zone
from aimeter.carbon.providers.base import (
    DAY_S,
    HOUR_S,
    ProviderFault,
    answer,
    epoch,
    no_zone,
    utc,
)
from aimeter.carbon.providers.http import Request, get_json
from aimeter.carbon.series import Kind, Point, Series

_GRANULARITY_S = {"5_minutes": 300.0, "15_minutes": 900.0, "hourly": HOUR_S, "daily": DAY_S}
_HORIZONS = (6, 24, 48, 72)


@dataclass(frozen=True, slots=True)
class ElectricityMaps:
    """Electricity Maps.

    Args:
        key: The token.
        basis: ``lifecycle``, its default, or ``direct``.
        version: ``v4`` or ``v3``.
        base: Address of the service.
    """

    key: Secret
    basis: Literal["lifecycle", "direct"] = "lifecycle"
    version: Literal["v4", "v3"] = "v4"
    base: str = field(default="https://api.electricitymaps.com", repr=False)
    period_s: float = HOUR_S

    @property
    def name(self) -> str:
        """Its name in settings: ``electricitymaps`` or ``electricitymaps-v3``."""
        return "electricitymaps" if self.version == "v4" else "electricitymaps-v3"

    @property
    def cache_key(self) -> str:
        """Where it was asked, for which numbers, and by whom: another key is another try."""
        return f"{self.base} {self.basis} {self.key.mark()}"

    def zone_of(self, zone: Zone) -> str:
        """Return a country's or a zone's code; a cloud region stays as it is, for v4 takes it by name."""
        if ":" in zone.code and self.version == "v4":
            return zone.code
        if zone.grid.startswith(("US-", "CN-")) or not zone.country:
            raise no_zone(self.name, zone, "US-CAL-CISO")
        return zone.grid

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the trailing day, or for an interval before that the past (by contract, at most ten days)."""
        if time.time() - start_s < DAY_S:
            return self._ask("history", zone, ())
        span = (("start", utc(start_s - HOUR_S)), ("end", utc(end_s + HOUR_S)))
        return self._ask("past-range", zone, span)

    def forecast(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the forecast, by the shortest horizon offered that reaches the end."""
        hours = (end_s - start_s) / HOUR_S
        horizon = next((offered for offered in _HORIZONS if offered >= hours), _HORIZONS[-1])
        return self._ask("forecast", zone, (("horizonHours", str(horizon)),))

    def _ask(self, what: str, zone: str, params: tuple[tuple[str, str], ...]) -> Series:
        where: tuple[tuple[str, str], ...] = (("zone", zone),)
        if ":" in zone:
            provider, _, region = zone.partition(":")
            where = (("dataCenterProvider", provider), ("dataCenterRegion", region))
        basis = (("emissionFactorType", self.basis), ("disableCallerLookup", "true"))
        token = self.key.reveal()
        document = get_json(
            Request(
                f"{self.base}/{self.version}/carbon-intensity/{what}",
                (*where, *basis, *params),
                {"auth-token": token},
                secrets=(token,),
            )
        )
        try:
            return self._read(what, zone, document)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            pass
        message = f"{self.name}: the answer is not of the documented form"
        raise ProviderFault(message)

    def _read(self, what: str, zone: str, document: Any) -> Series:  # noqa: ANN401 - foreign JSON
        items = document.get("forecast" if what == "forecast" else "data", [document])
        told = str(document.get("zone") or next((one["zone"] for one in items if one.get("zone")), zone))
        if ":" not in zone and told != zone:
            message = f"{self.name}: it answered for zone {told:.20}, not {zone}"
            raise ProviderFault(message, refused=True)
        basis = document.get("emissionFactorType") or next(
            (one["emissionFactorType"] for one in items if one.get("emissionFactorType")), self.basis
        )
        if basis != self.basis:
            message = f"{self.name}: it answered with {basis:.20} values, not {self.basis}"
            raise ProviderFault(message, refused=True)
        traced = all(one.get("flowTraced", True) for one in (document, *items))
        kind = Kind(self.basis, "flow-traced" if traced else "production")
        ahead = what == "forecast"
        points = [
            Point(
                epoch(one["datetime"]),
                epoch(one["datetime"])
                + _GRANULARITY_S.get(
                    one.get("temporalGranularity") or document.get("temporalGranularity") or "hourly", HOUR_S
                ),
                one["carbonIntensity"],
                estimated=ahead or bool(one.get("isEstimated", False)),
            )
            for one in items
            if one.get("carbonIntensity") is not None
        ]
        return answer(told, kind, f"Electricity Maps {self.version}; {what}; {told}", points)
