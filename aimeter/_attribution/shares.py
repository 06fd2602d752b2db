"""Whose joules: from the curves and the calls' times to each call's share, exactly conserved.

At every instant the power is divided among the calls that are open and have no open child (the *leaves*), in
proportion to their weights, which are 1 unless given. With E(t) the energy of a device and n(t) the sum of the
leaves' weights, a leaf earns its weight times dV = dE / n: the virtual time of fair queueing. So a call's share
is a difference of V, however many calls are open; the shares and what was drawn while no call was open add up
to E by construction.

Work is done in two steps. Here starts and ends are turned into edges, the moments at which n or somebody's part in
it changes. `aimeter._attribution.energy` reads the curves at the edges once they are certain, vectorised.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aimeter._attribution.edges import UNIT, Edges, Entry, OpenTimes
from aimeter._attribution.energy import Energy

if TYPE_CHECKING:
    from aimeter._attribution.figures import Figures
    from aimeter._calls.call import Call
    from aimeter._curve.activity import Array
    from aimeter._curve.trace import Trace

MOST_EDGES = 4096
"""Edges taken in one go, so that a backlog takes bounded memory and never keeps the sampler from its readings for
long."""

_IDLE_STRETCH_S = 0.25
"""Time without a call is looked at in stretches of at least this length to learn the idle power."""


class Shares:
    """The shares of calls in devices that are shared alike: every call has a part in all of them.

    Not thread-safe: its owner holds a lock.

    Attributes:
        traces: The traced channels; may grow, never shrinks.
    """

    def __init__(self, traces: list[Trace]) -> None:
        self.traces = traces
        self._entries: dict[int, Entry] = {}
        self._edges = Edges()
        self._leaves = 0
        self._open_times = OpenTimes()
        self._energy = Energy(traces)
        self._idle_s = -math.inf

    @property
    def unattributed_j(self) -> Array:
        """Energy of each trace drawn while no call was open, up to the last edge."""
        return self._energy.unattributed_j

    @property
    def edges(self) -> int:
        """Edges waiting to be settled."""
        return len(self._edges.time_s)

    @property
    def newest_s(self) -> float:
        """When a call last began or ended; NaN if none did."""
        return self._edges.newest_s

    @property
    def idle_since_s(self) -> float | None:
        """Since when, as far as is settled, no call is open; None if one is, or none ever was."""
        settled = self._energy
        return None if settled.edge_leaves or math.isnan(settled.edge_s) else settled.edge_s

    def certain_until(self, horizon_s: float) -> float:
        """Return up to when all is known, if all events up to `horizon_s` are."""
        certain = [trace.curve.certain_until(horizon_s) for trace in self.traces if trace.alive]
        return min([horizon_s, *certain])

    def manageable_until(self, until_s: float, most: int = MOST_EDGES) -> float:
        """Return `until_s`, or an earlier time if there are more than `most` edges before it."""
        times_s = self._edges.time_s
        if bisect_right(times_s, until_s) <= most:
            return until_s
        first_left = times_s[most]
        # All edges of one moment are settled together, however many a coarse clock gives it.
        return first_left if first_left == times_s[0] else math.nextafter(first_left, -math.inf)

    def settle(self, until_s: float, *, teaches: bool = True) -> Figures | None:
        """Settle all edges up to `until_s` and return the figures of the calls that ended in it, if any did.

        `teaches` tells whether nothing else runs in the gaps between calls, so that idle power can be learned.
        """
        count = bisect_right(self._edges.time_s, until_s)
        if not count:
            return None
        edges = self._edges.take(count)
        return self._energy.share_out(edges, self._open_times.activity(), teaches=teaches)

    def so_far(self, call: Call, now_s: float) -> Array | None:
        """Return the joules of an open call up to now, see `Energy.so_far`; None if it is not open."""
        entry = self._entries.get(id(call))
        if entry is None:
            return None
        return self._energy.so_far(entry, now_s, self._edges, self._open_times.activity())

    def learn_idle(self, until_s: float, idle_since_s: float | None) -> None:
        """Tell each trace about the time since no call is open anywhere, if so, and forget old activity."""
        if not math.isfinite(until_s):
            return
        if idle_since_s is not None and not self._energy.edge_leaves:
            start = max(self._idle_s, idle_since_s)
            if until_s - start >= _IDLE_STRETCH_S:
                for trace in self.traces:
                    trace.note_idle(start, until_s, idle_since_s)
                self._idle_s = until_s
        known = [
            trace.curve.certain_until(until_s) for trace in self.traces if trace.alive and len(trace.curve)
        ]
        self._open_times.forget(min([until_s, *known]))

    # A part of the devices

    def part(self, places: Sequence[int]) -> Shares:
        """Return the same for some of the traces only; it shares no state with this one."""
        part = Shares([self.traces[place] for place in places])
        part._energy = self._energy.part(part.traces, places)
        part._leaves, part._idle_s = self._leaves, self._idle_s
        part._open_times = self._open_times.copy()
        copies = {id(old): old.part(places, len(self.traces)) for old in self._all_entries()}
        for twin in copies.values():
            twin.parent = None if twin.parent is None else copies[id(twin.parent)]
            if twin.children is not None:
                twin.children = {copies[id(child)] for child in twin.children}
        part._entries = {key: copies[id(entry)] for key, entry in self._entries.items()}
        part._edges = self._edges.with_entries(copies)
        return part

    def _all_entries(self) -> Iterable[Entry]:
        """Return every entry that something here refers to, each once."""
        waiting = [*self._entries.values(), *self._edges.entries()]
        seen: dict[int, Entry] = {}
        while waiting:
            entry = waiting.pop()
            if id(entry) not in seen:
                seen[id(entry)] = entry
                waiting += [*([] if entry.parent is None else [entry.parent]), *(entry.children or ())]
        return seen.values()

    # What calls do

    def open(self, call: Call, time_s: float, weight: int = UNIT) -> None:
        """Note that a call begins, with a weight in multiples of 1 / UNIT; times never go back."""
        around = call.parent
        parent = None
        while around is not None and parent is None:  # calls around it may have no part in these devices
            parent, around = self._entries.get(id(around)), around.parent
        edge = self._edges.add(time_s, self._leaves)
        entry = Entry(call, parent, edge)
        if weight != UNIT:
            entry.weight = weight
        if time_s > call.start_s:  # its thread was kept from the queue for longer than settling stays behind
            entry.late_s = time_s - call.start_s
        self._entries[id(call)] = entry
        self._edges.opens.append(entry)
        if parent is not None:
            parent.awake += 1
            if parent.children is None:
                parent.children = set()
            parent.children.add(entry)
        self._propagate(entry, edge)

    def close(self, call: Call, time_s: float) -> None:
        """Note that a call ends."""
        entry = self._entries.pop(id(call))
        edge = self._edges.add(time_s, self._leaves)
        if entry.suspended_since_s is not None:
            self._pause(entry, time_s, suspended=False, edge=edge)
        leaves, own = entry.leaves, -entry.weight * entry.leaf
        entry.open, entry.closed = False, edge
        if time_s > entry.call.end_s:
            entry.late_s += time_s - entry.call.end_s
        if leaves:
            # Children that outlive it go on earning for themselves and for the next call around them.
            self._edges.add_change(edge, entry, own, -leaves)
        parent, orphans = entry.parent, entry.children or ()
        for child in orphans:
            child.parent = parent
        if parent is not None and parent.children is not None:
            parent.children.discard(entry)
            parent.children.update(orphans)
            parent.awake += entry.awake - 1
        self._propagate(parent, edge, own)
        self._edges.closes.append(entry)

    def pause(self, call: Call, time_s: float, *, suspended: bool) -> None:
        """Note that a generator's consumer holds it suspended from now on, or resumes it."""
        self._pause(self._entries[id(call)], time_s, suspended=suspended)

    def _pause(self, entry: Entry, time_s: float, *, suspended: bool, edge: int | None = None) -> None:
        if suspended == (entry.suspended_since_s is not None):
            return
        if suspended:
            entry.suspended_since_s = time_s
        elif entry.suspended_since_s is not None:
            entry.suspended_s += time_s - entry.suspended_since_s
            entry.suspended_since_s = None
        if entry.parent is not None:
            # What runs meanwhile is the work of the call around the generator.
            entry.parent.awake += -1 if suspended else +1
        self._propagate(entry, self._edges.add(time_s, self._leaves) if edge is None else edge)

    def _propagate(self, entry: Entry | None, edge: int, change: int = 0) -> None:
        """Carry what happened to a call outward: who is a leaf now, and how many leaves each call holds.

        A child that takes its parent's place as a leaf, or gives it back, changes nothing further out; so calls
        nested in one another to any depth cost the same each.

        Args:
            entry: The call that began, paused or resumed, or the one around the call that ended.
            edge: When.
            change: Weight of leaves gained or lost inside `entry` already.
        """
        nearest = None if entry is None else entry.parent
        while entry is not None and (change or entry.parent is nearest or entry is nearest):
            leaf = entry.open and not entry.awake and entry.suspended_since_s is None
            own = entry.weight * (leaf - entry.leaf)
            entry.leaf = leaf
            change += own
            if own or change:
                entry.leaves += change
                self._edges.add_change(edge, entry, own, change)
            entry = entry.parent
        if entry is None:
            self._leaves += change
        at = edge - self._edges.first
        self._edges.leaves[at] = self._leaves
        self._open_times.add(self._edges.time_s[at], busy=self._leaves > 0)
