"""What lies around a region: its neighbours' values, and other numbers that have been published for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from aimeter.carbon.intensity import Intensity
from aimeter.carbon.location import Zone, known, resolve
from aimeter.carbon.offline import lookup
from aimeter.carbon.packaged import DATA, rows
from aimeter.errors import UnknownRegionError


@dataclass(frozen=True, slots=True)
class Published:
    """A number that somebody published for a region; the year is None if it is not stated."""

    g_per_kwh: float
    year: int | None
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A zone next to another, and its intensity by the offline tables."""

    zone: Zone
    intensity: Intensity


@cache
def _borders() -> dict[str, tuple[str, ...]]:
    """Return the neighbours of zones by land border, interconnector or strait, in both directions."""
    found: dict[str, dict[str, None]] = {}
    for row in rows(DATA / "borders.csv"):
        for other in row["neighbours"].split():
            found.setdefault(row["code"], {})[other] = None
            found.setdefault(other, {})[row["code"]] = None
    return {code: tuple(others) for code, others in found.items()}


def neighbours(zone: Zone) -> list[Neighbour]:
    """Return what a zone is compared with: those next to its grid, the country and its other parts; lowest first.

    Those without a value in the tables are left out.
    """
    codes = list(_borders().get(zone.grid, ()))
    nation = zone.grid[:2]
    if "-" in zone.grid:
        codes.append(nation)
    elif zone.grid in {"SE", "NO"}:
        codes += [one.code for one in known() if one.code.startswith(f"{nation}-")]
    found = []
    for code in dict.fromkeys(codes):
        try:
            other = resolve(code)
            intensity = lookup(code)
        except UnknownRegionError:
            continue
        if intensity.g_per_kwh is not None:
            found.append(Neighbour(other, intensity))
    return sorted(found, key=lambda one: one.intensity.g_per_kwh or 0.0)


def published(zone: Zone) -> list[Published]:
    """Return other numbers published for a region, lowest first; a malformed row is left out."""
    found = []
    for row in rows(DATA / "published.csv"):
        try:
            year = int(row["year"]) if row["year"] else None
            one = Published(float(row["g_per_kwh"]), year, row["kind"], row["source"])
        except (ValueError, TypeError, KeyError):
            continue
        if row["region"] == zone.code:
            found.append(one)
    return sorted(found, key=lambda one: one.g_per_kwh)
