"""The hours ahead in which electricity emits least, by a provider's forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aimeter._support.clocks import time
from aimeter.carbon.providers import Forecaster, ProviderFault
from aimeter.carbon.providers.base import HOUR_S, utc
from aimeter.carbon.series import Series, mean
from aimeter.commands.asking import WHOLE, chosen, placed
from aimeter.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time ahead.

    Attributes:
        start: Begin in UTC, ISO 8601; likewise `end`.
        g_per_kwh: Mean expected intensity.
        ratio: That over the intensity expected now.
    """

    start: str
    end: str
    g_per_kwh: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Best:
    """The lowest windows ahead.

    Attributes:
        provider: Who forecasts.
        zone: For where.
        source: What the forecast is.
        method: What kind of numbers it has.
        now_g_per_kwh: What it has for now; None if nothing.
        windows: The lowest first; they do not overlap.
    """

    provider: str
    zone: str
    source: str
    method: str
    now_g_per_kwh: float | None
    windows: tuple[Window, ...]


def best(
    hours: float,
    length_h: float = 1.0,
    *,
    now: Callable[[], float] = time.time,
    **given: object,
) -> Best:
    """Return the stretches of lowest intensity in the hours ahead, by the provider's forecast.

    Args:
        hours: How far to look ahead.
        length_h: How long a stretch is to be.
        now: Returns the seconds since 1970.
        **given: Settings that go before others, such as `carbon_provider`.

    Raises:
        ConfigurationError: No provider with a forecast is set, or it gave none; the text says why.
    """
    asked, zone = placed(chosen(**given))
    if not isinstance(asked, Forecaster):
        message = f"{asked.name} has no forecast; gb, electricitymaps, watttime and a CSV file have."
        raise ConfigurationError(message)
    now_s = now()
    try:
        series = asked.forecast(zone, now_s, now_s + hours * HOUR_S)
    except ProviderFault as fault:
        message = f"There is no forecast: {fault}."
        raise ConfigurationError(message) from None
    length_s = length_h * HOUR_S
    current = mean(series.points, now_s, now_s)
    current_g = None if current is None else current.g_per_kwh
    return Best(
        asked.name,
        series.zone,
        series.source,
        series.kind.describe(estimated=True),
        current_g,
        tuple(_lowest(series, now_s, now_s + hours * HOUR_S, length_s, current_g)),
    )


def _lowest(
    series: Series, now_s: float, end_s: float, length_s: float, current_g: float | None
) -> Iterator[Window]:
    """Yield windows that do not overlap, the lowest first.

    A window of least mean begins or ends where a value changes or the time ahead ends, so only those are tried.
    """
    edges = {
        now_s,
        end_s - length_s,
        *(edge for point in series.points for edge in (point.start_s, point.end_s - length_s)),
    }
    tried = []
    for start_s in edges:
        found = mean(series.points, start_s, start_s + length_s)
        if start_s >= now_s and start_s + length_s <= end_s and found is not None and found.covered >= WHOLE:
            tried.append((found.g_per_kwh, start_s))
    taken: list[float] = []
    for g_per_kwh, start_s in sorted(tried):
        if all(abs(start_s - other) >= length_s for other in taken):
            taken.append(start_s)
            ratio = g_per_kwh / current_g if current_g else None
            yield Window(utc(start_s), utc(start_s + length_s), g_per_kwh, ratio)
