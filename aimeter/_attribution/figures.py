"""What calls used: the figures from which rows are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from aimeter._calls.call import Call
    from aimeter._curve.activity import Array


class SoFar(NamedTuple):
    """What an open call used so far, by trace; None where it has no part.

    Attributes:
        energy_j: Its share, children included; `self_j` without them.
        window_j: All that the device drew since the call began.
    """

    energy_j: list[float | None]
    self_j: list[float | None]
    window_j: list[float | None]


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


def joined(found: Sequence[tuple[Sequence[int], Figures]], traces: int) -> Figures:
    """Put together what calls used of groups of devices; where no device was alive, the coverage is 0.

    Args:
        found: Where the traces of each group are among all, and what calls used of it.
        traces: How many there are.
    """
    whole = found[0][1] if len(found) == 1 and len(found[0][0]) == traces else _merged(found, traces)
    return whole._replace(coverage=np.nan_to_num(whole.coverage))


def _merged(found: Sequence[tuple[Sequence[int], Figures]], traces: int) -> Figures:
    # In the order in which they ended, each once.
    ended = {id(call): call for _, figures in found for call in figures.calls}
    calls = sorted(ended.values(), key=lambda call: call.end_s)
    column = {id(call): number for number, call in enumerate(calls)}
    cells_of = (traces, len(calls))
    energy, own, window, resolution, idle_s = (np.zeros(cells_of) for _ in range(5))
    metered = np.zeros(cells_of, dtype=bool)
    coverage = np.full(len(calls), np.nan)
    concurrency, suspended = np.ones(len(calls)), np.zeros(len(calls))
    whole = Figures(calls, energy, own, window, resolution, metered, idle_s, coverage, concurrency, suspended)
    for places, figures in found:
        columns = [column[id(call)] for call in figures.calls]
        cells = np.ix_(places, columns)
        for name in ("energy_j", "self_j", "window_j", "resolution_j", "metered", "idle_s"):
            getattr(whole, name)[cells] = getattr(figures, name)
        # What is dead throughout a group says nothing of the calls that have a part in others as well.
        whole.coverage[columns] = np.fmin(whole.coverage[columns], figures.coverage)
        for name in ("concurrency", "suspended_s"):
            values = getattr(whole, name)
            values[columns] = np.maximum(values[columns], getattr(figures, name))
    return whole
