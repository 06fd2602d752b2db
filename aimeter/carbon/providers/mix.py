"""From what generated the electricity to its intensity: shares times published factors.

ENTSO-E and the EIA say how many megawatts each fuel gave, and no grams. The factors are life-cycle medians with their
range, `data/generation_factors.csv`, each with its source. What has no factor (waste, other, unknown) counts as the
mean of the rest, and widens the bounds: it may be anything from nothing to the worst. Where more than a tenth of the
generation has none, there is no value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from aimeter.carbon.packaged import DATA, rows
from aimeter.carbon.providers.base import DAY_S, ProviderFault
from aimeter.carbon.series import Kind, Point

FACTORS = DATA / "generation_factors.csv"
FACTOR_SET = "factors: IPCC AR5 2014 and others"
KIND = Kind("lifecycle", "production")

_MOST_UNKNOWN = 0.1
_MOST_MISSING = 0.01
_MOST_CELLS = 1_000_000
"""Stretches of time, each counted for each source; twenty sources have 60,000 in a month of quarter hours."""
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
    for row in rows(path):
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


class Source(NamedTuple):
    """What is reported on its own: a type of plant, and the fuel whose factor it has."""

    fuel: str
    code: str


Steps = list[tuple[float, float, float]]
"""From when to when in seconds since 1970, and the mean power in any one unit."""


def points(reports: Mapping[Source, Steps]) -> list[Point]:
    """Return a point for each stretch of time whose mix is whole and gives an intensity.

    Steps may be of different lengths: time is cut wherever one begins or ends. Sources report at different hours, so
    in the newest stretches some are missing. Where those had more than a hundredth when they were last reported,
    within a day, the rest is no mix, and there is no value.

    Raises:
        ProviderFault: Steps that overlap make far more of it than there is.
    """
    edges = sorted({edge for steps in reports.values() for step in steps for edge in step[:2]})
    place = {edge: number for number, edge in enumerate(edges)}
    if sum(place[step[1]] - place[step[0]] for steps in reports.values() for step in steps) > _MOST_CELLS:
        message = "the steps of its answer overlap too often"
        raise ProviderFault(message)
    cells: list[dict[Source, float]] = [{} for _ in edges[1:]]
    for source, steps in reports.items():
        for start_s, end_s, amount in steps:
            for cell in cells[place[start_s] : place[end_s]]:
                cell[source] = cell.get(source, 0.0) + amount
    last: dict[Source, tuple[float, float]] = {}
    made = []
    for (start_s, end_s), cell in zip(pairwise(edges), cells, strict=True):
        missing = math.fsum(
            max(amount, 0.0)
            for source, (seen_s, amount) in last.items()
            if source not in cell and start_s - seen_s < DAY_S
        )
        last.update({source: (end_s, amount) for source, amount in cell.items()})
        there = math.fsum(max(amount, 0.0) for amount in cell.values())
        found = None if missing > _MOST_MISSING * (there + missing) else intensity(_by_fuel(cell))
        if found is not None:
            middle, lower, upper = found
            made.append(
                Point(
                    start_s, end_s, middle, estimated=True, lower=min(lower, middle), upper=max(upper, middle)
                )
            )
    return made


def _by_fuel(cell: Mapping[Source, float]) -> dict[str, float]:
    generation: dict[str, float] = {}
    for source, amount in cell.items():
        generation[source.fuel] = generation.get(source.fuel, 0.0) + amount
    return generation
