"""Energy and carbon over time, in a bounded number of bins whatever the span of time."""

from __future__ import annotations

import math

_MOST_BINS = 600
_FIRST_S = 1 / 64


class Bins:
    """Sums by time and by key. Bins double in width as often as it takes for all times to fit.

    Attributes:
        width_s: Width of a bin.
    """

    def __init__(self) -> None:
        self.width_s = _FIRST_S
        self._sums: dict[int, dict[str, float]] = {}

    def spread(self, begin_s: float, end_s: float, amounts: dict[str, float]) -> None:
        """Spread amounts evenly from one time to another (seconds since 1970)."""
        if not amounts or not (math.isfinite(begin_s) and math.isfinite(end_s)):
            return
        end_s = max(begin_s, end_s)
        self._make_room(begin_s, end_s)
        first, last = math.floor(begin_s / self.width_s), math.floor(end_s / self.width_s)
        for number in range(first, last + 1):
            begin, end = max(begin_s, number * self.width_s), min(end_s, (number + 1) * self.width_s)
            part = (end - begin) / (end_s - begin_s) if end_s > begin_s else 1.0
            if part > 0:
                sums = self._sums.setdefault(number, {})
                for key, amount in amounts.items():
                    sums[key] = sums.get(key, 0.0) + part * amount

    def _make_room(self, begin_s: float, end_s: float) -> None:
        while True:
            first = min([math.floor(begin_s / self.width_s), *self._ends()])
            last = max([math.floor(end_s / self.width_s), *self._ends()])
            if last - first < _MOST_BINS:
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

    def rows(self) -> list[tuple[float, dict[str, float]]]:
        """Return the begin of each bin in which there is anything, and its sums, in time order."""
        return [(number * self.width_s, sums) for number, sums in sorted(self._sums.items())]
