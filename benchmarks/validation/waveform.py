"""A physical power against time whose integral has a closed form: the ground truth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

JUST_AFTER_S = 1e-6
"""Two powers cannot begin at one moment: a decay begins this long after the power that it falls from."""


class Piece(NamedTuple):
    """From `start_s` on, power goes towards `watts` with time constant `tau_s`; at once, if that is 0."""

    start_s: float
    watts: float
    tau_s: float = 0.0


class Waveform:
    """Pieces in the order of time; before the first one its power holds."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces: Sequence[Piece] = list(pieces)
        start, target, tau = (np.array(column, dtype=float) for column in zip(*self.pieces, strict=True))
        begin, before = target.copy(), np.zeros_like(target)
        for k in range(1, start.size):
            lapse = start[k] - start[k - 1]
            fade = np.exp(-lapse / tau[k - 1]) if tau[k - 1] > 0 else 0.0
            excess = begin[k - 1] - target[k - 1]
            before[k] = before[k - 1] + target[k - 1] * lapse + excess * tau[k - 1] * (1 - fade)
            if tau[k] > 0:
                begin[k] = target[k - 1] + excess * fade
        self._start, self._target, self._tau, self._begin, self._before = start, target, tau, begin, before
        self._starts = start.tolist()

    def energy_j(self, time_s: float) -> float:
        """Return the joules drawn from the first piece's start until `time_s`."""
        k = max(bisect_right(self._starts, time_s) - 1, 0)
        lapse, tau = time_s - self._starts[k], self._tau[k]
        joules = self._before[k] + self._target[k] * lapse
        if tau > 0:
            joules -= (self._begin[k] - self._target[k]) * tau * np.expm1(-lapse / tau)
        return float(joules)

    def energies_j(self, times_s: Array) -> Array:
        """Return the same for many times."""
        return np.array([self.energy_j(time) for time in times_s.tolist()])

    def power_w(self, time_s: float) -> float:
        """Return the power at `time_s`."""
        k = max(bisect_right(self._starts, time_s) - 1, 0)
        if self._tau[k] <= 0:
            return float(self._target[k])
        fade = np.exp(-max(time_s - self._starts[k], 0.0) / self._tau[k])
        return float(self._target[k] + (self._begin[k] - self._target[k]) * fade)

    def scaled(self, factor: float, offset_w: float = 0.0) -> Waveform:
        """Return the same shape with every power multiplied, then `offset_w` added."""
        return Waveform(Piece(p.start_s, p.watts * factor + offset_w, p.tau_s) for p in self.pieces)


def add(one: Waveform, blocks: Iterable[tuple[float, float, float]]) -> Waveform:
    """Return a waveform plus (start, end, watts) blocks, which must not touch one another."""
    changes = sorted([(p.start_s, 0.0) for p in one.pieces] + [
        change for start, end, watts in blocks for change in ((start, watts), (end, -watts))
    ])  # fmt: skip
    starts = [p.start_s for p in one.pieces]
    pieces, extra = [], 0.0
    for time, change in changes:
        extra += change
        piece = one.pieces[max(bisect_right(starts, time) - 1, 0)]
        if piece.tau_s <= 0:
            pieces.append(Piece(time, piece.watts + extra))
        elif change:
            pieces.append(Piece(time, one.power_w(time) + extra))
            pieces.append(Piece(time + JUST_AFTER_S, piece.watts + extra, piece.tau_s))
        else:
            pieces.append(Piece(time, piece.watts + extra, piece.tau_s))
    return Waveform(sorted(pieces))
