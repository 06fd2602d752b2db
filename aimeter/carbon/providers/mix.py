"""From what generated the electricity to its intensity: shares times published factors.

ENTSO-E and the EIA say how many megawatts each fuel gave, and no grams. The factors are life-cycle medians with their
range, `data/generation_factors.csv`, each with its source. What has no factor (waste, other, unknown) counts as the
mean of the rest, and widens the bounds: it may be anything from nothing to the worst. Where more than a tenth of the
generation has none, there is no value.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aimeter.carbon.series import Kind, Point

FACTORS = Path(__file__).parents[1] / "data" / "generation_factors.csv"
FACTOR_SET = "factors: IPCC AR5 2014 and others"
KIND = Kind("lifecycle", "production")

_MOST_UNKNOWN = 0.1
_WORST_G_PER_KWH = 1100.0
"""Upper end for what is not known: old lignite; UNECE (2021) has coal at up to 1095."""


class Factor(NamedTuple):
    """Life-cycle emissions of a fuel in g CO2e/kWh, and their range."""

    g_per_kwh: float
    lower: float
    upper: float


@cache
def factors(path: Path = FACTORS) -> Mapping[str, Factor]:
    """Return the factor of each fuel; a malformed row loses that row only."""
    found: dict[str, Factor] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                factor = Factor(float(row["g_per_kwh"]), float(row["lower"]), float(row["upper"]))
            except (TypeError, ValueError, KeyError):
                continue
            if 0 <= factor.lower <= factor.g_per_kwh <= factor.upper < math.inf:
                found[row["fuel"]] = factor
    return found


def intensity(
    generation: Mapping[str, float], known: Mapping[str, Factor] | None = None
) -> tuple[float, float, float] | None:
    """Return g/kWh, its lower and its upper bound, for a mix in any one unit of energy or power.

    ``sum(E_fuel * factor) / sum(E_fuel)`` over the fuels with a factor. What is negative (storage that charges, a
    plant's own use) is left out. None if there is no generation, or too much of it has no factor.
    """
    table = factors() if known is None else known
    positive = {fuel: amount for fuel, amount in generation.items() if amount > 0}
    total = math.fsum(positive.values())
    counted = {fuel: amount for fuel, amount in positive.items() if fuel in table}
    amount = math.fsum(counted.values())
    if amount <= 0 or total - amount > _MOST_UNKNOWN * total:
        return None
    middle, lower, upper = (
        math.fsum(share * table[fuel][place] for fuel, share in counted.items()) for place in range(3)
    )
    unknown = total - amount
    return middle / amount, lower / total, (upper + unknown * _WORST_G_PER_KWH) / total


def points(mixes: Mapping[tuple[float, float], Mapping[str, float]]) -> list[Point]:
    """Return a point for each stretch of time whose mix gives an intensity."""
    made = []
    for (start_s, end_s), generation in mixes.items():
        found = intensity(generation)
        if found is not None:
            middle, lower, upper = found
            made.append(
                Point(
                    start_s, end_s, middle, estimated=True, lower=min(lower, middle), upper=max(upper, middle)
                )
            )
    return made
