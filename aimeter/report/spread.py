"""How a quantity is spread over calls: its quantiles, in constant memory."""

from __future__ import annotations

import math
from collections import Counter

_BINS_A_DECADE = 60
"""A bin is 4 % wide, and a quantile is right to 2 %."""


class Spread:
    """Counts of positive values in bins of equal ratio; zeros apart."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._zeros = 0
        self.least, self.most = math.inf, -math.inf

    @property
    def count(self) -> int:
        """How many values there are."""
        return self._zeros + self._counts.total()

    def add(self, value: float) -> None:
        """Count a value in."""
        self.least, self.most = min(self.least, value), max(self.most, value)
        if value > 0:
            self._counts[math.floor(math.log10(value) * _BINS_A_DECADE)] += 1
        else:
            self._zeros += 1

    def quantile(self, part: float) -> float:
        """Return the value below which that part of the values lies; NaN if there is none."""
        if not self.count:
            return math.nan
        wanted = part * (self.count - 1)
        passed = self._zeros
        if passed > wanted:
            return max(self.least, 0.0) if self.least > 0 else min(self.least, 0.0)
        for number, count in sorted(self._counts.items()):
            passed += count
            if passed > wanted:
                middle: float = 10 ** ((number + 0.5) / _BINS_A_DECADE)
                return min(max(middle, self.least), self.most)
        return self.most
