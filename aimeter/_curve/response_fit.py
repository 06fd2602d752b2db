"""The ramp on which a published power comes down after a call: how late its sensor is, and how far back it looks.

What is published at p is the mean power over [p - L - W, p - L]: L is the latency, W the window. When a call has ended
at e and the device rests, what is published after e goes from the level before down to the idle level, and with
x = p - e the part of the way that it has come is a ramp,

    f(x) = (P_before - P(x)) / (P_before - P_idle) = clip((x - L) / W, 0, 1),

exactly, whatever the idle power does, if P_idle is its mean over the idle part of the window; that is fitted to
what is published once the window is wholly past the end. Sensors and calls do not keep step, so many ends show all of
the ramp, and W and L are where it lies best. A counter's step is such a mean too, with the time between two steps for
its window, so it teaches the latency only. Ends are used because calls begin with spikes, while what follows an end is
known.

The ramp is laid through the points by least squares, with far-off points counting no more than those three standard
deviations off: loads differ from what is assumed here in some calls. All (L, W) that explain the points almost as
well, by the chi-squared limit of 95 %, are in a box; its middle is the estimate and half of it the half-width (a
profile likelihood: Venzon, Moolgavkar, "A method for computing profile-likelihood-based confidence intervals", 1988).
As long as the box is wide nothing is said.

What this cannot tell from latency is a load that outlasts its call, as kernels do that nobody has waited for: so a
latency of more than a period and 50 ms is not believed. A call that outlasts its load makes a sensor look less late.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aimeter._curve.activity import Array
from aimeter._support.statistics import SIGMAS_PER_MAD

CLEARLY = 1.5
"""What is used is given up if what is learned lies so many half-widths away: published values are a prior."""

FEWEST = 8
"""Points that an estimate takes; so many more make a new one."""

_NOISE, _MOST_NOISE = 0.02, 0.15
"""Standard deviation of a point of the ramp, at least; and where the points scatter more widely they are no ramp."""

_CHI2 = 3.84
"""95 % quantile of chi-squared with one degree of freedom; with few points the limit is widened as Student's t is."""

_OUTLIER = 9.0
"""Most that the square of a deviation, in standard deviations, counts for."""

_TOUCH_S = 1e-3
"""No time is learned more closely than this: loads do not stop at once, and their last moment is not like their mean."""

_ROUGH = 0.25
"""An estimate whose half-width is more than this part of the period, or of the window, is none."""

_LEAST_S = 1e-4
"""Width and middle of a ramp are not looked for below this."""

_ROUNDING_S = 1e-9

_MIDDLES, _WINDOWS, _ROUNDS = 48, 20, 5
"""Cells of the search for the middle and the width of the ramp, and how often it is repeated more closely."""


_SURER = 0.7
"""A value with at most this part of the error is better, though it may be the same: as of twice as many points."""


class Estimate(NamedTuple):
    """A time and its 95 % half-width, in seconds."""

    value_s: float
    error_s: float

    def excludes(self, other: Estimate, times: float = 1.0) -> bool:
        """Return whether the other value lies more than so many half-widths away."""
        return abs(self.value_s - other.value_s) > times * math.hypot(self.error_s, other.error_s)

    def replaces(self, used: Estimate) -> bool:
        """Return whether this is to be used in place of another: that is not a possible value, or much less certain."""
        return self.excludes(used, CLEARLY) or self.error_s < _SURER * used.error_s


class Ramp(NamedTuple):
    """What is learned of a channel; None is not known."""

    latency: Estimate | None
    window: Estimate | None


class Point(NamedTuple):
    """A publication after the end of a call, on the way from the level before to the idle level.

    Attributes:
        after_s: How long after the end.
        half_s: How far off that may be.
        fallen: Which part of the way it has come.
        span_s: Time that it is the mean of, where that is known, as for a counter; otherwise NaN.
        doubt: By how much `fallen` may be off because the idle power is not known better, where it is 1.
    """

    after_s: float
    half_s: float
    fallen: float
    span_s: float
    doubt: float


