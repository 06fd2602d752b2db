"""Quantities as people read them: engineering prefixes, and no digits that the error makes meaningless."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}

UNKNOWN = "unknown"


def _exponent(value: float, largest: int) -> int:
    """Return the multiple of three that, as an exponent, leaves 1 to 999 before the point."""
    rounded = float(f"{value:.3g}")  # 999.6 shows as 1.00 k
    return min(max(math.floor(math.log10(rounded) / 3) * 3, min(_PREFIXES)), largest)


class Prefix(NamedTuple):
    """A prefix of a unit, and the factor that it stands for."""

    text: str
    factor: float


def prefix(value: float, largest: int = 12) -> Prefix:
    """Return the prefix that suits a value of a base unit, as `quantity` chooses it."""
    exponent = _exponent(abs(value), largest) if value and math.isfinite(value) else 0
    return Prefix(_PREFIXES[exponent], 10.0**exponent)


def quantity(value: float | None, unit: str, error: float | None = None, *, largest: int = 12) -> str:
    """Return ``12.3 J``, ``4.50 mJ`` or, with an error, ``12.34 ± 0.62 J``.

    A plain value has three significant digits. With an error, the error has two and the value ends at the
    same place, as the GUM advises (JCGM 100:2008, 7.2.6).

    Args:
        value: In `unit`; None is unknown.
        unit: Base unit, without prefix.
        error: Half-width in the same unit, or None.
        largest: Power of ten of the largest prefix that suits the unit: 3 for grams, 0 for seconds.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if error is not None and not math.isfinite(error):
        error = None
    size = max(abs(value), error or 0.0)
    if size == 0:
        return f"0 {unit}"
    exponent = _exponent(size, largest)
    scaled = value / 10**exponent
    if not error:
        return f"{scaled:.{_decimals(scaled, 3)}f} {_PREFIXES[exponent]}{unit}"
    scaled_error = error / 10**exponent
    decimals = _decimals(scaled_error, 2)
    return f"{scaled:.{decimals}f} ± {scaled_error:.{decimals}f} {_PREFIXES[exponent]}{unit}"


def duration(seconds: float | None) -> str:
    """Return a time as ``12.3 s`` or, if it is longer than some minutes, as ``1.50 h`` and the like."""
    if seconds is not None and math.isfinite(seconds):
        for size_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
            if seconds >= max(2 * size_s, 1000):
                count = seconds / size_s
                return f"{count:,.{_decimals(count, 3)}f} {unit}"
    return quantity(seconds, "s", largest=0)


def _decimals(value: float, digits: int) -> int:
    """Return how many decimals show that many significant digits; six at most."""
    rounded = float(f"{max(abs(value), 1e-6):.{digits}g}")  # 0.0996 shows as 0.10
    return min(max(digits - 1 - math.floor(math.log10(rounded)), 0), 6)


def finite(value: Any) -> Any:  # noqa: ANN401 - plain values of any kind, and the same kind returned
    """Return plain values with None for every number that is infinite or none, as JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def printable(text: str) -> str:
    """Return `text` with what would steer a terminal as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
