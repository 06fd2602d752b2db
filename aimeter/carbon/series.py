"""Intensity over time: piecewise constant, integrated exactly.

A provider says how much one kilowatt-hour emits in each half hour, hour or five minutes. A call of constant power
emits in proportion to the mean of that over its time, so the mean, weighted by time, is the call's intensity. The
power within a call is taken as constant: over the minutes of most calls intensity hardly moves, and where a call
spans two values the shares of its time in each say what each contributes.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from aimeter.carbon.intensity import MAX_G_PER_KWH, Accounting, Basis, Flow, Signal, describe_method

T = TypeVar("T", bound=str)

BASES: tuple[Basis, ...] = ("lifecycle", "direct", "direct-co2")
FLOWS: tuple[Flow, ...] = ("production", "consumption", "flow-traced", "unstated")
SIGNALS: tuple[Signal, ...] = ("average", "marginal")
ACCOUNTINGS: tuple[Accounting, ...] = ("location-based", "market-based")


class Kind(NamedTuple):
    """What the numbers of a series are; `aimeter.carbon.intensity` explains the words."""

    basis: Basis
    flow: Flow
    signal: Signal = "average"
    accounting: Accounting = "location-based"

    def describe(self, *, estimated: bool) -> str:
        """Return the text for a row's `intensity_method`."""
        return describe_method(
            self.basis, self.flow, estimated=estimated, signal=self.signal, accounting=self.accounting
        )


def kind_from(text: str) -> Kind:
    """Return what a text such as ``average;location-based;lifecycle;production`` says, in any order.

    What it leaves open is taken as average, location-based, direct and unstated.
    """
    words = {word.strip().lower() for word in text.split(";")}
    return Kind(
        _word(words, BASES, "direct"),
        _word(words, FLOWS, "unstated"),
        _word(words, SIGNALS, "average"),
        _word(words, ACCOUNTINGS, "location-based"),
    )


def _word(words: set[str], known: tuple[T, ...], otherwise: T) -> T:
    return next((word for word in known if word in words), otherwise)


class Point(NamedTuple):
    """One value and the time it holds for, in seconds since 1970 (UTC), the end not included."""

    start_s: float
    end_s: float
    g_per_kwh: float
    estimated: bool = False
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """What a provider answered.

    Attributes:
        zone: The zone as the provider names it.
        kind: What the numbers are.
        source: The provider, and what in its answer tells where the numbers are from.
        points: In order of time, without overlaps.
        year: Year of the data where they are of a year as a whole.
    """

    zone: str
    kind: Kind
    source: str
    points: tuple[Point, ...]
    year: int | None = None


class Mean(NamedTuple):
    """The intensity of a stretch of time.

    Attributes:
        g_per_kwh: Mean over time; likewise `lower` and `upper`, None unless every part has one.
        estimated: Whether any part is.
        covered: Part of the stretch, 0 to 1, that has a value; the mean is over that part.
        parts: The values that it is made of.
    """

    g_per_kwh: float
    lower: float | None
    upper: float | None
    estimated: bool
    covered: float
    parts: tuple[Point, ...]


def is_plausible(g_per_kwh: object, kind: Kind | None = None) -> bool:
    """Tell whether a value can be an intensity: 0 to 2000 g/kWh, and 0 itself only where it can be true.

    Exactly 0 is possible at the power station or by contract. A life cycle never comes to nothing, so there a 0
    is a gap in somebody's data.
    """
    if isinstance(g_per_kwh, bool) or not isinstance(g_per_kwh, int | float):
        return False
    if not 0 <= g_per_kwh <= MAX_G_PER_KWH:
        return False
    return (
        g_per_kwh > 0
        or kind is None
        or kind.basis != "lifecycle"
        or kind.accounting == "market-based"
        or kind.signal == "marginal"
    )


def tidy(points: Iterable[Point], kind: Kind | None = None) -> tuple[Point, ...]:
    """Return the plausible points in order; where two overlap, the one that begins later cuts the earlier.

    Of two that begin together the one given last stays: it is the newer answer. Bounds that cannot be are dropped.
    """
    by_start = {
        point.start_s: _bounded(point)
        for point in points
        if math.isfinite(point.start_s)
        and point.start_s < point.end_s < math.inf
        and is_plausible(point.g_per_kwh, kind)
    }
    ordered = [by_start[start] for start in sorted(by_start)]
    for place in range(len(ordered) - 1):
        following = ordered[place + 1].start_s
        if ordered[place].end_s > following:
            ordered[place] = ordered[place]._replace(end_s=following)
    return tuple(ordered)


def _bounded(point: Point) -> Point:
    """Return a point without those bounds that are no numbers, or not on their own side of the value."""
    lower, value, upper = point.lower, point.g_per_kwh, point.upper
    lower_holds = lower is None or (_is_number(lower) and 0 <= lower <= value)
    upper_holds = upper is None or (_is_number(upper) and value <= upper <= sys.float_info.max)
    if lower_holds and upper_holds:
        return point
    return point._replace(lower=lower if lower_holds else None, upper=upper if upper_holds else None)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def within(points: Sequence[Point], start_s: float, end_s: float) -> tuple[Point, ...]:
    """Return the points of a tidy sequence that hold somewhere in a stretch of time.

    A stretch without length has the one point that holds at that moment.
    """
    first = max(bisect_right(points, start_s, key=_start) - 1, 0)
    found = []
    for point in points[first:]:
        if point.start_s > end_s or (point.start_s == end_s > start_s):
            break
        if point.end_s > start_s:
            found.append(point)
    return tuple(found)


def seconds_in(point: Point, start_s: float, end_s: float) -> float:
    """Return for how long a point holds within a stretch of time."""
    return max(min(point.end_s, end_s) - max(point.start_s, start_s), 0.0)


def _start(point: Point) -> float:
    return point.start_s


def integral(points: Sequence[Point], start_s: float, end_s: float) -> float:
    """Return the integral of intensity over time in (g/kWh) * s; stretches without a value count as nothing."""
    return math.fsum(
        point.g_per_kwh * seconds_in(point, start_s, end_s) for point in within(points, start_s, end_s)
    )


def mean(points: Sequence[Point], start_s: float, end_s: float) -> Mean | None:
    """Return the mean intensity over a stretch of time; None if no value holds anywhere in it."""
    parts = within(points, start_s, end_s)
    if not parts:
        return None
    weights = [seconds_in(part, start_s, end_s) for part in parts]
    total = math.fsum(weights)
    covered = 1.0
    if total > 0:
        covered = min(total / (end_s - start_s), 1.0)
    else:  # a moment, or a stretch too short for a clock
        parts, weights, total = parts[:1], [1.0], 1.0
    return Mean(
        _weighted([part.g_per_kwh for part in parts], weights, total),
        _bound([part.lower for part in parts], weights, total),
        _bound([part.upper for part in parts], weights, total),
        any(part.estimated for part in parts),
        covered,
        parts,
    )


def _weighted(values: Sequence[float], weights: Sequence[float], total: float) -> float:
    if len(values) == 1:
        return values[0]
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _bound(values: Sequence[float | None], weights: Sequence[float], total: float) -> float | None:
    known = [value for value in values if value is not None]
    return _weighted(known, weights, total) if len(known) == len(values) else None
