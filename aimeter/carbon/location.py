"""From what a user calls a place to the zone that is meant, or a clear refusal.

Codes come first and are never ambiguous: ``CA`` is Canada, California is ``US-CA``. A name that means two
places (``Georgia``) is refused with both codes, because a wrong guess would stay unseen.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from aimeter.carbon.regions import cloud_regions, countries, subdivisions
from aimeter.errors import UnknownRegionError, did_you_mean

FORMS = (
    "Give a country (FR, FRA or France), a US state or Canadian province (US-VA, CA-QC), a Chinese province "
    "(CN-GD), a Nordic bidding zone (SE3), or a cloud region (aws:us-east-1, azure:westeurope, "
    "gcp:us-central1)."
)


@dataclass(frozen=True, slots=True)
class Zone:
    """A place that has, or could have, a carbon intensity.

    Attributes:
        code: The one code it goes by here: ``FR``, ``US-VA``, ``SE-SE3``, ``aws:us-east-1``, ``WORLD``.
        name: What a person calls it.
        grid: Code of the geographic zone it draws from: its own, or a cloud region's state or country.
        country: ISO 3166-1 alpha-3 code of its country; empty for the world.
    """

    code: str
    name: str
    grid: str
    country: str


WORLD = Zone("WORLD", "the world", "WORLD", "")


def resolve(region: str) -> Zone:
    """Return the zone that `region` names, in any letter case.

    Raises:
        UnknownRegionError: Nothing goes by that name, or several places do; the text says what may be meant.
    """
    if not isinstance(region, str):
        message = f"A region is a text, not {region!r}. {FORMS}"
        raise UnknownRegionError(message)
    key = _fold(region)
    provider, colon, name = key.partition(":")
    if colon:
        # Azure's own tools print "West Europe" as often as "westeurope".
        key = f"{provider.strip()}:{name.replace(' ', '')}"
    code = _by_code().get(key)
    if code is not None:
        return code
    named = _by_name().get(key, ())
    if len(named) == 1:
        return named[0]
    if named:
        choice = " or ".join(f"{zone.code} ({zone.name})" for zone in named)
        message = f"The region {region!r} may mean {choice}: give the code."
    else:
        message = f"The region {region!r} is unknown.{did_you_mean(region, _words(key))} {FORMS}"
    raise UnknownRegionError(message)


@cache
def known() -> tuple[Zone, ...]:
    """Return every zone that `resolve` can return; what lies in a country whose row is lost is lost with it."""
    alpha_2 = {country.alpha_3: country.alpha_2 for country in countries()}
    alpha_3 = {country.alpha_2: country.alpha_3 for country in countries()}
    return (
        WORLD,
        *(Zone(place.alpha_2, place.name, place.alpha_2, place.alpha_3) for place in countries()),
        *(
            Zone(place.code, place.name, place.code, alpha_3[place.code[:2]])
            for place in subdivisions()
            if place.code[:2] in alpha_3
        ),
        *(
            Zone(
                f"{place.provider}:{place.region}",
                place.place,
                place.subdivision or alpha_2[place.country],
                place.country,
            )
            for place in cloud_regions()
            if place.country in alpha_2
        ),
    )


def _codes_of(zone: Zone) -> Iterator[str]:
    yield zone.code
    if zone.code == zone.grid and "-" not in zone.code and zone.country:
        yield zone.country
    elif zone.code[:2] in ("SE", "NO") and "-" in zone.code:
        yield zone.code.partition("-")[2]


@cache
def _by_code() -> dict[str, Zone]:
    return {_fold(code): zone for zone in known() for code in _codes_of(zone)}


@cache
def _names() -> tuple[tuple[str, Zone], ...]:
    aliases = {country.alpha_2: country.aliases for country in countries()}
    pairs: list[tuple[str, Zone]] = []
    for zone in known():
        _, colon, bare = zone.code.partition(":")
        names = (bare,) if colon else (zone.name, *aliases.get(zone.code, ()))
        pairs += ((name, zone) for name in names)
    return tuple(pairs)


@cache
def _by_name() -> dict[str, tuple[Zone, ...]]:
    found: dict[str, tuple[Zone, ...]] = {}
    for name, zone in _names():
        key = _fold(name)
        found[key] = (*found.get(key, ()), zone)
    return found


def _words(key: str) -> Iterator[str]:
    """Yield the words that a mistyped `key` may have meant; only the provider's own where it names one."""
    provider, colon, _ = key.partition(":")
    own = f"{provider}:"
    if colon and any(zone.code.startswith(own) for zone in known()):
        yield from (zone.code for zone in known() if zone.code.startswith(own))
        return
    for zone in known():
        yield from _codes_of(zone)
    for name, _ in _names():
        yield name


def _fold(text: str) -> str:
    """Return `text` without case, accents and surplus spaces."""
    if text.isascii():
        return " ".join(text.casefold().split())
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return " ".join(plain.casefold().split())
