"""How wrong the energy between two times may be, by what curves say at both: its resolution.

The errors of the two ends are independent and add in quadrature. What knots are off by in time together cancels as far
as the powers at the two ends are alike. No estimate can be further off than the bounds of the two ends allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aimeter._support.statistics import SIGMAS_95

if TYPE_CHECKING:
    from aimeter._curve.activity import Array
    from aimeter._curve.curve import Curve, Points

_STEP = 0.25
"""Even ends of one moment are told by the knots around them, which are a step apart: a quarter of what is steady."""


def half_width(points: Points) -> Array:
    """Return the 95 % half-width of the energy at each point, but for what shifts others alike."""
    return np.maximum(points.energy_j - points.low_j, points.high_j - points.energy_j)


def resolution(
    curves: Sequence[Curve],
    began: Points,
    ended: Points,
    parts: tuple[Array, Array],
    variance_j2: Array,
    lapse_s: Array,
    used_j: Array,
) -> Array:
    """Return the 95 % half-width of what was used of each device between two times, shape (curves, n).

    Args:
        curves: The devices' curves.
        began: What they say at the first times, arrays of shape (curves, n).
        ended: What they say at the second times.
        parts: The share of the power at either time, each of shape (n,) or (curves, n).
        variance_j2: Square of the half-width of what happened in between, shape (curves, n).
        lapse_s: Time between the two, shape (n,).
        used_j: The best estimate, shape (curves, n).
    """
    first, last = parts
    steady_s = np.array([curve.steady_s for curve in curves])[:, None]
    phases, shifts = (
        (began.phase_j * first, ended.phase_j * last),
        (began.shift_j * first, ended.shift_j * last),
    )
    variance_j2 = variance_j2 + (half_width(began) * first) ** 2 + (half_width(ended) * last) ** 2
    found = np.sqrt(variance_j2 + moved(phases, shifts, lapse_s, steady_s))
    room = ended.shift_j + began.shift_j + ended.phase_j + began.phase_j
    # Between two knots lies what the curve rose by, but for a stretch that nobody saw, whose rise is a guess.
    room += SIGMAS_95 * np.sqrt(np.maximum(ended.variance_j2 - began.variance_j2, 0.0))
    bound = np.maximum(ended.high_j - began.low_j + room, 0.0)
    counted = np.array([curve.counted for curve in curves], dtype=bool)[:, None]
    found = np.where(counted, np.minimum(found, np.maximum(bound - used_j, used_j)), found)
    limit_w = np.array([curve.limit_w for curve in curves])[:, None]
    most = np.where(lapse_s > 0, limit_w * np.where(lapse_s > 0, lapse_s, 1.0), np.inf)
    return np.asarray(np.minimum(found, np.maximum(most - used_j, used_j)))


def moved(
    phases_j: tuple[Array, Array], shifts_j: tuple[Array, Array], apart_s: Array, steady_s: Array
) -> Array:
    """Return the square of what is left of errors in time that the knots at two ends have in common.

    Args:
        phases_j: What the energy at either end is off by if the knots near it are off in time.
        shifts_j: The same if all knots are.
        apart_s: Time between the ends.
        steady_s: Knots so far apart have no more than 1 / e of the former in common; 0 if there is nothing like it.
    """
    near = np.where(steady_s > 0, np.exp(-apart_s / np.maximum(steady_s, 1e-12) - _STEP), 0.0)
    (first, last), (begun, ended) = phases_j, shifts_j
    return np.asarray((ended - begun) ** 2 + first**2 + last**2 - 2 * near * first * last)
