"""From what calls earned to their figures: joules, and how wrong these may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aimeter._attribution.edges import OWN, TIME, TOTAL, UNIT, Edges, widened
from aimeter._attribution.figures import Figures
from aimeter._curve.curve import Points
from aimeter._curve.resolution import resolution
from aimeter._support.statistics import SIGMAS_95

if TYPE_CHECKING:
    import numpy.typing as npt

    from aimeter._curve.activity import Array
    from aimeter._curve.trace import Trace

_INSTANT_S = 1e-9
"""A call shorter than what clocks and curves resolve is metered by whatever was alive."""


class Marks(NamedTuple):
    """What is known at edges.

    Arrays have a row for each trace and a column for each edge, or for each call. They are kept as the lines of one
    array, in the order of the fields, so that they are taken at some of the edges in one go.

    Attributes:
        curve: What the curves say.
        spread_j2: What the edges up to each, with itself, add to the square of a share's half-width.
        spread_before_j2: The same without itself.
    """

    curve: Points
    spread_j2: Array
    spread_before_j2: Array

    def lines(self) -> Array:
        """Return them as one array, shape (lines, traces, edges)."""
        return np.array([*self.curve, self.spread_j2, self.spread_before_j2])

    @classmethod
    def of(cls, lines: Array) -> Marks:
        """Return what the lines of such an array are."""
        *curve, spread_j2, spread_before_j2 = lines
        return cls(Points(*curve), spread_j2, spread_before_j2)


class Leaves(NamedTuple):
    """Weight of all leaves before each edge and after it."""

    before: Array
    after: Array


def close_calls(
    edges: Edges, traces: Sequence[Trace], accounts: Array, lines: Array, leaves: Leaves
) -> Figures | None:
    """Return the figures of the calls that ended at these edges; None if none did.

    Args:
        edges: The edges.
        traces: The devices.
        accounts: What calls earned, shape (calls, 2, earners).
        lines: What is known at each edge: see `Marks`.
        leaves: How many leaves there were.
    """
    if not edges.closes:
        return None
    entries = edges.closes
    calls = [entry.call for entry in entries]
    # Where each call opened: an edge of this batch, or what was kept of an earlier one.
    end = np.array([entry.closed for entry in entries], dtype=np.intp) - edges.first
    begin = np.array([entry.edge for entry in entries], dtype=np.intp) - edges.first
    at_begin, leaves_then = lines[:, :, np.maximum(begin, 0)], leaves.after[np.maximum(begin, 0)]
    for index in np.flatnonzero(begin < 0):
        kept = entries[index].at_open
        if kept is not None:  # all is 0 there as far as a trace that was added since is concerned
            at_begin[:, :, index] = widened(kept, len(traces))
            leaves_then[index] = entries[index].leaves_at_open
    began, ended = Marks.of(at_begin), Marks.of(lines[:, :, end])
    table = accounts[[entry.row for entry in entries]]
    own, total = table[:, OWN, TIME + 1 :].T, table[:, TOTAL, TIME + 1 :].T
    share_s = table[:, TOTAL, TIME]
    held = np.array([entry.leaves for entry in entries], dtype=np.float64) / UNIT
    weight = np.array([entry.weight for entry in entries], dtype=np.float64) / UNIT
    window = ended.curve.energy_j - began.curve.energy_j
    alone = np.divide(total, window, out=np.zeros_like(total), where=window > 0)
    start_s = np.array([call.start_s for call in calls])
    lapse = np.array(edges.time_s)[end] - start_s
    duration = np.array([call.end_s for call in calls]) - start_s
    duration = np.maximum(np.minimum(duration, lapse), 0.0)
    covered = np.minimum(ended.curve.covered_s - began.curve.covered_s, duration)
    # Whoever has nearly all of a device loses nothing to others, whatever the weights of its own children; by
    # rounding it may have more than all.
    shared = np.clip(10 * (1 - alone), 0.0, 1.0) * weight**2
    variance = shared * np.maximum(ended.spread_before_j2 - began.spread_j2, 0.0)
    variance += SIGMAS_95**2 * np.maximum(ended.curve.variance_j2 - began.curve.variance_j2, 0.0) * alone**2
    parts = weight / np.maximum(leaves_then, weight), held / np.maximum(leaves.before[end], 1 / UNIT)
    curves = [trace.curve for trace in traces]
    half_j = resolution(curves, began.curve, ended.curve, parts, variance, duration, total)
    expected = _expected(traces, start_s)
    covered = _by_device(traces, covered * expected)
    # Nothing is extrapolated into a gap; what the device may have drawn in it widens the error.
    seen_w = [(trace.unseen_w, trace.last_power_w) for trace in traces]
    unseen_w, last_w = np.array(seen_w).reshape(-1, 2).T[:, :, None]
    late = np.array([entry.late_s for entry in entries])
    half_j = np.where(expected, half_j + (duration - covered) * unseen_w + late * last_w, 0.0)
    seen = np.where(duration > 0, covered / np.where(duration > 0, duration, 1.0), 1.0)
    coverage = np.where(expected, seen, 1.0).min(axis=0, initial=1.0)
    coverage = np.where(expected.any(axis=0), coverage, np.nan)
    suspended = np.array([entry.suspended_s for entry in entries])
    sharers = np.divide(lapse - suspended, share_s, out=np.ones_like(lapse), where=share_s > 0)
    return Figures(
        calls=calls,
        energy_j=total,
        self_j=own,
        window_j=window,
        resolution_j=half_j,
        metered=expected & ((ended.curve.covered_s > began.curve.covered_s) | (duration < _INSTANT_S)),
        idle_s=np.broadcast_to(share_s, total.shape),
        coverage=np.minimum(coverage, 1.0),
        concurrency=np.maximum(sharers, 1.0),
        suspended_s=suspended,
    )


def _expected(traces: Sequence[Trace], start_s: Array) -> npt.NDArray[np.bool_]:
    """Return of which devices something should be known for calls that began at these times, shape (traces, calls)."""
    died = np.array([trace.died_s for trace in traces])[:, None]
    alive = np.array([trace.alive for trace in traces], dtype=bool)[:, None]
    born = np.array([len(trace.curve) > 0 for trace in traces], dtype=bool)[:, None]
    return np.asarray(born & (alive | (died > start_s)))


def _by_device(traces: Sequence[Trace], covered: Array) -> Array:
    """Add up the time covered by the traces of one device: one takes over where another ended."""
    ids = [trace.channel.id for trace in traces]
    if len(set(ids)) == len(ids):
        return covered
    return np.array([covered[[i for i, other in enumerate(ids) if other == one]].sum(axis=0) for one in ids])
