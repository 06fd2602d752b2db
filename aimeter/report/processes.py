"""Which process a row is of, and whether processes may have used one machine at the same time: if not, nothing is divided."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from aimeter._support.machine import UNKNOWN
from aimeter.logs.brief import Brief
from aimeter.logs.recompute import times
from aimeter.record import Record

Process = tuple[str, int, str]
Row = Record | Brief


_SHARING = re.compile("([0-9a-f]{8})[0-9a-f]{8}-[0-9]+")
"""An identifier of a call: its first part is common to the calls that are divided by their process already."""


def process(row: Row) -> Process:
    """Return which process a row is of; a process id alone may be another's in another container."""
    found = _SHARING.fullmatch(row.call_id)
    return row.machine, row.pid, found[1] if found else ""


def span_of(row: Row) -> tuple[float, float] | None:
    """Return when a row's call began and ended; None if it does not say."""
    try:
        return times(row)
    except ValueError:  # a log may say anything
        return None


def at_once(rows: Iterable[Row]) -> tuple[bool, bool]:
    """Tell whether processes may have used a machine at the same time, and whether such ones do not name theirs.

    It takes constant memory a process: only when each one's first call began and its last one ended.
    """
    ranges: dict[Process, tuple[float, float]] = {}
    for row in rows:
        span = span_of(row) if row.devices else None
        if span is not None:
            key = process(row)
            begin_s, end_s = ranges.get(key, span)
            ranges[key] = min(begin_s, span[0]), max(end_s, span[1])
    return overlap(ranges)


def overlap(ranges: Mapping[Process, tuple[float, float]]) -> tuple[bool, bool]:
    """Tell the same from when each process's first call began and its last one ended."""
    known = unknown = False
    latest: dict[str, float] = {}
    for (machine, *_), (begin_s, end_s) in sorted(ranges.items(), key=lambda one: one[1]):
        if begin_s < latest.get(machine, -math.inf):
            known, unknown = known or machine != UNKNOWN, unknown or machine == UNKNOWN
        latest[machine] = max(latest.get(machine, -math.inf), end_s)
    return known, unknown
