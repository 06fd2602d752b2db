"""The provider that a command asks, chosen by the settings, and its answers."""

from __future__ import annotations

import os
from collections.abc import Sequence

from aimeter import settings as settings_module
from aimeter._support.clocks import time
from aimeter.carbon.intensity import Intensity
from aimeter.carbon.location import resolve
from aimeter.carbon.providers import Provider, ProviderFault, provider
from aimeter.carbon.providers.base import DAY_S, HOUR_S, NoValuesError, checked
from aimeter.carbon.series import Point, Series, mean, tidy
from aimeter.errors import ConfigurationError

WHOLE = 1 - 1e-6
"""Part of a call's time that must have a value, but for rounding."""

_WINDOW_S = 7 * DAY_S
"""The longest interval asked for at once; every provider gives that."""


def chosen(**given: object) -> tuple[Provider, str | None]:
    """Return the provider of the settings and the zone to ask it for, None if no place is set.

    Raises:
        ConfigurationError: None is set, or it cannot be used as it is set.
    """
    settings = settings_module.load({key: value for key, value in given.items() if value is not None})
    if settings.carbon_provider is None:
        message = (
            "No provider of carbon intensity is set: give --provider (gb, rte, electricitymaps …) or set "
            "AIMETER_CARBON_PROVIDER."
        )
        raise ConfigurationError(message)
    found = provider(
        settings.carbon_provider,
        key=settings.carbon_key,
        basis=settings.carbon_basis,
        signal=settings.carbon_signal,
        environ=os.environ,
    )
    zone = settings.carbon_zone
    if zone is None and settings.region is not None:
        zone = found.zone_of(resolve(settings.region))
    return found, zone


def placed(asked: tuple[Provider, str | None]) -> tuple[Provider, str]:
    """Return a provider and its zone, or say what is missing.

    Raises:
        ConfigurationError: There is no zone.
    """
    found, zone = asked
    if zone is None:
        message = f"{found.name} needs a place: give --region or --zone, or set AIMETER_REGION."
        raise ConfigurationError(message)
    return found, zone


class Answers:
    """A provider's values for one zone, asked for week by week as they are needed."""

    def __init__(self, provider: Provider, zone: str) -> None:
        self.provider = provider
        self.zone = zone
        self.problem = ""
        self._failed = False
        self.last: Series | None = None
        self._weeks: dict[int, Series | None] = {}

    def over(self, start_s: float, end_s: float) -> Intensity | None:
        """Return the intensity of a call's time if there is a value for all of it."""
        points: Sequence[Point] = ()
        for week in range(int(start_s // _WINDOW_S), int(end_s // _WINDOW_S) + 1):
            if week not in self._weeks:
                self._weeks[week] = self._ask(week * _WINDOW_S)
            series = self._weeks[week]
            if series is None:
                return None
            # Two weeks' answers may overlap at their common end.
            points = tidy([*points, *series.points]) if points else series.points
        series = self.last
        found = mean(points, start_s, end_s)
        if series is None or found is None or found.covered < WHOLE:
            return None
        method = series.kind.describe(estimated=found.estimated)
        return Intensity(
            found.g_per_kwh, series.source, method, series.zone, series.year, found.lower, found.upper
        )

    def _ask(self, start_s: float) -> Series | None:
        if self._failed:  # nothing is asked faster than a person would
            return None
        end_s = min(start_s + _WINDOW_S, max(time.time(), start_s + HOUR_S))
        try:
            answer = self.provider.series(self.zone, start_s, end_s)
            self.last = checked(answer, self.provider.name)
        except ProviderFault as fault:
            self.problem = str(fault)
            self._failed = not isinstance(fault, NoValuesError)
            return None
        return self.last
