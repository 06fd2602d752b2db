"""The energy between two times as aimeter tells it of a call that has a device to itself, and how well bars fit."""

from __future__ import annotations

import numpy as np

from aimeter._curve.activity import NO_ACTIVITY
from aimeter._curve.curve import Points
from aimeter._curve.resolution import resolution
from aimeter._support.statistics import SIGMAS_95


def energy_between(curve, start_s, end_s, activity=NO_ACTIVITY):
    """Return the joules between pairs of times and their 95 % half-width, calibration not included; shape (n,) each."""
    start_s, end_s = np.asarray(start_s, float), np.asarray(end_s, float)
    start, end = (Points(*(line[None] for line in curve.at(at_s, activity))) for at_s in (start_s, end_s))
    joules = end.energy_j - start.energy_j
    sampled = SIGMAS_95**2 * np.maximum(end.variance_j2 - start.variance_j2, 0.0)
    whole = np.ones_like(joules)
    half_j = resolution([curve], start, end, (whole, whole), sampled, end_s - start_s, joules)
    return joules[0], half_j[0]


def used_part(errors, bars):
    """Return which part of its bar the 95th of a hundred uses: 1 where bars are as wide as they must be, else less."""
    return float(np.quantile(np.abs(errors) / np.asarray(bars), 0.95))
