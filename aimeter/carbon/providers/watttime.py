"""WattTime v3: five-minute marginal (``co2_moer``) and average (``co2_aoer``) rates.

``GET /login`` with HTTP Basic gives a token for 30 minutes, ``GET /v3/historical`` and ``/v3/forecast`` the values
(https://docs.watttime.org). They are pounds of CO2 for a megawatt-hour: 1 lb/MWh is 0.45359237 g/kWh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aimeter._support.clocks import time
from aimeter._support.secret import Secret
from aimeter.carbon.intensity import Signal, g_per_kwh_from_lb_per_mwh
from aimeter.carbon.location import Zone
from aimeter.carbon.providers.base import HOUR_S, ProviderFault, answer, epoch, no_zone, utc
from aimeter.carbon.providers.http import TOTAL_S, Request, get_json
from aimeter.carbon.series import Kind, Point, Series

_UNIT = "lbs_co2_per_mwh"
_STEP_S = 300.0
_UNAUTHORIZED = 401
_TOKEN_S = 25 * 60.0
"""A token holds for 30 minutes; it is renewed before."""


@dataclass(slots=True)
class WattTime:
    """WattTime.

    Args:
        user: Name of the account.
        password: Its password.
        signal: ``average``, or ``marginal``, which is all that a free account has.
        base: Address of the service.
    """

    user: str
    password: Secret
    signal: Signal = "average"
    base: str = field(default="https://api.watttime.org", repr=False)
    period_s: float = _STEP_S
    name: str = "watttime"
    _token: tuple[float, Secret] | None = field(default=None, repr=False)

    @property
    def cache_key(self) -> str:
        """Where it was asked, for which numbers, and by whom: another key is another try."""
        return f"{self.base} {self.signal} {self.user} {self.password.mark()}"

    def zone_of(self, zone: Zone) -> str:
        """Refuse: its regions are its own, and what belongs to a place is asked by coordinates only."""
        raise no_zone(self.name, zone, "CAISO_NORTH")

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the rates of the interval and an hour before."""
        span = {"start": utc(start_s - HOUR_S), "end": utc(end_s)}
        return self._ask("historical", zone, span, ahead=False)

    def forecast(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return the forecast made last, which reaches at most three days ahead."""
        hours = min(max(round((end_s - start_s) / HOUR_S), 1), 72)
        return self._ask("forecast", zone, {"horizon_hours": str(hours)}, ahead=True)

    def _ask(self, what: str, zone: str, params: dict[str, str], *, ahead: bool) -> Series:
        signal = "co2_moer" if self.signal == "marginal" else "co2_aoer"
        held = self._token is not None
        until_s = time.monotonic() + TOTAL_S  # of log-ins and answers together, up to four exchanges
        try:
            document = self._get(what, zone, signal, params, until_s)
        except ProviderFault as fault:
            if not held or fault.status != _UNAUTHORIZED:
                raise
            document = self._get(what, zone, signal, params, until_s)  # it was withdrawn before its time
        try:
            return self._read(document, zone, signal, ahead=ahead)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            pass
        message = "watttime: the answer is not of the documented form"
        raise ProviderFault(message)

    def _get(self, what: str, zone: str, signal: str, params: dict[str, str], until_s: float) -> Any:  # noqa: ANN401 - foreign JSON
        token = self._login(until_s)
        try:
            return get_json(
                Request(
                    f"{self.base}/v3/{what}",
                    {"region": zone, "signal_type": signal, **params},
                    {"Authorization": f"Bearer {token}"},
                    secrets=(token, self.password.reveal()),
                ),
                total_s=until_s - time.monotonic(),
            )
        except ProviderFault:
            self._token = None  # it may have been withdrawn
            raise

    def _login(self, until_s: float) -> str:
        if self._token is not None and time.monotonic() < self._token[0]:
            return self._token[1].reveal()
        password = self.password.reveal()
        request = Request(f"{self.base}/login", login=(self.user, password), secrets=(password,))
        document = get_json(request, total_s=until_s - time.monotonic())
        token = document.get("token") if isinstance(document, dict) else None
        if not isinstance(token, str) or not token:
            message = "watttime: the log-in gave no token"
            raise ProviderFault(message)
        self._token = time.monotonic() + _TOKEN_S, Secret(token)
        return token

    def _read(self, document: Any, zone: str, signal: str, *, ahead: bool) -> Series:  # noqa: ANN401 - foreign JSON
        meta = document["meta"]
        unit = meta.get("units")
        if unit != _UNIT:
            message = f"watttime: its unit is {unit!r:.40}, not {_UNIT}"
            raise ProviderFault(message, refused=True)
        if meta.get("region", zone) != zone:
            message = f"watttime: it answered for region {meta['region']!r:.40}, not {zone}"
            raise ProviderFault(message, refused=True)
        step_s = float(meta.get("data_point_period_seconds") or _STEP_S)
        points = [
            Point(
                epoch(one["point_time"]),
                epoch(one["point_time"]) + step_s,
                g_per_kwh_from_lb_per_mwh(float(one["value"])),
                estimated=True,  # both rates are models' results
            )
            for one in document["data"]
        ]
        model = (meta.get("model") or {}).get("date")
        source = f"WattTime v3; {signal}{' forecast' if ahead else ''}; {zone}; model {model or 'not stated'}"
        return answer(zone, Kind("direct-co2", "unstated", self.signal), source, points)
