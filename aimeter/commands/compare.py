"""What a log's joules would have emitted elsewhere, or at another hour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aimeter.carbon.intensity import Intensity, co2e_g
from aimeter.carbon.offline import lookup
from aimeter.carbon.providers import Provider
from aimeter.carbon.providers.base import HOUR_S
from aimeter.carbon.series import BASES, SIGNALS
from aimeter.commands.asking import Answers, chosen, placed
from aimeter.commands.report import MOST_METHODS, find, unread
from aimeter.errors import ConfigurationError
from aimeter.logs.brief import Brief, read_briefs
from aimeter.logs.recompute import times
from aimeter.report.divided import between_processes
from aimeter.report.summary import UNDIVIDED, told

_LONGEST_SHIFT_H = 10 * 365.25 * 24


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


def compare(
    logs: Sequence[str], regions: Sequence[str], *, shift_h: float | None = None, **given: object
) -> WhatIf:
    """Return what the joules of some logs would have emitted in other regions, or at another hour.

    Each row keeps its PUE. A row's `self_j` is taken, so that children are counted once.

    Args:
        logs: Paths or patterns.
        regions: See `aimeter.carbon.location.resolve`.
        shift_h: Hours by which all calls are moved, by the provider of the settings.
        **given: Settings that go before others, such as `carbon_provider`; for `shift_h` only.

    Raises:
        ConfigurationError: A log or a region is unknown, the shift is no number of hours, or no provider is set.
    """
    if shift_h is not None and not abs(shift_h) <= _LONGEST_SHIFT_H:
        message = f"--shift takes hours, at most ten years either way, not {shift_h:g}."
        raise ConfigurationError(message)
    intensities = [(region, lookup(region)) for region in regions]
    energy_j = scaled_j = grams = logged_j = 0.0
    rows = unknown = without = 0
    methods: dict[str, None] = {}
    kept: list[Brief] = []
    partial: list[str] = []
    paths = find(logs)
    division, undivided = between_processes(lambda: read_briefs(paths))
    records = read_briefs(paths)
    for whole in records:
        parts = None if division is None else division.parts(whole)
        record = whole
        if parts is not None and whole.self_j is not None:
            record = whole._replace(self_j=whole.self_j * parts.own)
        if record.self_j is None:
            unknown += 1
            continue
        rows += 1
        energy_j += record.self_j
        scaled_j += record.self_j * record.pue
        if record.intensity_g_per_kwh is not None:
            grams += co2e_g(record.self_j, record.intensity_g_per_kwh, record.pue)
            logged_j += record.self_j * record.pue
            if len(methods) < MOST_METHODS:
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
        moved, partial = _moved(kept, shift_h, logged.g_per_kwh, chosen(**given))
        places += moved
    places.sort(key=lambda one: math.inf if one.co2e_g is None else one.co2e_g)
    warnings = [*_unlike((logged, *places)), *partial]
    if without:
        warnings.append(f"{without} rows have energy and no intensity: the grams as logged lack them.")
    if division is not None:
        warnings.append(told(division.processes))
    if undivided:
        warnings.append(UNDIVIDED)
    if records.skipped:
        warnings.append(f"{unread(records.skipped)}: they are left out.")
    return WhatIf(energy_j, rows, unknown, (logged, *places), tuple(warnings))


def _elsewhere(region: str, one: Intensity, scaled_j: float, logged_g_per_kwh: float | None) -> Elsewhere:
    grams = None if one.g_per_kwh is None else co2e_g(scaled_j, one.g_per_kwh)
    ratio = one.g_per_kwh / logged_g_per_kwh if one.g_per_kwh is not None and logged_g_per_kwh else None
    return Elsewhere(region, one.zone, one.g_per_kwh, one.year, one.method, one.source, grams, ratio)


def _moved(
    records: Sequence[Brief],
    shift_h: float,
    logged_g_per_kwh: float | None,
    provider: tuple[Provider, str | None],
) -> tuple[list[Elsewhere], list[str]]:
    """Return the calls when they ran and moved, by the provider, and what is to be said of gaps in its values."""
    asked, zone = placed(provider)
    places: list[Elsewhere] = []
    partial: list[str] = []
    for hours in (0.0, shift_h):
        series = Answers(asked, zone)
        grams = joules = 0.0
        with_value = 0
        for record in records:
            found = _at(series, record, hours)
            if found is None:
                continue
            with_value += 1
            scaled_j = (record.self_j or 0.0) * record.pue
            grams += co2e_g(scaled_j, found.g_per_kwh or 0.0)
            joules += scaled_j
        name = "when it ran, by the provider" if not hours else f"{hours:+g} h, by the provider"
        whole = with_value == len(records) and joules > 0
        if joules > 0 and not whole:
            rows = f"{with_value} of {len(records)} rows"
            partial.append(f"{name}: only {rows} have a value, so there are no grams of all to rank.")
            name = f"{name} ({rows})"
        g_per_kwh = grams / joules * 3.6e6 if joules else None
        ratio = g_per_kwh / logged_g_per_kwh if whole and g_per_kwh is not None and logged_g_per_kwh else None
        last = series.last
        method = None if last is None else last.kind.describe(estimated=True)
        source = series.problem if last is None else last.source
        places.append(Elsewhere(name, zone, g_per_kwh, None, method, source, grams if whole else None, ratio))
    return places, partial


def _at(series: Answers, record: Brief, hours: float) -> Intensity | None:
    """Return the intensity of a call moved by some hours; None if it is not known, or the row's start is no time."""
    try:
        start_s, end_s = (moment + hours * HOUR_S for moment in times(record))
    except ValueError:
        return None
    return series.over(start_s, end_s)


def _unlike(places: Iterable[Elsewhere]) -> Iterator[str]:
    """Yield why these numbers must not be ranked against each other."""
    words = {word.strip() for one in places for word in (one.method or "").replace("/", ";").split(";")}
    for what, known in (("basis", BASES), ("signal", SIGNALS)):
        mixed = sorted(words.intersection(known))
        if len(mixed) > 1:
            yield f"They are not of one {what} ({', '.join(mixed)}): do not rank them against each other."
