"""Bars and lines drawn with characters, as high or as long as their part of the greatest."""

from __future__ import annotations

import math
from collections.abc import Iterable

_HEIGHTS = "▁▂▃▄▅▆▇█"
_LENGTHS = " ▏▎▍▌▋▊▉█"


def sparkline(values: Iterable[float]) -> str:
    """Return values as blocks whose height is their part of the greatest one: where there is nothing, none."""
    each = [*values]
    most = max(each, default=0.0)
    if not (most > 0 and all(map(math.isfinite, each))):
        return ""
    steps = len(_HEIGHTS)
    return "".join(" " if one <= 0 else _HEIGHTS[min(int(one / most * steps), steps - 1)] for one in each)


def bar(part: float, width: int) -> str:
    """Return a bar as long as that part of `width` characters, which it has; what is more than nothing is seen."""
    steps = len(_LENGTHS) - 1
    if not part > 0:
        return " " * width
    eighths = min(max(round(part * width * steps), 1), width * steps)
    full, left = divmod(eighths, steps)
    return ("█" * full + _LENGTHS[left : left + 1].rstrip()).ljust(width)
