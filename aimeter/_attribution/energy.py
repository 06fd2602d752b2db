"""From curves to accounts: what each call earns up to each edge, vectorised.

With E(t) the energy of a device and n(t) the sum of the leaves' weights, whoever holds a leaf of weight w earns
w times dV = dE / n. So a batch of edges takes one reading of the curves, one running sum V, and for every change of
leaves one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aimeter._attribution.closing import Leaves, Marks, close_calls
from aimeter._attribution.edges import OWN, TIME, TOTAL, UNIT, Edges, Entry, earners, widened
from aimeter._curve.curve import Points, read
from aimeter._curve.resolution import half_width

if TYPE_CHECKING:
    from aimeter._attribution.figures import Figures
    from aimeter._curve.activity import Activity, Array
    from aimeter._curve.trace import Trace

_IDLE_GAP_S = 0.05
"""Gaps between calls shorter than this teach nothing."""


class Energy:
    """What devices have drawn up to the last settled edge, and for whom.

    Attributes:
        traces: The traced channels; may grow, never shrinks.
        unattributed_j: Energy of each trace drawn while no call was open, up to the last edge.
        edge_s: When the last edge was; NaN if there was none.
        edge_leaves: Weight of all leaves since then, in multiples of 1 / UNIT.
    """

    def __init__(self, traces: list[Trace]) -> None:
        self.traces = traces
        self.unattributed_j: Array = np.zeros(0)
        self.edge_s = math.nan
        self.edge_leaves = 0
        self._edge_j: Array = np.zeros(0)
        self._earned: Array = np.zeros(1)  # V of time, then of each trace
        self._spread_j2: Array = np.zeros(0)
        self._batch = 0

    def part(self, traces: list[Trace], places: Sequence[int]) -> Energy:
        """Return the same for some of the traces only, which are at these places; it shares no state with this one."""
        self._grow()
        part = Energy(traces)
        part.unattributed_j, part._edge_j = self.unattributed_j[places], self._edge_j[places]
        part._spread_j2, part._earned = self._spread_j2[places], self._earned[earners(places)]
        part.edge_s, part.edge_leaves, part._batch = self.edge_s, self.edge_leaves, self._batch
        return part

    def _grow(self) -> None:
        """Make room for traces that were added."""
        count = len(self.traces)
        self._edge_j = widened(self._edge_j, count)
        self._spread_j2 = widened(self._spread_j2, count)
        self.unattributed_j = widened(self.unattributed_j, count)
        self._earned = widened(self._earned, 1 + count)

    def share_out(self, edges: Edges, activity: Activity, *, teaches: bool) -> Figures | None:
        """Read the curves at edges, share them out, and return the figures of the calls that ended, if any did.

        Args:
            edges: The edges that follow the last one.
            activity: When calls were open.
            teaches: Whether nothing else runs in the gaps between calls, so that idle power can be learned.
        """
        self._grow()
        self._batch += 1  # first, so that nothing stale is taken for this batch's should it fail
        time = np.array(edges.time_s)
        after = np.array(edges.leaves, dtype=np.float64) / UNIT
        before = np.concatenate([[self.edge_leaves / UNIT], after[:-1]])
        first = math.isnan(self.edge_s)
        lapse = np.diff(time, prepend=time[0] if first else self.edge_s)
        for gap in np.flatnonzero((before == 0) & (lapse >= _IDLE_GAP_S) & teaches):
            for trace in self.traces:
                trace.note_idle(
                    float(time[gap] - lapse[gap]), float(time[gap]), float(time[gap] - lapse[gap])
                )
        for trace in self.traces:
            if trace.curve.refiner is not None:
                trace.curve.refiner.compare(activity)
        curve = self._read(time, activity)
        if first:
            self._edge_j = curve.energy_j[:, 0]
        step = np.diff(curve.energy_j, prepend=self._edge_j[:, None])
        share = np.divide(1.0, before, out=np.zeros_like(before), where=before > 0)
        self.unattributed_j = self.unattributed_j + step @ (before == 0)
        earned = np.vstack([lapse * share, step * share])
        earned = self._earned[:, None] + np.cumsum(earned, axis=1)
        marks = self._marks(curve, share, after)
        lines = marks.lines()
        accounts = self._accounts(edges, earned)
        figures = close_calls(edges, self.traces, accounts, lines, Leaves(before, after))
        for entry in edges.opens:
            if entry.outlasts(edges.end):
                at = entry.edge - edges.first
                entry.at_open, entry.leaves_at_open = lines[:, :, at].copy(), float(after[at])
        self.edge_s, self.edge_leaves = edges.time_s[-1], edges.leaves[-1]
        self._edge_j, self._earned = curve.energy_j[:, -1].copy(), earned[:, -1].copy()
        self._spread_j2 = marks.spread_j2[:, -1].copy()
        return figures

    def _read(self, time_s: Array, activity: Activity) -> Points:
        """Read all curves at some times; arrays of shape (traces, times)."""
        found = read([trace.curve for trace in self.traces], time_s, activity)
        lines = np.array(found).reshape(len(found), len(Points._fields), time_s.size)
        return Points(*lines.swapaxes(0, 1))

    def _marks(self, curve: Points, share: Array, after: Array) -> Marks:
        """Return what each curve says at each edge, with the running variance that edges add to shares.

        Where n changes from a to b, an energy that lies on the wrong side of the edge is divided by the wrong
        number: an error of h * (1/a - 1/b) for whoever is open throughout, times its weight.
        """
        share_after = np.divide(1.0, after, out=np.zeros_like(after), where=after > 0)
        both = (share > 0) & (share_after > 0)
        off = np.sqrt(half_width(curve) ** 2 + curve.phase_j**2 + curve.shift_j**2)
        error = off * (share_after - share) * both
        spread = self._spread_j2[:, None] + np.cumsum(error**2, axis=1)
        return Marks(curve, spread, spread - error**2)

    def _accounts(self, edges: Edges, earned: Array) -> Array:
        """Enter every change in its account and return the accounts, shape (calls, 2, earners).

        An account that held m leaves between edges i and j has earned m * (V[j] - V[i]).
        """
        batch, entries, rows = self._batch, list[Entry](), list[int]()
        for entry in edges.entry:
            if entry.batch != batch:
                entry.batch, entry.row = batch, len(entries)
                entries.append(entry)
            rows.append(entry.row)
        # A call can end without a change of leaves: all that it has left is suspended children.
        for entry in edges.closes:
            if entry.batch != batch:
                entry.batch, entry.row = batch, len(entries)
                entries.append(entry)
        width = earned.shape[0]
        accounts = np.zeros((len(entries), 2, width))
        for entry in entries:
            if entry.accounts is not None:
                accounts[entry.row] = widened(entry.accounts, width)
        change = np.array([edges.own, edges.total], dtype=np.float64).T / UNIT
        at = np.array(edges.edge) - edges.first
        gained = -change[:, :, None] * earned.T[at][:, None, :]
        # NumPy takes a quarter of the time if there is one axis only.
        cells = np.array(rows, dtype=np.intp)[:, None] * (2 * width) + np.arange(2 * width)
        np.add.at(accounts.reshape(-1), cells.reshape(-1), gained.reshape(-1))
        for entry in entries:
            if entry.outlasts(edges.end):
                entry.accounts = accounts[entry.row].copy()
        return accounts

    def so_far(self, entry: Entry, now_s: float, edges: Edges, activity: Activity) -> Array:
        """Return the joules of an open call up to now, shape (3, traces): share, own part, and its whole window.

        Args:
            entry: The call.
            now_s: Up to when; beyond the newest knot the power last seen goes on.
            edges: Those that wait to be settled.
            activity: When calls were open.
        """
        self._grow()
        time = np.array([*edges.time_s, now_s])
        energy = self._read(time, activity).energy_j
        for k, trace in enumerate(self.traces):
            if trace.alive and len(trace.curve):
                energy[k] += np.maximum(time - trace.curve.end_s, 0.0) * trace.last_power_w
        first = math.isnan(self.edge_s)
        step = np.maximum(np.diff(energy, prepend=energy[:, :1] if first else self._edge_j[:, None]), 0.0)
        before = np.array([self.edge_leaves, *edges.leaves]) / UNIT
        share = np.divide(1.0, before, out=np.zeros_like(before), where=before > 0)
        # Leaves that the call holds, by itself and with its children, up to each of these times.
        held = np.zeros((2, time.size)) + np.array([[entry.weight * entry.leaf], [entry.leaves]])
        for edge, one, own, total in zip(edges.edge, edges.entry, edges.own, edges.total, strict=True):
            if one is entry:
                held[:, : edge - edges.first + 1] -= [[own], [total]]
        held /= UNIT
        earned = held @ (step * share).T
        if entry.accounts is None or entry.at_open is None:
            begin_j = energy[:, max(entry.edge - edges.first, 0)]
        else:
            accounts = widened(entry.accounts, self._earned.size) + held[:, :1] * self._earned
            earned += accounts[:, TIME + 1 :]
            begin_j = Marks.of(widened(entry.at_open, len(self.traces))).curve.energy_j
        return np.array([earned[TOTAL], earned[OWN], np.maximum(energy[:, -1] - begin_j, 0.0)])
