"""Edges, the moments at which calls begin, pause or end, and what each changes for whom, until the curves reach them."""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from aimeter._curve.activity import NO_ACTIVITY, Activity, Array

if TYPE_CHECKING:
    from aimeter._calls.call import Call

UNIT = 2**20
"""Weights are whole multiples of 1 / UNIT: then sums of any number of them are exact."""

_WINDOWED_S = 1.0
"""So far back a published power may tell of a step."""

_LONGEST_STEP_S = 5.0
"""No sensor is renewed less often."""

OWN, TOTAL = range(2)
"""The accounts of a call: of its own leaf, and of itself with its children."""

TIME = 0
"""Where among the earners of an account the time stands; the traces follow."""


class Entry:
    """What is known of one call while it is open.

    Attributes:
        call: The call.
        parent: The nearest call around it that is open and has a part in these devices.
        edge: Number of the edge at which it began.
        awake: How many of its children are not suspended.
        children: Those that are open.
        leaves: Weight of the leaves inside it, itself included, in multiples of 1 / UNIT; so is `weight`.
        leaf: Whether it is one.
        late_s: How much later than they happened its begin and end are settled.
        closed: Number of the edge at which it ended; `leaves` are those that were inside it then.
        batch: The batch of edges in which `row` is its place among the accounts.
        accounts: What it earned, shape (2, earners).
        at_open: What was known where it began, shape (lines, traces); see `aimeter._attribution.closing.Marks`.
        leaves_at_open: Weight of all leaves from then on.
    """

    # One is made for every call: what most calls never change stands here.
    awake = 0
    children: set[Entry] | None = None
    leaves = 0
    leaf = False
    open = True
    suspended_since_s: float | None = None
    suspended_s = 0.0
    late_s = 0.0
    closed: int = sys.maxsize
    batch = -1
    row = -1
    accounts: Array | None = None
    at_open: Array | None = None
    leaves_at_open = 0.0
    weight = UNIT

    def __init__(self, call: Call, parent: Entry | None, edge: int) -> None:
        self.call = call
        self.parent = parent
        self.edge = edge

    def outlasts(self, edge: int) -> bool:
        """Return whether the call did not end before this edge."""
        return self.closed >= edge

    def part(self, places: Sequence[int], traces: int) -> Entry:
        """Return a copy that knows of these places among the traces only; its relatives are still the old ones."""
        twin = copy(self)
        if self.accounts is not None:
            twin.accounts = widened(self.accounts, 1 + traces)[:, earners(places)]
        if self.at_open is not None:
            twin.at_open = widened(self.at_open, traces)[:, places]
        return twin


