"""From settings to what does the work: how a meter turns joules into grams."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support.system import cache_folder
from aimeter.carbon.accounting import AT_THE_PLUG, Accounting
from aimeter.carbon.intensity import DETECTED, Intensity
from aimeter.carbon.location import resolve
from aimeter.carbon.offline import lookup
from aimeter.carbon.place import Place, locate
from aimeter.errors import ConfigurationError, UnknownRegionError

if TYPE_CHECKING:
    from aimeter.carbon.feed import Feed
    from aimeter.settings import Settings

# ruff: noqa: PLC0415 - providers and overheads are loaded by who has chosen some


def accounting(
    settings: Settings, *, environ: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> Accounting:
    """Return how a meter with these settings turns joules into grams; nothing is asked over the network yet.

    The metadata service is the exception, if `cloud_metadata` asks for it: a silence of 0.3 s ends that.

    Args:
        settings: The settings.
        environ: The environment, for the clouds' variables and the providers' keys.
        root: Folder of ``sys``.

    Raises:
        ConfigurationError: The region is unknown, or the provider cannot be used as it is set.

    """
    own = settings.intensity_g_per_kwh
    if own is not None:
        place = Place(settings.region, "setting" if settings.region else "", ())
    else:
        place = locate(settings.region, metadata=settings.cloud_metadata, environ=environ, root=root)
    intensity = _offline(settings, place)
    feed = None
    if settings.carbon_provider is not None and own is None:
        feed = _feed(settings, place, intensity, environ)
    return _with_overheads(
        Accounting(intensity, place, feed=feed, market_g_per_kwh=settings.market_g_per_kwh), settings
    )


def _offline(settings: Settings, place: Place) -> Intensity:
    if place.region is None or settings.region is not None or settings.intensity_g_per_kwh is not None:
        try:
            return lookup(settings.region, settings.intensity_g_per_kwh)
        except UnknownRegionError:
            if settings.carbon_provider is None or settings.region is None:
                raise
            code = resolve(settings.region).code  # raises where the name itself is unknown
            return Intensity(None, "none: the offline tables have no value for it", "none", code, None)
    try:
        found = lookup(place.region)
    except UnknownRegionError:  # it was found, not given: no reason to refuse
        return lookup()
    return replace(found, method=found.method + DETECTED)


def _feed(settings: Settings, place: Place, intensity: Intensity, environ: Mapping[str, str]) -> Feed:
    from aimeter.carbon.cache import Cache
    from aimeter.carbon.feed import Feed
    from aimeter.carbon.providers import provider

    chosen = provider(
        settings.carbon_provider,
        key=settings.carbon_key,
        basis=settings.carbon_basis,
        signal=settings.carbon_signal,
        environ=environ,
    )
    zone = settings.carbon_zone
    if zone is None:
        if place.region is None:
            message = f"{chosen.name} needs a place: set region= or AIMETER_REGION, or carbon_zone= or AIMETER_CARBON_ZONE."
            raise ConfigurationError(message)
        zone = chosen.zone_of(resolve(place.region))
    return Feed(
        chosen,
        zone,
        intensity,
        cache=Cache(_cache_of(settings)),
        max_age_s=settings.carbon_max_age_s,
        detected=settings.carbon_zone is None and settings.region is None,
    )


def _cache_of(settings: Settings) -> Path | None:
    """Return the folder that the setting `carbon_cache` means; None if it is ``off``."""
    if isinstance(settings.carbon_cache, Path):
        return settings.carbon_cache
    return None if settings.carbon_cache == "off" else cache_folder() / "carbon"


def _with_overheads(account: Accounting, settings: Settings) -> Accounting:
    chosen = (settings.wue_l_per_kwh, settings.grid_water_l_per_kwh, settings.embodied)
    if chosen == (None, None, None) and not isinstance(settings.pue, str):
        return replace(account, pue=settings.pue)
    from aimeter.carbon import overheads

    pue = overheads.pue(settings.pue)
    site = None if settings.wue_l_per_kwh is None else overheads.site_water(settings.wue_l_per_kwh)
    grid = (
        None if settings.grid_water_l_per_kwh is None else overheads.grid_water(settings.grid_water_l_per_kwh)
    )
    made = None if settings.embodied is None else overheads.embodied(settings.embodied)
    factors = {"pue": pue, "water_site": site, "water_grid": grid}
    sources = {name: factor.source for name, factor in factors.items() if factor is not None}
    if pue.value == AT_THE_PLUG:
        del sources["pue"]
    if made is not None:
        sources["embodied"] = made.source
    return replace(account, pue=pue.value, site_water=site, grid_water=grid, embodied=made, sources=sources)
