"""Energy and carbon over time, in a bounded number of bins whatever the span of time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

_MOST_BINS = 600
_FIRST_S = 1 / 64
LAST_S = 253_402_300_799.0
"""The end of the year 9999: no later time can be told."""


class Bins:
    """Sums by time and by key. Bins double in width as often as it takes for all times to fit.

    Args:
        most: How many there are at most.

    Attributes:
        width_s: Width of a bin.
        begin_s: When the first amount began, in seconds since 1970; infinite without any.
        end_s: When the last one ended.
    """

    __slots__ = ("_most", "_sums", "begin_s", "end_s", "width_s")

    def __init__(self, most: int = _MOST_BINS) -> None:
        self._most = most
        self.begin_s, self.end_s = math.inf, -math.inf
        self.width_s = _FIRST_S
        self._sums: dict[int, dict[str, float]] = {}

    def spread(self, begin_s: float, end_s: float, amounts: dict[str, float]) -> None:
        """Spread amounts evenly from one time to another (seconds since 1970)."""
        if not amounts or not (math.isfinite(begin_s) and math.isfinite(end_s)):
            return
        end_s = max(begin_s, end_s)
        self.begin_s, self.end_s = min(self.begin_s, begin_s), max(self.end_s, end_s)
        self._make_room(begin_s, end_s)
        first, last = math.floor(begin_s / self.width_s), math.floor(end_s / self.width_s)
        for number in range(first, last + 1):
            begin, end = max(begin_s, number * self.width_s), min(end_s, (number + 1) * self.width_s)
            part = (end - begin) / (end_s - begin_s) if end_s > begin_s else 1.0
            if part > 0:
                sums = self._sums.setdefault(number, {})
                for key, amount in amounts.items():
                    sums[key] = sums.get(key, 0.0) + part * amount

    def reach(self, begin_s: float, end_s: float) -> None:
        """Make room from one time to another, as what is spread there would."""
        self.spread(begin_s, begin_s, {"": 0.0})
        self.spread(end_s, end_s, {"": 0.0})

    def put(self, number: int, amounts: dict[str, float]) -> None:
        """Add amounts to the bin from `number` times the width on."""
        sums = self._sums.setdefault(number, {})
        for key, amount in amounts.items():
            sums[key] = sums.get(key, 0.0) + amount

    def _make_room(self, begin_s: float, end_s: float) -> None:
        while True:
            first = min([math.floor(begin_s / self.width_s), *self._ends()])
            last = max([math.floor(end_s / self.width_s), *self._ends()])
            if last - first < self._most:
                return
            self.width_s *= 2
            wider: dict[int, dict[str, float]] = {}
            for number, sums in self._sums.items():
                into = wider.setdefault(number // 2, {})
                for key, amount in sums.items():
                    into[key] = into.get(key, 0.0) + amount
            self._sums = wider

    def _ends(self) -> tuple[int, ...]:
        return (min(self._sums), max(self._sums)) if self._sums else ()

    def merge(self, other: Bins) -> None:
        """Add what others hold."""
        for (begin_s, end_s), sums in other.stretches():
            self.spread(begin_s, end_s, sums)

    def stretches(self) -> Iterator[tuple[tuple[float, float], dict[str, float]]]:
        """Yield the begin and the end of what is known to be in a bin, and its sums, in time order."""
        for begin_s, sums in self.rows():
            yield (max(begin_s, self.begin_s), min(begin_s + self.width_s, self.end_s)), sums

    def evenly(self, key: str, begin_s: float, end_s: float, count: int) -> tuple[float, ...]:
        """Return the amount of a key in each of so many equal stretches of a time; what is outside is in none."""
        found, width_s = [0.0] * count, (end_s - begin_s) / count
        if not width_s > 0:
            return ()
        for (first_s, last_s), sums in self.stretches():
            first, last = (min(max((at - begin_s) / width_s, 0.0), count) for at in (first_s, last_s))
            start = min(int(first), count - 1)  # a moment at the very end is in the last one
            for place in range(start, max(start + 1, math.ceil(last))):
                part = (min(last, place + 1) - max(first, place)) / (last - first) if last > first else 1.0
                found[place] += part * sums.get(key, 0.0)
        return tuple(found)

    def rows(self) -> list[tuple[float, dict[str, float]]]:
        """Return the begin of each bin in which there is anything, and its sums, in time order."""
        return [(number * self.width_s, sums) for number, sums in sorted(self._sums.items())]


def unix_s(start: str, duration_s: float) -> float | None:
    """Return when a call began, in seconds since 1970; None where a log says no time, or one that cannot be told."""
    try:
        began_s = datetime.fromisoformat(start).timestamp()
    except (ValueError, OverflowError):
        return None
    return None if began_s + duration_s > LAST_S else began_s
