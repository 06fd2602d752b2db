"""The provider that a command asks, chosen by the settings, and its answers."""

from __future__ import annotations

import os

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

_MOST_WEEKS = 520
"""Ten years; a log's times may be anything."""
_LONGEST_S = 300.0
"""How long a command asks altogether, however slow each answer is."""


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
        self._asked = 0
        self._spent_s = 0.0
        self._weeks: dict[int, Series | None] = {}

    def over(self, start_s: float, end_s: float) -> Intensity | None:
        """Return the intensity of a call's time if there is a value for all of it."""
        points: list[Point] = []
        weeks = range(int(start_s // _WINDOW_S), int(end_s // _WINDOW_S) + 1)
        for week in weeks:
            if week not in self._weeks:
                answer = self._ask(week * _WINDOW_S)
                if self._failed:
                    return None
                self._weeks[week] = answer
            series = self._weeks[week]
            if series is None:
                return None
            points += series.points
        series = self.last
        # Two weeks' answers may overlap at their common end.
        found = mean(tidy(points) if len(weeks) > 1 else points, start_s, end_s)
        if series is None or found is None or found.covered < WHOLE:
            return None
        method = series.kind.describe(estimated=found.estimated)
        return Intensity(
            found.g_per_kwh, series.source, method, series.zone, series.year, found.lower, found.upper
        )

    def _ask(self, start_s: float) -> Series | None:
        if self._failed:  # nothing is asked faster than a person would
            return None
        if self._asked == _MOST_WEEKS or self._spent_s > _LONGEST_S:
            self.problem = f"{self.provider.name}: not asked any more, after {self._asked} weeks"
            self._failed = True
            return None
        self._asked += 1
        began_s = time.monotonic()
        end_s = min(start_s + _WINDOW_S, max(time.time(), start_s + HOUR_S))
        try:
            answer = self.provider.series(self.zone, start_s, end_s)
            self.last = checked(answer, self.provider.name)
        except ProviderFault as fault:
            self.problem = str(fault)
            self._failed = not isinstance(fault, NoValuesError)
            return None
        finally:
            self._spent_s += time.monotonic() - began_s
        return self.last
