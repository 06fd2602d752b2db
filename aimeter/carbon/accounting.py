"""What a meter does to joules: grams with their error, and whatever of water, market and making was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from aimeter.carbon.intensity import Intensity, co2e_error_g, co2e_g, half_width
from aimeter.carbon.place import Place

if TYPE_CHECKING:
    from aimeter.carbon.feed import Feed
    from aimeter.carbon.overheads import Embodied, Factor

AT_THE_PLUG = 1.0


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
    pue: float = AT_THE_PLUG
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
        return self.sources.get("pue") or ("at the plug" if self.pue == AT_THE_PLUG else "given")

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
            "water_site_l": _litres(energy_j, self.site_water, AT_THE_PLUG),
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
    from aimeter.carbon.overheads import litres  # noqa: PLC0415 - loaded by who has chosen it

    return [None if energy is None else litres(energy, factor.value, pue) for energy in energy_j]