class Edges:
    """Edges in time order and what each changes; they are numbered for ever, from 0.

    Attributes:
        first: Number of the first one here.
        newest_s: When the last one is, taken or not; NaN if there was none.
        time_s: When each is.
        leaves: Weight of all leaves after each, in multiples of 1 / UNIT.
        edge: For each change the number of its edge; ascending.
        entry: Whom it concerns.
        own: What leaves it gained by itself, in multiples of 1 / UNIT.
        total: The same with its children.
        opens: The calls that began.
        closes: The calls that ended.
    """

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.newest_s = math.nan
        self.time_s = array("d")
        self.leaves: list[int] = []
        self.edge = array("q")
        self.entry: list[Entry] = []
        self.own: list[int] = []
        self.total: list[int] = []
        self.opens: list[Entry] = []
        self.closes: list[Entry] = []

    @property
    def end(self) -> int:
        """The number that follows that of the last edge here."""
        return self.first + len(self.time_s)

    def entries(self) -> Iterable[Entry]:
        """Return all calls that something here refers to, some more than once."""
        return [*self.entry, *self.opens, *self.closes]

    def with_entries(self, copies: Mapping[int, Entry]) -> Edges:
        """Return the same edges with copies of the entries, which are found by the entries' identity."""
        twin = Edges(self.first)
        twin.newest_s = self.newest_s
        twin.time_s, twin.leaves, twin.edge = self.time_s[:], self.leaves[:], self.edge[:]
        twin.own, twin.total = self.own[:], self.total[:]
        twin.entry = [copies[id(entry)] for entry in self.entry]
        twin.opens = [copies[id(entry)] for entry in self.opens]
        twin.closes = [copies[id(entry)] for entry in self.closes]
        return twin

    def add(self, time_s: float, leaves: int) -> int:
        """Add an edge and return its number; whatever the queue's order, edges never go back in time."""
        time_s = self.newest_s = max(time_s, self.newest_s)  # NaN, before the first, is no maximum
        self.time_s.append(time_s)
        self.leaves.append(leaves)
        return self.first + len(self.time_s) - 1

    def add_change(self, edge: int, entry: Entry, own: int, total: int) -> None:
        """Note that a call gained leaves, `own` of them by itself and `total` with its children."""
        self.edge.append(edge)
        self.entry.append(entry)
        self.own.append(own)
        self.total.append(total)

    def take(self, count: int) -> Edges:
        """Remove and return the first `count` edges with all that they change."""
        head = Edges(self.first)
        self.first += count
        head.time_s, self.time_s = self.time_s[:count], self.time_s[count:]
        head.leaves, self.leaves = self.leaves[:count], self.leaves[count:]
        last = self.first - 1
        cut = bisect_right(self.edge, last)
        head.edge, self.edge = self.edge[:cut], self.edge[cut:]
        head.entry, self.entry = self.entry[:cut], self.entry[cut:]
        head.own, self.own = self.own[:cut], self.own[cut:]
        head.total, self.total = self.total[:cut], self.total[cut:]
        cut = bisect_right(self.opens, last, key=lambda entry: entry.edge)
        head.opens, self.opens = self.opens[:cut], self.opens[cut:]
        cut = bisect_right(self.closes, last, key=lambda entry: entry.closed)
        head.closes, self.closes = self.closes[:cut], self.closes[cut:]
        return head


class OpenTimes:
    """The times at which any call was open, as the edges tell them one by one."""

    def __init__(self) -> None:
        self._time_s, self._shift_s = array("d"), array("d")
        self._open = bytearray()

    def copy(self) -> OpenTimes:
        """Return a copy that shares nothing with this one."""
        twin = OpenTimes()
        twin._time_s, twin._open, twin._shift_s = self._time_s[:], self._open[:], self._shift_s[:]
        return twin

    def add(self, time_s: float, *, busy: bool) -> None:
        """Note whether a call is open from a time on; times never go back."""
        if not self._open or self._open[-1] != busy:
            self._time_s.append(time_s)
            self._open.append(busy)
        elif busy:
            self._shift_s.append(time_s)

    def activity(self) -> Activity:
        """Return the activity, known up to the horizon."""
        if not self._time_s:
            return NO_ACTIVITY
        is_open = np.array(self._open, dtype=bool)
        return Activity(np.array(self._time_s), is_open, np.array(self._shift_s))

    def forget(self, before_s: float) -> None:
        """Drop what no stretch that is still to be read reaches back to, but for the call before it."""
        keep = max(bisect_right(self._time_s, before_s - _WINDOWED_S) - 3, 0)
        del self._time_s[:keep], self._open[:keep]
        del self._shift_s[: bisect_right(self._shift_s, before_s - _LONGEST_STEP_S)]


def earners(places: Sequence[int]) -> list[int]:
    """Return where the time and the traces at these places stand among the earners of an account."""
    return [TIME, *(TIME + 1 + place for place in places)]


def widened(values: Array, size: int) -> Array:
    """Return the values with zeros after them along the last axis, for traces that were added since."""
    missing = size - values.shape[-1]
    if not missing:
        return values
    return np.concatenate([values, np.zeros((*values.shape[:-1], missing))], axis=-1)
