"""A region's number: its source, its year, its neighbours, and what else has been published."""

from __future__ import annotations

from dataclasses import dataclass

from aimeter.carbon import around
from aimeter.carbon.intensity import Intensity
from aimeter.carbon.location import resolve
from aimeter.carbon.offline import lookup


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
