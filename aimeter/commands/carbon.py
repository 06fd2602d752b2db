"""What the log's joules would have emitted elsewhere or at another time, and what a region's number is."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aimeter import settings as settings_module
from aimeter.carbon import around
from aimeter.carbon.intensity import Intensity, co2e_g
from aimeter.carbon.location import resolve
from aimeter.carbon.offline import lookup
from aimeter.carbon.providers import Forecaster, Provider, ProviderFault, provider
from aimeter.carbon.providers.base import DAY_S, HOUR_S, utc
from aimeter.carbon.recompute import again, is_provisional, times
from aimeter.carbon.series import Point, Series, mean
from aimeter.commands.report import find
from aimeter.errors import ConfigurationError
from aimeter.record import Record
from aimeter.report import read
from aimeter.report.brief import Brief, read_briefs
from aimeter.report.export import export_log

_WINDOW_S = 7 * DAY_S
"""The longest interval asked for at once; every provider gives that."""
_WHOLE = 1 - 1e-6


# compare


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The log's joules with one intensity.

    Attributes:
        place: What was asked for, or ``as logged``.
        zone: The zone of the number.
        g_per_kwh: The intensity; the mean of all rows, weighted by energy, where they differ.
        year: Of the number.
        method: What kind of number it is.
        source: Where it is from.
        co2e_g: Grams.
        ratio: The intensity over the log's own; None if the log has none.
    """

    place: str
    zone: str | None
    g_per_kwh: float | None
    year: int | None
    method: str | None
    source: str | None
    co2e_g: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The comparison.

    Attributes:
        energy_j: All joules, each counted once.
        rows: Rows with energy.
        unknown: Rows without.
        places: As logged first, then what was asked for, the least grams first.
        warnings: What keeps the numbers from being ranked.
    """

    energy_j: float
    rows: int
    unknown: int
    places: tuple[Elsewhere, ...]
    warnings: tuple[str, ...]


def compare(logs: Sequence[str], regions: Sequence[str], *, shift_h: float | None = None) -> WhatIf:
    """Return what the joules of some logs would have emitted in other regions, or at another hour.

    Each row keeps its PUE. A row's `self_j` is taken, so that children are counted once.

    Args:
        logs: Paths or patterns.
        regions: See `aimeter.carbon.location.resolve`.
        shift_h: Hours by which all calls are moved, by the provider of the settings.

    Raises:
        ConfigurationError: A log or a region is unknown, or no provider is set.
    """
    intensities = [(region, lookup(region)) for region in regions]
    energy_j = scaled_j = grams = logged_j = 0.0
    rows = unknown = without = 0
    methods: dict[str, None] = {}
    kept: list[Brief] = []
    for record in read_briefs(find(logs)):
        if record.self_j is None:
            unknown += 1
            continue
        rows += 1
        energy_j += record.self_j
        scaled_j += record.self_j * record.pue
        if record.intensity_g_per_kwh is not None:
            grams += co2e_g(record.self_j, record.intensity_g_per_kwh, record.pue)
            logged_j += record.self_j * record.pue
            methods[record.intensity_method] = None
        else:
            without += 1
        if shift_h is not None:
            kept.append(record)
    known = logged_j > 0
    logged = Elsewhere(
        "as logged",
        None,
        grams / logged_j * 3.6e6 if known else None,
        None,
        " / ".join(methods) or None,
        None,
        grams if known else None,
        1.0 if known else None,
    )
    places = [_elsewhere(region, one, scaled_j, logged.g_per_kwh) for region, one in intensities]
    if shift_h is not None:
        places += _moved(kept, shift_h, logged.g_per_kwh)
    places.sort(key=lambda one: math.inf if one.co2e_g is None else one.co2e_g)
    warnings = list(_unlike((logged, *places)))
    if without:
        warnings.append(f"{without} rows have energy and no intensity: the grams as logged lack them.")
    return WhatIf(energy_j, rows, unknown, (logged, *places), tuple(warnings))


def _elsewhere(region: str, one: Intensity, scaled_j: float, logged_g_per_kwh: float | None) -> Elsewhere:
    grams = None if one.g_per_kwh is None else co2e_g(scaled_j, one.g_per_kwh)
    ratio = one.g_per_kwh / logged_g_per_kwh if one.g_per_kwh is not None and logged_g_per_kwh else None
    return Elsewhere(region, one.zone, one.g_per_kwh, one.year, one.method, one.source, grams, ratio)


def _moved(records: Sequence[Brief], shift_h: float, logged_g_per_kwh: float | None) -> Iterator[Elsewhere]:
    asked, zone = _placed(_provider())
    for hours in (0.0, shift_h):
        series = _Known(asked, zone)
        grams = joules = 0.0
        for record in records:
            start_s, end_s = (moment + hours * HOUR_S for moment in times(record))
            found = series.over(start_s, end_s)
            if found is None:
                continue
            scaled_j = (record.self_j or 0.0) * record.pue
            grams += co2e_g(scaled_j, found.g_per_kwh or 0.0)
            joules += scaled_j
        name = "when it ran, by the provider" if not hours else f"{hours:+g} h, by the provider"
        g_per_kwh = grams / joules * 3.6e6 if joules else None
        ratio = g_per_kwh / logged_g_per_kwh if g_per_kwh is not None and logged_g_per_kwh else None
        last = series.last
        yield Elsewhere(
            name,
            zone,
            g_per_kwh,
            None,
            None if last is None else last.kind.describe(estimated=True),
            series.problem if last is None else last.source,
            grams if joules else None,
            ratio,
        )


def _unlike(places: Iterable[Elsewhere]) -> Iterator[str]:
    """Yield why these numbers must not be ranked against each other."""
    bases = {word for one in places for word in (one.method or "").replace("/", ";").split(";")}
    mixed = sorted(word for word in (text.strip() for text in bases) if word in _BASES)
    if len(mixed) > 1:
        yield f"They are not of one basis ({', '.join(mixed)}): do not rank them against each other."


_BASES = {"lifecycle", "direct", "direct-co2"}


# show


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of one region.

    Attributes:
        region: What was asked for.
        zone: Its code; likewise `name` and `grid`, the zone whose number it has.
        intensity: The number with its source, method and year.
        neighbours: Those around it, lowest first.
        published: Other numbers published for it.
    """

    region: str
    zone: str
    name: str
    grid: str
    intensity: Intensity
    neighbours: tuple[around.Neighbour, ...]
    published: tuple[around.Published, ...]


