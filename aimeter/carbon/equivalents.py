"""What an amount of energy or of carbon is like, from a versioned table: ``data/equivalents.csv``.

Energy is compared with energy and grams with grams. A phone's charge is kilowatt-hours; that a source also states it
in grams rests on some grid's intensity, and never on that of the measured call, so the table has it as energy alone.
Constants have changed (three values of a charge in three years), so each has its year and the older ones stay.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from aimeter.carbon.intensity import J_PER_KWH
from aimeter.carbon.packaged import DATA, rows
from aimeter.errors import ConfigurationError

TABLE = DATA / "equivalents.csv"

Quantity = Literal["energy", "co2e"]
_UNITS: dict[str, tuple[Quantity, float]] = {"kWh": ("energy", J_PER_KWH), "g": ("co2e", 1.0)}


class Equivalent(NamedTuple):
    """A thing to compare with.

    Attributes:
        id: Its name in the table.
        kind: ``energy`` or ``co2e``.
        amount: Joules, or grams of CO2e, of one of it.
        what: What one of it is.
        year: Of the value.
        source: Of the value.
        current: Whether it is the newest of its name.
    """

    id: str
    kind: Quantity
    amount: float
    what: str
    year: int
    source: str
    current: bool


class Comparison(NamedTuple):
    """How many of a thing an amount comes to."""

    times: float
    equivalent: Equivalent

    def __str__(self) -> str:
        one = self.equivalent
        return f"{self.times:.3g} x {one.what} ({one.source}, {one.year})"


@cache
def table(path: Path = TABLE) -> tuple[Equivalent, ...]:
    """Return every row that can be used; a malformed one, or one of another unit, is left out."""
    found = []
    for row in rows(path):
        try:
            kind, factor = _UNITS[row["unit"]]
            amount, year = float(row["amount"]) * factor, int(row["year"])
            texts = [row[key].strip() for key in ("id", "what", "source", "current")]
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if kind == row["kind"] and 0 < amount < math.inf and all(texts):
            found.append(Equivalent(texts[0], kind, amount, texts[1], year, texts[2], texts[3] == "yes"))
    return tuple(found)


def of_energy(energy_j: float, *, year: int | None = None) -> list[Comparison]:
    """Return what some joules are like, as energy."""
    return _compare("energy", energy_j, year)


def of_co2e(co2e_g: float, *, year: int | None = None) -> list[Comparison]:
    """Return what some grams of CO2e are like, as CO2e."""
    return _compare("co2e", co2e_g, year)


def _compare(kind: Quantity, amount: float, year: int | None) -> list[Comparison]:
    """Compare with the values in force now or, with a year, with the newest that are not newer than that.

    Raises:
        ConfigurationError: The amount is not finite, or nothing is known of so early a year.
    """
    if not math.isfinite(amount):
        message = f"{amount:g} is like nothing: give a finite amount."
        raise ConfigurationError(message)
    chosen: dict[str, Equivalent] = {}
    for one in table():
        if one.kind != kind or (one.year > year if year is not None else not one.current):
            continue
        known = chosen.get(one.id)
        if known is None or one.year > known.year:
            chosen[one.id] = one
    if not chosen:
        message = (
            f"No constant is known of {year} or before; the first is of {min(one.year for one in table())}."
        )
        raise ConfigurationError(message)
    return [Comparison(amount / one.amount, one) for one in chosen.values()]