def fit(points: Array, *, latest_s: float, period_s: float, widest_s: float = 0.0) -> Ramp | None:
    """Lay a ramp through points.

    Args:
        points: One `Point` a row, shape (n, 5).
        latest_s: The most that the latency can be.
        period_s: Time between publications.
        widest_s: The most that the window can be, where the points do not tell it.

    Returns:
        Latency and window, as far as the points determine them; None if that is not at all.
    """
    spans = points[:, 3]
    known = bool(np.isfinite(spans).all())
    if len(points) < FEWEST or (not known and not widest_s):
        return None
    widths = np.zeros(1) if known else np.linspace(widest_s / _WINDOWS, widest_s, _WINDOWS)
    middles = np.linspace(0.0, latest_s + (0.0 if known else widest_s / 2), _MIDDLES)
    noise, reference = _NOISE * 2, period_s if known else widest_s / 2
    box = None
    for turn in range(_ROUNDS):
        loss, residual, ramp = _losses(points, middles, widths, noise, reference, latest_s)
        best = np.unravel_index(np.argmin(loss), loss.shape)
        reference = period_s if known else float(widths[best[1]])
        on_ramp = ramp[best] > 0
        if turn < _ROUNDS // 2:
            noise = _noise_of(residual[best][on_ramp])
        count = max(int(on_ramp.sum()), 1)
        limit = loss[best] + _CHI2 * (1 + 6 / count)
        # A coarse grid may miss the lowest point by far: then more is kept.
        inside = loss <= (limit + loss[best] / 2**turn if turn < _ROUNDS - 1 else limit)
        first, second = np.nonzero(inside)
        step = middles[1] - middles[0], widths[1] - widths[0] if widths.size > 1 else 0.0
        latencies = middles[first] - widths[second] / 2
        box = (latencies.min(), latencies.max(), widths[second].min(), widths[second].max(), *step, count)
        middles = _closer(middles, first)
        widths = _closer(widths, second)
    if box is None or noise > _MOST_NOISE:
        return None
    return _told(points, box, latest_s=latest_s, period_s=period_s, widest_s=0.0 if known else widest_s)


def _told(
    points: Array, box: tuple[float, ...], *, latest_s: float, period_s: float, widest_s: float
) -> Ramp | None:
    """Return what a box of possible values says."""
    earliest, latest, narrow, wide, step, width_step, count = box
    width = (narrow + wide) / 2 if widest_s else float(np.mean(points[:, 3]))
    # Where the idle power is misjudged, the whole ramp is too steep or not steep enough.
    early = points[points[:, 0] < width]
    shift = width * float(np.median(early[:, 4])) / 2 if len(early) else 0.0
    error = (latest - earliest + step + width_step / 2) / 2 + shift + _TOUCH_S
    latency = window = None
    if latest < latest_s - step and error <= _ROUGH * period_s and count >= FEWEST / 2:
        latency = Estimate(float(earliest + latest) / 2, float(error))
    if widest_s and wide < widest_s - width_step and narrow > width_step:
        error = (wide - narrow + width_step) / 2 + 2 * shift + _TOUCH_S
        window = Estimate(float(width), float(error)) if error <= _ROUGH * width else None
    return Ramp(latency, window) if latency or window else None


def _losses(
    points: Array, middles: Array, widths: Array, noise: float, reference_s: float, latest_s: float
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Return the loss of each ramp, and each point's residual and whether it lies on the slope."""
    after, half, fallen, span = (points[:, k] for k in range(4))
    if widths.any():
        width = widths[None, :, None]
        latency = middles[:, None, None] - width / 2
    else:
        width = span[None, None, :]
        latency = middles[:, None, None]
    ramp = (after - latency) / width
    residual = fallen - np.clip(ramp, 0.0, 1.0)
    sigma2 = noise**2 + (half / reference_s) ** 2 / 3
    loss = np.minimum(residual**2 / sigma2, _OUTLIER).sum(axis=-1)
    impossible = (latency[..., 0] < -_ROUNDING_S) | (latency[..., 0] > latest_s + _ROUNDING_S)
    loss = np.where(np.broadcast_to(impossible, loss.shape), np.inf, loss)
    return loss, residual, (ramp > 0) & (ramp < 1)


def _noise_of(residuals: Array) -> float:
    """Return the standard deviation of the points of the ramp, by the median of their distances from it."""
    if residuals.size < FEWEST / 2:
        return 2 * _NOISE
    return max(_NOISE, SIGMAS_PER_MAD * float(np.median(np.abs(residuals))))


def _closer(values: Array, kept: npt.NDArray[np.intp]) -> Array:
    """Return as many values over those kept and a step to either side."""
    if values.size == 1:
        return values
    step = values[1] - values[0]
    low, high = values[kept.min()] - step, values[kept.max()] + step
    return np.linspace(max(low, _LEAST_S), high, values.size)