def show(region: str) -> Shown:
    """Return a region's number, where it is from, and what is around it.

    Raises:
        UnknownRegionError: There is no such region, or no number for it.
    """
    zone = resolve(region)
    return Shown(
        region,
        zone.code,
        zone.name,
        zone.grid,
        lookup(region),
        tuple(around.neighbours(zone)),
        tuple(around.published(zone)),
    )


# best


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
    asked, zone = _placed(_provider(**given))
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

    A window of least mean begins or ends where a value changes, so only those beginnings are tried.
    """
    edges = {now_s, *(edge for point in series.points for edge in (point.start_s, point.end_s - length_s))}
    tried = []
    for start_s in edges:
        found = mean(series.points, start_s, start_s + length_s)
        if start_s >= now_s and start_s + length_s <= end_s and found is not None and found.covered >= _WHOLE:
            tried.append((found.g_per_kwh, start_s))
    taken: list[float] = []
    for g_per_kwh, start_s in sorted(tried):
        if all(abs(start_s - other) >= length_s for other in taken):
            taken.append(start_s)
            ratio = g_per_kwh / current_g if current_g else None
            yield Window(utc(start_s), utc(start_s + length_s), g_per_kwh, ratio)


# refill


@dataclass(frozen=True, slots=True)
class Refill:
    """What completing a log came to.

    Attributes:
        path: The new file.
        rows: Rows in it.
        waiting: Rows of the old one that waited for their provider's value.
        filled: Those that have it now.
        before_g: Grams of the filled rows before; likewise `after_g`.
        problems: Why others have not.
    """

    path: str
    rows: int
    waiting: int
    filled: int
    before_g: float
    after_g: float
    problems: tuple[str, ...]


def refill(log: str, new: Path, **given: object) -> Refill:
    """Complete the rows that have a fallback or a held value, into a new file; the old one stays as it is.

    A provider is asked once for each week that has such rows, and no more once it has failed.

    Args:
        log: The log.
        new: The file to write, which must not exist.
        **given: Settings that go before others, such as `carbon_provider`.

    Raises:
        ConfigurationError: The log is none, the new file exists, or no provider is set.
    """
    if new.exists():
        message = f"{new} exists. A refilled log is a new file: choose another name."
        raise ConfigurationError(message)
    asked, default_zone = _provider(**given)
    records = list(read(find([log])))
    zones: dict[str, _Known] = {}
    fresh: list[Record] = []
    waiting = filled = 0
    before_g = after_g = 0.0
    for record in records:
        if not is_provisional(record):
            fresh.append(record)
            continue
        waiting += 1
        zone = _zone_in(record, asked.name) or default_zone
        complete = None
        if zone is not None:
            complete = _complete(record, zones.setdefault(zone, _Known(asked, zone)))
        if complete is not None:
            filled += 1
            before_g += record.co2e_g or 0.0
            after_g += complete.co2e_g or 0.0
        fresh.append(complete or record)
    rows = export_log(fresh, new)
    problems = tuple(f"{zone}: {known.problem}" for zone, known in zones.items() if known.problem)
    return Refill(str(new), rows, waiting, filled, before_g, after_g, problems)


def _complete(record: Record, known: _Known) -> Record | None:
    try:
        start_s, end_s = times(record)
    except ValueError:
        return None
    intensity = known.over(start_s, end_s)
    if intensity is None:
        return None
    remark = {"provider": known.provider.name, "zone": known.zone, "refilled": utc(time.time())}
    return again([record], intensity, remark)[0]


def _zone_in(record: Record, name: str) -> str | None:
    """Return the zone that a row remarks it waits for, if it is this provider's."""
    own = record.meta.get("aimeter")
    remark = own.get("carbon") if isinstance(own, Mapping) else None
    if not isinstance(remark, Mapping) or remark.get("provider") != name:
        return None
    zone = remark.get("zone")
    return zone if isinstance(zone, str) else None


