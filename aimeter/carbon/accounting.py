"""What a meter does to joules: grams with their error, and whatever of water, market and making was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aimeter.carbon.intensity import DETECTED, Intensity, co2e_error_g, co2e_g, half_width
from aimeter.carbon.location import resolve
from aimeter.carbon.offline import lookup
from aimeter.carbon.place import Place, locate
from aimeter.errors import ConfigurationError, UnknownRegionError

if TYPE_CHECKING:
    from aimeter.carbon.feed import Feed
    from aimeter.carbon.overheads import Embodied, Factor
    from aimeter.settings import Settings

# ruff: noqa: PLC0415 - providers and overheads are loaded by who has chosen some

_AT_THE_PLUG = 1.0


class Calls(NamedTuple):
    """What accounting needs to know of some settled calls, a column each.

    Attributes:
        start_s: Begin in seconds since 1970; likewise `end_s`.
        energy_j: None where nothing was metered; likewise `error_j`.
        share_s: The call's share of the time: its time over its concurrency.
    """

    start_s: Sequence[float]
    end_s: Sequence[float]
    energy_j: Sequence[float | None]
    error_j: Sequence[float | None]
    share_s: Sequence[float]


class Accounts(NamedTuple):
    """The columns of some calls, and a remark for each if there is something to say."""

    columns: Mapping[str, Iterable[object]]
    remarks: Sequence[Mapping[str, object]] | None


@dataclass(frozen=True, slots=True)
class Accounting:
    """How one meter turns joules into grams.

    Attributes:
        intensity: The offline intensity: all there is, or what stands in where the provider has no value.
        place: Where the machine is, and how that is known.
        pue: Power usage effectiveness; its source is empty at the plug.
        feed: The provider's values, if one was chosen.
        market_g_per_kwh: Intensity by contract, for columns of its own.
        site_water: Litres for each kWh used on site; None leaves the column empty.
        grid_water: Litres for each kWh consumed in generating it; None likewise.
        embodied: What making the hardware took; None likewise.
    """

    intensity: Intensity
    place: Place
    pue: float = _AT_THE_PLUG
    feed: Feed | None = None
    market_g_per_kwh: float | None = None
    site_water: Factor | None = None
    grid_water: Factor | None = None
    embodied: Embodied | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where the factors beyond the plug are from, for every row's `meta`."""

    @property
    def pue_source(self) -> str:
        """Where `pue` is from, in a few words; never empty."""
        return self.sources.get("pue") or ("at the plug" if self.pue == _AT_THE_PLUG else "given")

    def of(self, calls: Calls) -> Accounts:
        """Return the columns of carbon and water of some calls."""
        if self.feed is None:
            known = [self.intensity] * len(calls.energy_j)
            remarks = None
            columns = _constant(self.intensity)
        else:
            over = self.feed.over
            found = [over(start, end) for start, end in zip(calls.start_s, calls.end_s, strict=True)]
            known = [one.intensity for one in found]
            remarks = [one.remark for one in found]
            columns = _each(known)
        pue = self.pue
        return Accounts(
            {
                **columns,
                "pue": repeat(pue),
                "pue_source": repeat(self.pue_source),
                "co2e_g": [
                    _grams(energy, one.g_per_kwh, pue)
                    for energy, one in zip(calls.energy_j, known, strict=True)
                ],
                "co2e_error_g": [
                    _error(energy, error, one, pue)
                    for energy, error, one in zip(calls.energy_j, calls.error_j, known, strict=True)
                ],
                **self._beyond(calls),
            },
            remarks,
        )

    def _beyond(self, calls: Calls) -> dict[str, Iterable[object]]:
        """Return the columns that are empty unless something was chosen."""
        none = repeat(None)
        energy_j, pue, market = calls.energy_j, self.pue, self.market_g_per_kwh
        made = None if self.embodied is None else [self.embodied.grams(share) for share in calls.share_s]
        return {
            "market_g_per_kwh": repeat(market),
            "market_co2e_g": none if market is None else [_grams(one, market, pue) for one in energy_j],
            "water_site_l": _litres(energy_j, self.site_water, _AT_THE_PLUG),
            "water_grid_l": _litres(energy_j, self.grid_water, pue),
            "embodied_g": none if made is None else [middle for middle, _, _ in made],
            "embodied_lower_g": none if made is None else [lower for _, lower, _ in made],
            "embodied_upper_g": none if made is None else [upper for _, _, upper in made],
        }

    def after_fork(self) -> None:
        """Begin anew in a child."""
        if self.feed is not None:
            self.feed.after_fork()


def _constant(intensity: Intensity) -> dict[str, Iterable[object]]:
    return {
        "intensity_g_per_kwh": repeat(intensity.g_per_kwh),
        "intensity_lower_g_per_kwh": repeat(intensity.lower_g_per_kwh),
        "intensity_upper_g_per_kwh": repeat(intensity.upper_g_per_kwh),
        "intensity_source": repeat(intensity.source),
        "intensity_method": repeat(intensity.method),
        "zone": repeat(intensity.zone),
    }


def _each(found: Sequence[Intensity]) -> dict[str, Iterable[object]]:
    return {
        "intensity_g_per_kwh": [one.g_per_kwh for one in found],
        "intensity_lower_g_per_kwh": [one.lower_g_per_kwh for one in found],
        "intensity_upper_g_per_kwh": [one.upper_g_per_kwh for one in found],
        "intensity_source": [one.source for one in found],
        "intensity_method": [one.method for one in found],
        "zone": [one.zone for one in found],
    }


def _grams(energy_j: float | None, g_per_kwh: float | None, pue: float) -> float | None:
    return None if energy_j is None or g_per_kwh is None else co2e_g(energy_j, g_per_kwh, pue)


def _error(energy_j: float | None, error_j: float | None, one: Intensity, pue: float) -> float | None:
    if energy_j is None or error_j is None or one.g_per_kwh is None:
        return None
    half = half_width(one.g_per_kwh, one.lower_g_per_kwh, one.upper_g_per_kwh)
    return co2e_error_g(energy_j, error_j, one.g_per_kwh, half, pue)


def _litres(energy_j: Sequence[float | None], factor: Factor | None, pue: float) -> Iterable[object]:
    if factor is None:
        return repeat(None)
    from aimeter.carbon.overheads import litres

    return [None if energy is None else litres(energy, factor.value, pue) for energy in energy_j]


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
        cache=Cache(cache_folder(settings)),
        max_age_s=settings.carbon_max_age_s,
        detected=settings.carbon_zone is None and settings.region is None,
    )


def cache_folder(settings: Settings) -> Path | None:
    """Return the folder that the setting `carbon_cache` means; None if it is ``off``."""
    from aimeter._curve.calibration import default_path

    if isinstance(settings.carbon_cache, Path):
        return settings.carbon_cache
    return None if settings.carbon_cache == "off" else default_path().with_name("carbon")


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
    if pue.value == _AT_THE_PLUG:
        del sources["pue"]
    if made is not None:
        sources["embodied"] = made.source
    return replace(account, pue=pue.value, site_water=site, grid_water=grid, embodied=made, sources=sources)
