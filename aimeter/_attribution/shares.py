"""Whose joules: from the curves and the calls' times to each call's share, exactly conserved.

At every instant the power is divided among the calls that are open and have no open child (the *leaves*), in
proportion to their weights, which are 1 unless given. With E(t) the energy of a device and n(t) the sum of the
leaves' weights, a leaf earns its weight times dV = dE / n: the virtual time of fair queueing. So a call's share
is a difference of V, however many calls are open; the shares and what was drawn while no call was open add up
to E by construction.

Work is done in two steps. *Structure* turns starts and ends into edges, the moments at which n or somebody's
part in it changes. *Energy* reads the curves at the edges once they are certain, vectorised.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from aimeter._curve.activity import NO_ACTIVITY, Activity, Array
from aimeter._curve.curve import Points, read
from aimeter._curve.resolution import half_width, resolution

if TYPE_CHECKING:
    from aimeter._calls.call import Call
    from aimeter._curve.trace import Trace

MOST_EDGES = 4096
"""Edges taken in one go, so that a backlog takes bounded memory and never keeps the sampler from its readings for
long."""

UNIT = 2**20
"""Weights are whole multiples of 1 / UNIT: then sums of any number of them are exact."""

_QUIET_STRETCH_S = 0.25
"""Time without a call is looked at in stretches of at least this length to learn the idle power."""

_QUIET_GAP_S = 0.05
"""Gaps between calls shorter than this teach nothing."""

_WINDOWED_S = 1.0
"""So far back a published power may tell of a step."""

_LONGEST_STEP_S = 5.0
"""No sensor is renewed less often."""

_INSTANT_S = 1e-9
"""A call shorter than what clocks and curves resolve is metered by whatever was alive."""


class Figures(NamedTuple):
    """What calls used. Arrays have a row for each trace, if they differ by trace, and a column for each call.

    Attributes:
        calls: The calls, in the order in which they ended.
        energy_j: Share of each device's energy, children included; `self_j` without them.
        window_j: All that each device drew while the call was open.
        resolution_j: 95 % half-width of `energy_j`, calibration not included.
        metered: Whether the device's curve covers any of the call.
        idle_s: The call's share of the time on each device, over which its idle power counts as the call's own.
        coverage: Part of the call's time covered by every device that was alive when it began; NaN if none was.
        concurrency: Among how many calls the energy was shared: the call's time over its share of the time.
        suspended_s: Time in which a consumer held the generator suspended.
    """

    calls: list[Call]
    energy_j: Array
    self_j: Array
    window_j: Array
    resolution_j: Array
    metered: npt.NDArray[np.bool_]
    idle_s: Array
    coverage: Array
    concurrency: Array
    suspended_s: Array

    def of(self, places: list[int]) -> Figures:
        """Return the figures of the calls at these places."""
        arrays = (array[..., places] for array in self[1:])
        return Figures([self.calls[place] for place in places], *arrays)  # type: ignore[arg-type]


class Entry:
    """What is known of one call while it is open."""

    # One is made for every call: what most calls never change stands here.
    awake = 0
    children: set[Entry] | None = None
    leaves = 0
    leaf = False
    open = True
    suspended_since_s: float | None = None
    suspended_s = 0.0
    late_s = 0.0
    closed: int | None = None
    batch = -1
    row = -1
    accounts: Array | None = None
    at_open: Array | None = None

    weight = UNIT

    def __init__(self, call: Call, parent: Entry | None, edge: int) -> None:
        self.call = call
        self.parent = parent
        self.edge = edge

    def part(self, places: Sequence[int], traces: int) -> Entry:
        """Return a copy that knows of these places among the traces only; its relatives are still the old ones."""
        twin = copy(self)
        if self.accounts is not None:
            known = self.accounts.shape[1] - 1
            twin.accounts = np.zeros((2, traces + 1))
            twin.accounts[:, :known], twin.accounts[:, -1] = self.accounts[:, :-1], self.accounts[:, -1]
            twin.accounts = twin.accounts[:, [*places, -1]]
        if self.at_open is not None:
            kept = np.zeros((_POINTS, traces))
            kept[:, : (self.at_open.size - 1) // _POINTS] = self.at_open[:-1].reshape(_POINTS, -1)
            twin.at_open = np.append(kept[:, places].ravel(), self.at_open[-1:])
        return twin


class _Close(NamedTuple):
    edge: int
    entry: Entry
    leaves: int


class _Books:
    """Edges in time order and what each books on whom; edges are numbered for ever, from 0."""

    def __init__(self) -> None:
        self.first = 0
        self.time_s: list[float] = []
        self.leaves: list[int] = []
        self.edge: list[int] = []
        self.entry: list[Entry] = []
        self.change: list[tuple[int, int]] = []
        self.opens: list[Entry] = []
        self.closes: list[_Close] = []

    def with_entries(self, copies: Mapping[int, Entry]) -> _Books:
        """Return the same edges, booked on copies of the entries, which are found by the entries' identity."""
        twin = _Books()
        twin.first = self.first
        twin.time_s, twin.leaves, twin.edge = [*self.time_s], [*self.leaves], [*self.edge]
        twin.change = [*self.change]
        twin.entry = [copies[id(entry)] for entry in self.entry]
        twin.opens = [copies[id(entry)] for entry in self.opens]
        twin.closes = [close._replace(entry=copies[id(close.entry)]) for close in self.closes]
        return twin

    def add_edge(self, time_s: float, leaves: int) -> int:
        self.time_s.append(time_s)
        self.leaves.append(leaves)
        return self.first + len(self.time_s) - 1

    def take(self, count: int) -> _Books:
        """Remove and return the first `count` edges with all that they book."""
        head = _Books()
        head.first = self.first
        self.first += count
        head.time_s, self.time_s = self.time_s[:count], self.time_s[count:]
        head.leaves, self.leaves = self.leaves[:count], self.leaves[count:]
        last = self.first - 1
        cut = bisect_right(self.edge, last)
        head.edge, self.edge = self.edge[:cut], self.edge[cut:]
        head.entry, self.entry = self.entry[:cut], self.entry[cut:]
        head.change, self.change = self.change[:cut], self.change[cut:]
        cut = bisect_right(self.opens, last, key=lambda entry: entry.edge)
        head.opens, self.opens = self.opens[:cut], self.opens[cut:]
        cut = bisect_right(self.closes, last, key=lambda close: close.edge)
        head.closes, self.closes = self.closes[:cut], self.closes[cut:]
        return head