class _Known:
    """A provider's values for one zone, asked for week by week as they are needed."""

    def __init__(self, provider: Provider, zone: str) -> None:
        self.provider = provider
        self.zone = zone
        self.problem = ""
        self.last: Series | None = None
        self._weeks: dict[int, Series | None] = {}

    def over(self, start_s: float, end_s: float) -> Intensity | None:
        """Return the intensity of a call's time if there is a value for all of it."""
        points: list[Point] = []
        for week in range(int(start_s // _WINDOW_S), int(end_s // _WINDOW_S) + 1):
            if week not in self._weeks:
                self._weeks[week] = self._ask(week * _WINDOW_S)
            series = self._weeks[week]
            if series is None:
                return None
            points += series.points
        series = self.last
        found = mean(points, start_s, end_s)
        if series is None or found is None or found.covered < _WHOLE:
            return None
        method = series.kind.describe(estimated=found.estimated)
        return Intensity(
            found.g_per_kwh, series.source, method, series.zone, series.year, found.lower, found.upper
        )

    def _ask(self, start_s: float) -> Series | None:
        if self.problem:  # it has failed once: nothing is asked faster than a person would
            return None
        end_s = min(start_s + _WINDOW_S, max(time.time(), start_s + HOUR_S))
        try:
            self.last = self.provider.series(self.zone, start_s, end_s)
        except ProviderFault as fault:
            self.problem = str(fault)
            return None
        return self.last


def _provider(**given: object) -> tuple[Provider, str | None]:
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
    chosen = provider(
        settings.carbon_provider,
        key=settings.carbon_key,
        basis=settings.carbon_basis,
        signal=settings.carbon_signal,
        environ=os.environ,
    )
    zone = settings.carbon_zone
    if zone is None and settings.region is not None:
        zone = chosen.zone_of(resolve(settings.region))
    return chosen, zone


def _placed(found: tuple[Provider, str | None]) -> tuple[Provider, str]:
    """Return a provider and its zone, or say what is missing.

    Raises:
        ConfigurationError: There is no zone.
    """
    chosen, zone = found
    if zone is None:
        message = f"{chosen.name} needs a place: give --region or --zone, or set AIMETER_REGION."
        raise ConfigurationError(message)
    return chosen, zone
