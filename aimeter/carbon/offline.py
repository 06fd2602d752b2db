"""Carbon intensity without a network: the user's own number, or codecarbon's installed tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import lru_cache

from aimeter._support.log import assumptions, warn_once
from aimeter.carbon.intensity import ASSUMED, GIVEN, MAX_G_PER_KWH, NONE, Intensity, describe_method
from aimeter.carbon.location import WORLD, Zone, resolve
from aimeter.carbon.tables import CLOUD, COUNTRIES, SUBDIVIDED, WORLD_AVERAGE, DataSet, Table, installed, load
from aimeter.errors import ConfigurationError, UnknownRegionError


def lookup(
    region: str | None = None,
    intensity_g_per_kwh: float | None = None,
    *,
    find: Callable[[], DataSet | None] = installed,
) -> Intensity:
    """Return the carbon intensity to use, without any network.

    The user's own number wins; `region` is then only the name of its zone and need not be known. Otherwise
    the number is that of the region. Without a region it is the world average, marked ``assumed``, and one
    warning says what to set. If codecarbon's data cannot be read, the number is None; its source and one
    warning say why.

    Args:
        region: Country, state, province, bidding zone or cloud region; see `aimeter.carbon.location.resolve`.
        intensity_g_per_kwh: The user's own number, 0 to 2000.
        find: Gives codecarbon's data; those of the installed package by default.

    Raises:
        UnknownRegionError: The region is unknown, ambiguous, or has no value in codecarbon's data.
        ConfigurationError: The user's number is not from 0 to 2000.
    """
    if region is not None and not isinstance(region, str):
        resolve(region)  # raises, and says what a region may be; the cache below needs something hashable
    return _lookup(region, intensity_g_per_kwh, find)


@lru_cache(maxsize=1024)
def _lookup(region: str | None, given: float | None, find: Callable[[], DataSet | None]) -> Intensity:
    if given is not None:
        return _given(region, given)
    if region is not None:
        return intensity_of(resolve(region), find())
    world = intensity_of(WORLD, find())
    if world.g_per_kwh is None:
        return world
    warn_once(
        f"No region is set, so grams use a world average of {world.g_per_kwh:.0f} g CO2e/kWh; real grids "
        "range from below 30 to above 1,000. Set region= or AIMETER_REGION (FR, US-VA, aws:us-east-1 …), or "
        "your own number with intensity_g_per_kwh= or AIMETER_INTENSITY_G_PER_KWH.",
        to=assumptions,
    )
    return Intensity(world.g_per_kwh, world.source, world.method + ASSUMED, world.zone, world.year)


def _given(region: str | None, g_per_kwh: float) -> Intensity:
    if not 0 <= g_per_kwh <= MAX_G_PER_KWH:
        message = f"intensity_g_per_kwh is {g_per_kwh!r}; give from 0 to {MAX_G_PER_KWH:.0f} g CO2e/kWh."
        raise ConfigurationError(message)
    zone = region
    if region is not None:
        # A region that is not known is the user's own name for a place whose number the user has.
        with contextlib.suppress(UnknownRegionError):
            zone = resolve(region).code
    return Intensity(g_per_kwh, "given by the user", GIVEN, zone, None)


def intensity_of(zone: Zone, data: DataSet | None) -> Intensity:
    """Return the intensity of `zone` from `data`; None in it, and the reason, if they cannot be read.

    A region of Google Cloud has Google's own figure if the data have one. Every other cloud region has that
    of its state or province if the map names one, else that of its country.

    Raises:
        UnknownRegionError: The data can be read and have no usable value for the zone.
    """
    if data is None:
        return _unavailable(zone, "codecarbon is not installed; pip install codecarbon")
    if zone.code.startswith("gcp:"):
        found = _value(CLOUD, zone.code, zone, data)
        if found is not None:
            return found
    table, key = _table_of(zone)
    found = _value(table, key, zone, data)
    if found is not None:
        return found
    loaded = load(table, data)
    if loaded.problem:
        return _unavailable(zone, f"codecarbon {data.version}: {loaded.problem}")
    message = (
        f"{zone.name} ({zone.code}) has no usable carbon intensity in codecarbon {data.version}, "
        f"{loaded.file}: give your own number with intensity_g_per_kwh= or AIMETER_INTENSITY_G_PER_KWH, "
        "in g CO2e/kWh."
    )
    raise UnknownRegionError(message)


def _table_of(zone: Zone) -> tuple[Table, str]:
    if zone is WORLD:
        return WORLD_AVERAGE, zone.code
    if "-" in zone.grid:
        return SUBDIVIDED[zone.grid[:2]], zone.grid
    return COUNTRIES, zone.country


def _value(table: Table, key: str, zone: Zone, data: DataSet) -> Intensity | None:
    loaded = load(table, data)
    row = loaded.rows.get(key)
    if row is None:
        return None
    method = describe_method(table.basis, table.flow, estimated=table.estimated)
    if zone is WORLD:
        method += ";world-average"
    code = zone.code if table is CLOUD else zone.grid
    source = f"codecarbon {data.version}; {loaded.file}; {row.key}; {row.year or 'year not stated'}"
    if code != zone.code:
        source += f"; for {zone.code}"
    return Intensity(row.g_per_kwh, source, method, code, row.year)


def _unavailable(zone: Zone, reason: str) -> Intensity:
    warn_once(
        f"No carbon intensity for {zone.name}, so no grams: {reason}, or set intensity_g_per_kwh.",
        to=assumptions,
    )
    return Intensity(None, f"none: {reason}", NONE, zone.grid, None)
