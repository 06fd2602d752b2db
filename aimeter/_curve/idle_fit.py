"""What a device draws while no call is open, fitted to the stretches in which it was seen so."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aimeter._curve.activity import Array, IdlePower
from aimeter._support.statistics import SIGMAS_95

_NEAR_S, _NEAR_STRETCHES = 0.25, 8
"""The decay after a call counts as seen once so many idle stretches began within this time of a call."""

UNSEEN_DECAY = 0.2
"""Until then its standard deviation is this part of the idle power: on GPUs it has been seen to begin at half of that."""

_LEAST_SPREAD = 0.0004
"""No device draws its idle power more steadily than this part of it."""

_NO_DECAY = 1e-6
"""Below this, nothing of the decay is left in the stretches seen."""

_FADED = 1.05
"""The idle power is taken to be within this factor of the lowest power seen."""

TAUS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Time constants tried for the decay after a call."""

_CLEAR = 0.05
"""A stretch whose power is known to this part of the idle power counts half as much as one that is exactly known."""


def fit_idle(stretches: Array, idle_w: float) -> IdlePower:
    """Fit ``idle_w + decay_w * exp(-s / tau_s)`` to the mean powers of idle stretches, by weighted least squares.

    Args:
        stretches: Begin and end in seconds since a call was last open, mean power in W, and the 95 % half-width
            with which it is known; shape (n, 4).
        idle_w: Lowest power seen; what had not faded away yet may be in it.
    """
    begin, end, watts, error = stretches.T
    weight = 1 / (1 + (error / (_CLEAR * idle_w)) ** 2)
    total, sum_watts = float(weight.sum()), float(weight @ watts)
    best, least = IdlePower(idle_w, 0.0, TAUS_S[0]), float(weight @ (watts - idle_w) ** 2)
    for tau in TAUS_S:
        mean = _mean_decay(begin, end, tau)
        weighted = weight * mean
        norm, sum_mean, product = float(weighted @ mean), float(weighted.sum()), float(weighted @ watts)
        if norm < _NO_DECAY:
            continue
        apart = norm * total - sum_mean**2
        idle = (norm * sum_watts - sum_mean * product) / apart if apart > _NO_DECAY * norm * total else idle_w
        idle = min(max(idle, idle_w / _FADED), idle_w * _FADED)
        decay = max((product - idle * sum_mean) / norm, 0.0)
        squares = float(weight @ (watts - idle - decay * mean) ** 2)
        if squares < least:
            best, least = IdlePower(idle, decay, tau), squares
    # What the meter may have been off by is not the device's.
    square = (watts - best.idle_w - best.decay_w * _mean_decay(begin, end, best.tau_s)) ** 2
    mean_square = float(weight @ (square - (error / SIGMAS_95) ** 2)) / max(total - 2, 1.0)
    # Other programs load the device now and then: the few stretches far off the fit count as well as the many near it.
    most_square = float(np.max(square - error**2)) / 9
    spread = math.sqrt(max(mean_square, most_square, 0.0))
    near = int(np.count_nonzero(begin < _NEAR_S))
    doubt = _LEAST_SPREAD if near >= _NEAR_STRETCHES else UNSEEN_DECAY
    return best._replace(spread_w=max(spread, doubt * idle_w))


class Power(NamedTuple):
    """A mean power of an idle stretch, and the 95 % half-width that its two knots leave it."""

    watts: float
    error_w: float

    def lower(self, other: Power | None) -> Power:
        """Return the lower of two, or their mean, weighted by the inverse of the variances, if none is for certain.

        The lowest of many uncertain ones would be lower than any true one.
        """
        if other is None:
            return self
        both = math.hypot(self.error_w, other.error_w)
        if abs(self.watts - other.watts) >= both:
            return min(self, other)
        part = (self.error_w / both) ** 2
        return Power(self.watts + part * (other.watts - self.watts), self.error_w * other.error_w / both)


def _mean_decay(begin: Array, end: Array, tau: float) -> Array:
    """Return the mean of ``exp(-s / tau)`` from begin to end."""
    return tau * (np.exp(-begin / tau) - np.exp(-end / tau)) / (end - begin)
