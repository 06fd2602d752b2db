"""The places aimeter knows: countries, subdivisions with their own grid figures, and cloud regions.

The tables lie beside this file in ``data/`` and are read on first use:

- ``countries.csv``: the 249 entries of ISO 3166-1 with alpha-2 and alpha-3 code, and Kosovo under its
  user-assigned codes XK and XKX;
- ``subdivisions.csv``: the states of the USA, the provinces of Canada and China by ISO 3166-2 code, and the
  Nordic bidding zones, named as in ``SE-SE3``;
- ``cloud_regions.csv``: where the regions of AWS, Azure and Google Cloud stand, from the providers' own lists
  of regions. A US or Canadian region has its state or province; others have a country alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from aimeter.carbon.packaged import DATA, rows


class Country(NamedTuple):
    """A country: ISO 3166-1 codes, English short name, and other names it goes by."""

    alpha_2: str
    alpha_3: str
    name: str
    aliases: tuple[str, ...]


class Subdivision(NamedTuple):
    """A part of a country that has an intensity of its own."""

    code: str
    name: str


class CloudRegion(NamedTuple):
    """A region of a cloud provider and where it stands."""

    provider: str
    region: str
    country: str
    """ISO 3166-1 alpha-3."""
    subdivision: str | None
    place: str


@cache
def countries(folder: Path = DATA) -> tuple[Country, ...]:
    """Return every country of the table."""
    return tuple(
        Country(row["alpha_2"], row["alpha_3"], row["name"], tuple(filter(None, row["aliases"].split(";"))))
        for row in rows(folder / "countries.csv", "alpha_2", "alpha_3", "name")
    )


@cache
def subdivisions(folder: Path = DATA) -> tuple[Subdivision, ...]:
    """Return every state, province and bidding zone of the table."""
    return tuple(
        Subdivision(row["code"], row["name"]) for row in rows(folder / "subdivisions.csv", "code", "name")
    )


@cache
def cloud_regions(folder: Path = DATA) -> tuple[CloudRegion, ...]:
    """Return every cloud region of the table."""
    return tuple(
        CloudRegion(row["provider"], row["region"], row["country"], row["subdivision"] or None, row["place"])
        for row in rows(folder / "cloud_regions.csv", "provider", "region", "country")
    )
