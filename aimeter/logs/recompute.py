"""Grams again, from the joules in a log: with another intensity, elsewhere, or at another hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from aimeter.carbon.intensity import FALLBACK, HELD, Intensity, co2e_error_g, co2e_g, half_width
from aimeter.record import COLUMNS, Record

if TYPE_CHECKING:
    from aimeter.logs.brief import Brief

_AT = {name: place for place, name in enumerate(COLUMNS)}
_PLACES = tuple(
    _AT[name]
    for name in (
        "intensity_g_per_kwh",
        "intensity_source",
        "intensity_method",
        "zone",
        "intensity_lower_g_per_kwh",
        "intensity_upper_g_per_kwh",
    )
)
_GRAMS, _ERROR, _META = _AT["co2e_g"], _AT["co2e_error_g"], _AT["meta"]


def again(
    records: Iterable[Record], intensity: Intensity, remark: Mapping[str, object] | None = None
) -> list[Record]:
    """Return rows with another intensity: grams and their error anew, from the row's own joules and PUE.

    ``co2e_g = energy_j / 3.6e6 * g_per_kwh * pue``; everything else stays as it was.

    Args:
        records: The rows.
        intensity: What to apply.
        remark: Goes to ``aimeter.carbon`` in `meta`, in the place of what is there.
    """
    g_per_kwh = intensity.g_per_kwh
    half = (
        0.0
        if g_per_kwh is None
        else half_width(g_per_kwh, intensity.lower_g_per_kwh, intensity.upper_g_per_kwh)
    )
    given = (
        g_per_kwh,
        intensity.source,
        intensity.method,
        intensity.zone,
        intensity.lower_g_per_kwh,
        intensity.upper_g_per_kwh,
    )
    fresh = []
    for record in records:
        values: list[object] = list(record)
        for place, value in zip(_PLACES, given, strict=True):
            values[place] = value
        energy_j, error_j, pue = record.energy_j, record.error_j, record.pue
        known = energy_j is not None and g_per_kwh is not None
        values[_GRAMS] = co2e_g(energy_j, g_per_kwh, pue) if known else None  # type: ignore[arg-type]  # as known says
        values[_ERROR] = (
            co2e_error_g(energy_j, error_j, g_per_kwh, half, pue)  # type: ignore[arg-type]  # as known says
            if known and error_j is not None
            else None
        )
        if remark is not None:
            own = record.meta.get("aimeter")
            values[_META] = {
                **record.meta,
                "aimeter": {**(own if isinstance(own, Mapping) else {}), "carbon": dict(remark)},
            }
        fresh.append(Record._make(values))
    return fresh


def is_provisional(record: Record) -> bool:
    """Tell whether a row waits for its provider's value: it has the fallback's, or an older one held."""
    return (record.intensity_method or "").endswith((FALLBACK, HELD))


def times(record: Record | Brief) -> tuple[float, float]:
    """Return when a call began and ended, in seconds since 1970.

    Raises:
        ValueError: The row's `start` is no time.
    """
    try:
        start_s = datetime.fromisoformat(record.start).timestamp()
    except (
        OverflowError,
        OSError,
    ) as fault:  # a time of no zone, in a year that the platform's clock does not reach
        raise ValueError(record.start) from fault
    return start_s, start_s + record.duration_s