class Shares:
    """The shares of calls in devices that are shared alike: every call has a part in all of them.

    Not thread-safe: its owner holds a lock.

    Attributes:
        traces: The traced channels; may grow, never shrinks.
        unattributed_j: Energy of each trace drawn while no call was open, up to the last edge.
    """

    def __init__(self, traces: list[Trace]) -> None:
        self.traces = traces
        self.unattributed_j: Array = np.zeros(0)
        self._entries: dict[int, Entry] = {}
        self._books = _Books()
        self._leaves = 0
        self._activity_time: list[float] = []
        self._activity_open: list[bool] = []
        self._shift_time: list[float] = []
        self._edge_s = math.nan
        self._edge_leaves = 0
        self._edge_energy: Array = np.zeros(0)
        self._earned: Array = np.zeros(1)  # V of each trace, then of time
        self._spread: Array = np.zeros(0)
        self._batch = 0
        self._quiet_s = -math.inf

    @property
    def edges(self) -> int:
        """Edges waiting to be settled."""
        return len(self._books.time_s)

    @property
    def newest_s(self) -> float:
        """When a call last began or ended; NaN if none did."""
        return self._books.time_s[-1] if self._books.time_s else self._edge_s

    def certain_until(self, horizon_s: float) -> float:
        """Return up to when all is known, if all events up to `horizon_s` are."""
        certain = [trace.curve.certain_until(horizon_s) for trace in self.traces if trace.alive]
        return min([horizon_s, *certain])

    def manageable_until(self, until_s: float, most: int = MOST_EDGES) -> float:
        """Return `until_s`, or an earlier time if there are more than `most` edges before it."""
        times_s = self._books.time_s
        if bisect_right(times_s, until_s) <= most:
            return until_s
        first_left = times_s[most]
        # All edges of one moment are settled together, however many a coarse clock gives it.
        return first_left if first_left == times_s[0] else math.nextafter(first_left, -math.inf)

    def settle(self, until_s: float, *, teaches: bool = True) -> Figures | None:
        """Settle all edges up to `until_s` and return the figures of the calls that ended in it, if any did.

        `teaches` tells whether nothing else runs in the gaps between calls, so that idle power can be learned.
        """
        count = bisect_right(self._books.time_s, until_s)
        return self._energy(self._books.take(count), teaches=teaches) if count else None

    def part(self, places: Sequence[int]) -> Shares:
        """Return the same for some of the traces only; it shares no state with this one."""
        self._grow()
        part = Shares([self.traces[place] for place in places])
        earners = [*places, -1]
        part.unattributed_j, part._edge_energy = self.unattributed_j[places], self._edge_energy[places]
        part._spread, part._earned = self._spread[places], self._earned[earners]
        part._leaves, part._edge_s, part._edge_leaves = self._leaves, self._edge_s, self._edge_leaves
        part._batch, part._quiet_s = self._batch, self._quiet_s
        part._activity_time, part._activity_open = [*self._activity_time], [*self._activity_open]
        part._shift_time = [*self._shift_time]
        copies = {id(old): old.part(places, len(self.traces)) for old in self._all_entries()}
        for twin in copies.values():
            twin.parent = None if twin.parent is None else copies[id(twin.parent)]
            if twin.children is not None:
                twin.children = {copies[id(child)] for child in twin.children}
        part._entries = {key: copies[id(entry)] for key, entry in self._entries.items()}
        part._books = self._books.with_entries(copies)
        return part

    def _all_entries(self) -> Iterable[Entry]:
        """Return every entry that something here refers to, each once."""
        books = self._books
        waiting = [
            *self._entries.values(),
            *books.entry,
            *books.opens,
            *(close.entry for close in books.closes),
        ]
        seen: dict[int, Entry] = {}
        while waiting:
            entry = waiting.pop()
            if id(entry) not in seen:
                seen[id(entry)] = entry
                waiting += [*([] if entry.parent is None else [entry.parent]), *(entry.children or ())]
        return seen.values()

    # Structure

    def open(self, call: Call, time_s: float, weight: int = UNIT) -> None:
        """Note that a call begins, with a weight in multiples of 1 / UNIT; times never go back."""
        around = call.parent
        parent = None
        while around is not None and parent is None:  # calls around it may have no part in these devices
            parent, around = self._entries.get(id(around)), around.parent
        edge = self._edge(time_s)
        entry = Entry(call, parent, edge)
        if weight != UNIT:
            entry.weight = weight
        if time_s > call.start_s:  # its thread was kept from the queue for longer than settling stays behind
            entry.late_s = time_s - call.start_s
        self._entries[id(call)] = entry
        self._books.opens.append(entry)
        if parent is not None:
            parent.awake += 1
            if parent.children is None:
                parent.children = set()
            parent.children.add(entry)
        self._ripple(entry, edge)

    def close(self, call: Call, time_s: float) -> None:
        """Note that a call ends."""
        entry = self._entries.pop(id(call))
        edge = self._edge(time_s)
        if entry.suspended_since_s is not None:
            self._pause(entry, time_s, suspended=False, edge=edge)
        leaves, own = entry.leaves, -entry.weight * entry.leaf
        entry.leaf, entry.open, entry.closed = False, False, edge
        if time_s > entry.call.end_s:
            entry.late_s += time_s - entry.call.end_s
        if leaves:
            # Children that outlive it go on earning for themselves and for the next call around them.
            self._book(edge, entry, own, -leaves)
        parent, orphans = entry.parent, entry.children or ()
        for child in orphans:
            child.parent = parent
        if parent is not None and parent.children is not None:
            parent.children.discard(entry)
            parent.children.update(orphans)
            parent.awake += entry.awake - 1
        self._ripple(parent, edge, own)
        self._books.closes.append(_Close(edge, entry, leaves))

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
        self._ripple(entry, self._edge(time_s) if edge is None else edge)

    def _ripple(self, entry: Entry | None, edge: int, change: int = 0) -> None:
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
                self._book(edge, entry, own, change)
            entry = entry.parent
        if entry is None:
            self._leaves += change
        self._books.leaves[edge - self._books.first] = self._leaves
        self._note_activity(edge)

    def _edge(self, time_s: float) -> int:
        """Add an edge; whatever the queue's order, edges never go back in time."""
        books = self._books
        last = books.time_s[-1] if books.time_s else self._edge_s
        return books.add_edge(max(time_s, last), self._leaves)  # before the first, `last` is NaN, no maximum

    def _note_activity(self, edge: int) -> None:
        """Keep the activity, the times at which any call was open, in step with the edges."""
        busy, time_s = self._leaves > 0, self._books.time_s[edge - self._books.first]
        if not self._activity_open or self._activity_open[-1] != busy:
            self._activity_time.append(time_s)
            self._activity_open.append(busy)
        elif busy:
            self._shift_time.append(time_s)

    def _book(self, edge: int, entry: Entry, own: int, total: int) -> None:
        self._books.edge.append(edge)
        self._books.entry.append(entry)
        self._books.change.append((own, total))

    # Energy

    def _activity(self) -> Activity:
        """Return the activity, known up to the horizon."""
        if not self._activity_time:
            return NO_ACTIVITY
        return Activity(
            np.array(self._activity_time), np.array(self._activity_open), np.array(self._shift_time)
        )

    def _forget_activity(self, before_s: float) -> None:
        """Drop what no stretch that is still to be read reaches back to, but for the call before it."""
        keep = max(bisect_right(self._activity_time, before_s - _WINDOWED_S) - 3, 0)
        del self._activity_time[:keep], self._activity_open[:keep]
        del self._shift_time[: bisect_right(self._shift_time, before_s - _LONGEST_STEP_S)]

    def _grow(self) -> int:
        """Make room for traces that were added; return their number."""
        count = len(self.traces)
        missing = count - self._edge_energy.size
        if missing:
            self._edge_energy = _widen(self._edge_energy, missing)
            self._spread = _widen(self._spread, missing)
            self.unattributed_j = _widen(self.unattributed_j, missing)
            self._earned = np.concatenate([self._earned[:-1], np.zeros(missing), self._earned[-1:]])
        return count

    def _energy(self, books: _Books, *, teaches: bool = True) -> Figures | None:
        """Read the curves at the edges and share them out."""
        traces = self._grow()
        self._batch += 1  # first, so that nothing stale is taken for this batch's should it fail
        time = np.array(books.time_s)
        after = np.array(books.leaves, dtype=np.float64) / UNIT
        before = np.concatenate([[self._edge_leaves / UNIT], after[:-1]])
        first = math.isnan(self._edge_s)
        lapse = np.diff(time, prepend=time[0] if first else self._edge_s)
        for gap in np.flatnonzero((before == 0) & (lapse >= _QUIET_GAP_S) & teaches):
            for trace in self.traces:
                trace.note_quiet(
                    float(time[gap] - lapse[gap]), float(time[gap]), float(time[gap] - lapse[gap])
                )
        activity = self._activity()
        for trace in self.traces:
            if trace.curve.refiner is not None:
                trace.curve.refiner.compare(activity)
        points_read = read([trace.curve for trace in self.traces], time, activity)
        energy = np.array([points.energy_j for points in points_read]).reshape(traces, time.size)
        if first:
            self._edge_energy = energy[:, 0].copy() if traces else self._edge_energy
        step = np.diff(energy, prepend=self._edge_energy[:, None])
        share = np.divide(1.0, before, out=np.zeros_like(before), where=before > 0)
        self.unattributed_j = self.unattributed_j + step @ (before == 0)
        earned = np.vstack([step * share, lapse * share])
        earned = self._earned[:, None] + np.cumsum(earned, axis=1)
        points = self._points(points_read, share, after)
        accounts = self._account(books, earned)
        figures = self._close_calls(books, accounts, points, after, before)
        for entry in books.opens:
            if entry.closed is None or entry.closed >= self._books.first:
                at = entry.edge - books.first
                entry.at_open = np.append(points[:, :, at].ravel(), [after[at]])
        self._edge_s, self._edge_leaves = books.time_s[-1], books.leaves[-1]
        self._edge_energy, self._earned = energy[:, -1], earned[:, -1]
        self._spread = points[_SPREAD, :, -1] if traces else self._spread
        return figures

    def _points(self, points_read: Sequence[Points], share: Array, after: Array) -> Array:
        """Stack what each curve says at each edge, with the running variance that edges add to shares.

        Where n changes from a to b, an energy that lies on the wrong side of the edge is divided by the wrong
        number: an error of h * (1/a - 1/b) for whoever is open throughout, times its weight.
        """
        points = np.zeros((_POINTS, len(points_read), share.size))
        share_after = np.divide(1.0, after, out=np.zeros_like(after), where=after > 0)
        both = (share > 0) & (share_after > 0)
        for k, one in enumerate(points_read):
            off = np.sqrt(half_width(one) ** 2 + one.phase_j**2 + one.shift_j**2)
            error = off * (share_after - share) * both
            spread = self._spread[k] + np.cumsum(error**2)
            points[:, k] = (*one, spread, spread - error**2)
        return points

    def _account(self, books: _Books, earned: Array) -> Array:
        """Book every change on its account and return the accounts, shape (calls, 2, earners).

        Account 0 is the call's own leaf, account 1 that of the call with its children. An account that held
        m leaves between edges i and j has earned m * (V[j] - V[i]).
        """
        entries: list[Entry] = []
        rows = np.empty(len(books.entry), dtype=np.intp)
        # A call can end without a change of leaves: all that it has left is suspended children.
        for index, entry in enumerate([*books.entry, *(close.entry for close in books.closes)]):
            if entry.batch != self._batch:
                entry.batch, entry.row = self._batch, len(entries)
                entries.append(entry)
            if index < rows.size:
                rows[index] = entry.row
        accounts = np.zeros((len(entries), 2, earned.shape[0]))
        for entry in entries:
            if entry.accounts is not None:
                old = entry.accounts
                accounts[entry.row, :, : old.shape[1] - 1] = old[:, :-1]
                accounts[entry.row, :, -1] = old[:, -1]
        change = np.array(books.change, dtype=np.float64) / UNIT
        at = np.array(books.edge, dtype=np.intp) - books.first
        np.add.at(accounts, rows, -change[:, :, None] * earned.T[at][:, None, :])
        for entry in entries:
            if entry.closed is None or entry.closed >= self._books.first:
                entry.accounts = accounts[entry.row].copy()
        return accounts

    def _close_calls(
        self, books: _Books, accounts: Array, points: Array, after: Array, before: Array
    ) -> Figures | None:
        closes = books.closes
        if not closes:
            return None
        traces = len(self.traces)
        # Where each call opened: an edge of this batch, or what was kept of an earlier one.
        end = np.array([close.edge for close in closes], dtype=np.intp) - books.first
        begin = np.array([close.entry.edge for close in closes], dtype=np.intp) - books.first
        start = points[:, :, np.maximum(begin, 0)]
        leaves = after[np.maximum(begin, 0)]
        for index in np.flatnonzero(begin < 0):
            kept = closes[index].entry.at_open
            if kept is None:
                continue
            known = (kept.size - 1) // _POINTS
            start[:, :, index] = 0.0  # as far as a trace that was added since is concerned
            start[:, :known, index] = kept[:-1].reshape(_POINTS, known)
            leaves[index] = kept[-1]
        stop = points[:, :, end]
        table = accounts[[close.entry.row for close in closes]]
        own, total = table[:, 0, :traces].T, table[:, 1, :traces].T
        held = np.array([close.leaves for close in closes], dtype=np.float64) / UNIT
        weight = np.array([close.entry.weight for close in closes], dtype=np.float64) / UNIT
        window = stop[_ENERGY] - start[_ENERGY]
        began, ended = Points(*start[:_SPREAD]), Points(*stop[:_SPREAD])
        alone = np.divide(total, window, out=np.zeros_like(total), where=window > 0)
        duration = np.array([close.entry.call.end_s - close.entry.call.start_s for close in closes])
        lapse = np.array([books.time_s[e] for e in end]) - np.array(
            [close.entry.call.start_s for close in closes]
        )
        duration = np.maximum(np.minimum(duration, lapse), 0.0)
        covered = np.minimum(ended.covered_s - began.covered_s, duration)
        # Whoever has nearly all of a device loses nothing to others, whatever the weights of its own children; by
        # rounding it may have more than all.
        shared = np.clip(10 * (1 - alone), 0.0, 1.0) * weight**2
        variance = shared * np.maximum(stop[_SPREAD_BEFORE] - start[_SPREAD], 0.0)
        variance += 1.96**2 * np.maximum(ended.variance_j2 - began.variance_j2, 0.0) * alone**2
        parts = weight / np.maximum(leaves, weight), held / np.maximum(before[end], weight)
        curves = [trace.curve for trace in self.traces]
        half_j = resolution(curves, began, ended, parts, variance, duration, total)
        power = np.array([trace.last_power_w for trace in self.traces])[:, None]
        died = np.array([trace.died_s for trace in self.traces])[:, None]
        alive = np.array([trace.alive for trace in self.traces], dtype=bool)[:, None]
        born = np.array([len(trace.curve) > 0 for trace in self.traces], dtype=bool)[:, None]
        expected = born & (alive | (died > np.array([close.entry.call.start_s for close in closes])))
        covered = self._by_device(covered * expected)
        # Nothing is extrapolated into a gap; what the device may have drawn in it widens the error.
        late = np.array([close.entry.late_s for close in closes])
        half_j = np.where(expected, half_j + (duration - covered + late) * power, 0.0)
        seen = np.where(duration > 0, covered / np.where(duration > 0, duration, 1.0), 1.0)
        metered = expected & ((stop[_COVERED] > start[_COVERED]) | (duration < _INSTANT_S))
        coverage = np.where(expected, seen, 1.0).min(axis=0, initial=1.0)
        coverage = np.where(expected.any(axis=0), coverage, np.nan)
        share_s = table[:, 1, -1]
        suspended = np.array([close.entry.suspended_s for close in closes])
        sharers = np.divide(lapse - suspended, share_s, out=np.ones_like(lapse), where=share_s > 0)
        return Figures(
            [close.entry.call for close in closes],
            total,
            own,
            window,
            half_j,
            metered,
            np.broadcast_to(share_s, total.shape),
            np.minimum(coverage, 1.0),
            np.maximum(sharers, 1.0),
            suspended,
        )

    def _by_device(self, covered: Array) -> Array:
        """Add up the time covered by the traces of one device: one takes over where another ended."""
        ids = [trace.channel.id for trace in self.traces]
        if len(set(ids)) == len(ids):
            return covered
        return np.array(
            [covered[[i for i, other in enumerate(ids) if other == one]].sum(axis=0) for one in ids]
        )

    def so_far(self, call: Call, now_s: float) -> tuple[list[float], list[float]] | None:
        """Return the joules of an open call up to now, and of its whole window; None if it is not open.

        What lies beyond the last settled edge is shared among the calls open now, at the power last seen.
        """
        entry = self._entries.get(id(call))
        if entry is None:
            return None
        time = np.array([call.start_s])
        activity = self._activity()
        part = entry.leaves / max(self._leaves, 1)
        shares, windows = [], []
        for k, trace in enumerate(self.traces):
            if not len(trace.curve):
                shares.append(0.0)
                windows.append(0.0)
                continue
            tail = max(now_s - trace.curve.end_s, 0.0) * trace.last_power_w if trace.alive else 0.0
            energy = trace.curve.energy_j + tail
            window = max(energy - float(trace.curve.at(time, activity).energy_j[0]), 0.0)
            if entry.accounts is not None and entry.at_open is not None and k < entry.accounts.shape[1] - 1:
                kept = entry.at_open[:-1].reshape(_POINTS, -1)
                # A trace that was added since had drawn nothing by then.
                window = max(energy - (float(kept[_ENERGY, k]) if k < kept.shape[1] else 0.0), 0.0)
                settled = float(entry.accounts[1, k] + entry.leaves / UNIT * self._earned[k])
                share = settled + part * max(energy - float(self._edge_energy[k]), 0.0)
            else:
                share = window * part
            shares.append(share)
            windows.append(window)
        return shares, windows

    def learn_idle(self, until_s: float, quiet_since_s: float | None) -> None:
        """Tell each trace about the time since no call is open anywhere, if so, and forget old activity."""
        if not math.isfinite(until_s):
            return
        if quiet_since_s is not None and not self._edge_leaves:
            start = max(self._quiet_s, quiet_since_s)
            if until_s - start >= _QUIET_STRETCH_S:
                for trace in self.traces:
                    trace.note_quiet(start, until_s, quiet_since_s)
                self._quiet_s = until_s
        known = [
            trace.curve.certain_until(until_s) for trace in self.traces if trace.alive and len(trace.curve)
        ]
        self._forget_activity(min([until_s, *known]))

    @property
    def quiet_since_s(self) -> float | None:
        """Since when, as far as is settled, no call is open; None if one is, or none ever was."""
        return None if self._edge_leaves or math.isnan(self._edge_s) else self._edge_s


_ENERGY, _COVERED = 0, 3
_SPREAD, _SPREAD_BEFORE, _POINTS = 7, 8, 9


def _widen(values: Array, by: int) -> npt.NDArray[np.float64]:
    return np.concatenate([values, np.zeros(by)])
