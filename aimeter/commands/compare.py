"""What a log's joules would have emitted elsewhere, or at another hour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aimeter.carbon.intensity import Intensity, co2e_g
from aimeter.carbon.offline import lookup
from aimeter.carbon.providers.base import HOUR_S
from aimeter.carbon.recompute import times
from aimeter.commands.asking import Answers, chosen, placed
from aimeter.commands.report import find
from aimeter.report.brief import Brief, read_briefs


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
    asked, zone = placed(chosen())
    for hours in (0.0, shift_h):
        series = Answers(asked, zone)
        grams = joules = 0.0
        for record in records:
            try:
                start_s, end_s = (moment + hours * HOUR_S for moment in times(record))
            except ValueError:  # the row's start is no time
                continue
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
