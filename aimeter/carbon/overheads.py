"""Beyond the plug: the building (PUE), the water, and the making of the hardware. All off unless chosen.

The numbers lie in ``data/pue.csv``, ``data/water.csv`` and ``data/embodied.csv``, each with its year and source; ``second-hand`` is said where the
source itself was not read, but one that quotes it. They
are chosen by name, never guessed: ``pue="aws:2024"``, ``wue_l_per_kwh="aws:2024"``, ``embodied="8 h100 + gpu-server"``.
A malformed row of a file loses that row only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aimeter.carbon.intensity import J_PER_KWH
from aimeter.carbon.packaged import DATA, rows
from aimeter.errors import ConfigurationError, did_you_mean

YEAR_S = 365.25 * 86400.0
"""A Julian year."""

_ITEM = re.compile(r"(?:(\d+(?:\.\d+)?)\s*[x*]?\s+)?([a-z0-9][a-z0-9.-]*)(?:\s*/\s*(\d+(?:\.\d+)?))?")


class Factor(NamedTuple):
    """A number that was chosen, and where it is from: ``aws 2024; AWS sustainability pages``."""

    value: float
    source: str


class Range(NamedTuple):
    """From the least to the most."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Embodied:
    """What making the hardware of a call emitted, and over which time it counts.

    Attributes:
        kg: Of all of it together.
        lifetime_s: How long it lasts.
        utilisation: Which share of that it is in use.
        source: The items and their sources.
    """

    kg: Range
    lifetime_s: Range
    utilisation: Range
    source: str

    def grams(self, used_s: float) -> tuple[float, float, float]:
        """Return the grams of CO2e, their lower and their upper bound, of using the hardware for some time.

        ``kg * 1000 * used_s / (lifetime_s * utilisation)``: the share of its time in use that this was, as in the
        SCI specification (ISO/IEC 21031, TE * TiR / EL). The lower bound takes the least that was emitted and
        the longest use, the upper bound the opposite; the value between is their geometric mean, as the bounds
        lie a factor apart.
        """
        lower = 1e3 * self.kg.low * used_s / (self.lifetime_s.high * self.utilisation.high)
        upper = 1e3 * self.kg.high * used_s / (self.lifetime_s.low * self.utilisation.low)
        return math.sqrt(lower * upper), lower, upper


def pue(chosen: float | str) -> Factor:
    """Return a power usage effectiveness (ISO/IEC 30134-2): a number of at least 1, or ``NAME`` or ``NAME:YEAR``.

    Raises:
        ConfigurationError: There is no such name or year.
    """
    if isinstance(chosen, str):
        return _named(chosen, pues(), "PUE")
    return Factor(chosen, "given by the user")


def site_water(chosen: float | str) -> Factor:
    """Return a water usage effectiveness (ISO/IEC 30134-9) in L/kWh: a number, or ``NAME`` or ``NAME:YEAR``.

    Raises:
        ConfigurationError: There is no such name or year.
    """
    if isinstance(chosen, str):
        return _named(chosen, waters("on-site"), "WUE")
    return Factor(chosen, "given by the user")


def grid_water(chosen: float | str) -> Factor:
    """Return the water that generating electricity consumes in L/kWh: a number, or a country that the table has.

    Raises:
        ConfigurationError: The table does not have it.
    """
    if isinstance(chosen, str):
        return _named(chosen, waters("electricity"), "water of electricity")
    return Factor(chosen, "given by the user")


def litres(energy_j: float, l_per_kwh: float, pue: float = 1.0) -> float:
    """Return litres: ``energy_j / 3.6e6 * l_per_kwh * pue``."""
    return energy_j / J_PER_KWH * l_per_kwh * pue


def embodied(chosen: str) -> Embodied:
    """Return what some hardware took to make.

    Args:
        chosen: Items joined by ``+``, each with a number before it and a part behind it if need be:
            ``h100``, ``8 h100 + gpu-server``, ``h100 + gpu-server/8`` (one of eight tenants).

    Raises:
        ConfigurationError: An item is not known, or the text is not of that form.
    """
    table = hardware()
    low = high = 0.0
    sources = []
    for part in chosen.split("+"):
        match = _ITEM.fullmatch(part.strip().lower())
        name = "" if match is None else match[2]
        items = [key for key in table if key not in _ASSUMED]
        if match is None or name not in items:
            message = (
                f"The hardware {part.strip()!r} in embodied={chosen!r} is unknown.{did_you_mean(part.strip(), items)} "
                f"Known: {', '.join(items)}; for instance '8 h100 + gpu-server'."
            )
            raise ConfigurationError(message)
        count = float(match[1] or 1) / float(match[3] or 1) if float(match[3] or 1) else 0.0
        if not 0 < count < math.inf:
            message = f"The number of {name} in embodied={chosen!r} must be above 0."
            raise ConfigurationError(message)
        found, source = table[name]
        low, high = low + count * found.low, high + count * found.high
        sources.append(f"{count:g} {name} ({source})")
    years, utilisation = (table[key][0] for key in _ASSUMED)
    return Embodied(
        Range(low, high),
        Range(years.low * YEAR_S, years.high * YEAR_S),
        utilisation,
        " + ".join(sources),
    )


_ASSUMED = ("lifetime", "utilisation")


def _table(
    path: Path, column: str, least: float, kind: str | None = None
) -> dict[str, list[tuple[int, Factor]]]:
    """Return the factors of each name, by year."""
    found: dict[str, list[tuple[int, Factor]]] = {}
    for row in rows(path):
        try:
            name, year, value = row["name"], int(row["year"]), float(row[column])
            source = row["source"].strip()
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if name and source and least <= value < math.inf and (kind is None or row.get("kind") == kind):
            found.setdefault(name.lower(), []).append((year, Factor(value, f"{name} {year}; {source}")))
    return found


@cache
def pues(path: Path = DATA / "pue.csv") -> Mapping[str, list[tuple[int, Factor]]]:
    """Return the PUE of each name in the table, by year."""
    return _table(path, "pue", 1.0)


@cache
def waters(kind: str, path: Path = DATA / "water.csv") -> Mapping[str, list[tuple[int, Factor]]]:
    """Return the litres for each kWh of each name in the table, ``on-site`` or of ``electricity``, by year."""
    return _table(path, "l_per_kwh", 0.0, kind)


@cache
def hardware(path: Path = DATA / "embodied.csv") -> Mapping[str, tuple[Range, str]]:
    """Return the range of each item in the table, in its unit, and its source."""
    found: dict[str, tuple[Range, str]] = {}
    for row in rows(path):
        try:
            span = Range(float(row["low"]), float(row["high"]))
            name, source = row["name"].strip(), row["source"].strip()
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if name and source and 0 < span.low <= span.high < math.inf:
            found[name] = span, source
    return found


def _named(chosen: str, table: Mapping[str, list[tuple[int, Factor]]], what: str) -> Factor:
    """Return the factor of ``NAME:YEAR``, of the newest year without one."""
    name, _, year = chosen.strip().lower().partition(":")
    years = table.get(name)
    if years is None:
        message = f"The {what} {chosen!r} is unknown.{did_you_mean(name, table)} Known: {', '.join(table)}."
        raise ConfigurationError(message)
    wanted = [(one, factor) for one, factor in years if not year or str(one) == year.strip()]
    if not wanted:
        has = ", ".join(str(one) for one, _ in years)
        message = f"The {what} of {name} is not known for {year}; it is for {has}."
        raise ConfigurationError(message)
    return max(wanted, key=lambda one: one[0])[1]
