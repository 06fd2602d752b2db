"""What statistics says of errors: how they add up, how far a mean may be off by chance, and whether a series drifts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from aimeter._support.public import public

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_Joules = TypeVar("_Joules", float, "npt.NDArray[np.float64]")

CONFIDENCE = 0.95

SIGMAS_95 = 1.96
"""Standard deviations in the 95 % half-width of a normal distribution."""

SIGMAS_PER_MAD = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations (1 / its quantile at 3/4)."""

_FEWEST_FOR_A_TREND = 4
"""Through fewer points than this, hardly any straight line can be told from chance."""


def error_j2(resolution_j2: _Joules, calibrations_j: Iterable[_Joules]) -> _Joules:
    """Return the square of an error, of numbers or of arrays of one shape; 95 % half-widths throughout.

    Independent parts add in quadrature: what sampling leaves open, and what meters of different kinds are wrong by. What
    shares its cause adds up linearly, before it comes here: the calibrations of one kind of meter, or of many calls
    (JCGM 100:2008, 5.1.2 and 5.2.2).

    Args:
        resolution_j2: The square of the resolution, or the sum of those of independent readings.
        calibrations_j: The calibration of each kind of meter.
    """
    return resolution_j2 + sum(one * one for one in calibrations_j)


def calibration_of(error_j: float, resolution_j: float) -> float:
    """Return what of an error is calibration, the resolution being the rest of it."""
    return math.sqrt(max(error_j * error_j - resolution_j * resolution_j, 0.0))


def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t: what a standard error is multiplied by.

    Exact for 1 and 2 degrees of freedom (closed forms), within 0.5 % for more at the usual confidences:
    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.

    Args:
        degrees: Degrees of freedom, at least 1.
        confidence: Probability of lying inside, between 0 and 1.
    """
    if degrees == 1:
        return math.tan(math.pi * confidence / 2)
    if degrees == 2:  # noqa: PLR2004 - the second closed form
        return confidence * math.sqrt(2 / (1 - confidence**2))
    x = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    terms: tuple[float, ...] = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def mean_half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Return how far the mean of equally good values may be off by chance: ``t * s / sqrt(n)``.

    Type A evaluation of the GUM (JCGM 100:2008, 4.2 and G.3). Infinite for fewer than two values, of which
    nobody can tell how they scatter.
    """
    if len(values) < 2:  # noqa: PLR2004 - see above
        return math.inf
    return student_t(len(values) - 1, confidence) * statistics.stdev(values) / math.sqrt(len(values))


_NOTHING = 1e-3
"""No series is so smooth that a smaller change, as a part of the mean, is one."""


class Mean(NamedTuple):
    """A mean, and how far it may be off."""

    value: float
    half_width: float


def mean_of(values: Sequence[float], confidence: float = CONFIDENCE, *, common: float = 0.0) -> Mean:
    """Return the mean of values that scatter, whose mean may be off by a half-width of `common` besides."""
    chance = mean_half_width(values, confidence)
    return Mean(math.fsum(values) / len(values), math.hypot(chance, common))


@public
class Drift(NamedTuple):
    """How a quantity changed over a series, as a straight line through it says.

    Attributes:
        relative: Change from the first to the last, as a part of the mean.
        error: 95 % half-width of that.
    """

    relative: float
    error: float

    @property
    def significant(self) -> bool:
        """Whether the change is more than its error."""
        return abs(self.relative) > self.error


def drift(times_s: Sequence[float], values: Sequence[float]) -> Drift | None:
    """Fit a straight line by least squares; None for a series too short, or with a mean of 0.

    The error is that of the slope, from the scatter around the line (JCGM 100:2008, H.3).

    Args:
        times_s: When each value was measured; not all at once.
        values: The series.
    """
    if len(values) < _FEWEST_FOR_A_TREND:
        return None
    mean_s, mean = statistics.fmean(times_s), statistics.fmean(values)
    away_s = [time_s - mean_s for time_s in times_s]
    squares = math.fsum(away**2 for away in away_s)
    if not squares or not mean:
        return None
    slope = math.fsum(away * value for away, value in zip(away_s, values, strict=True)) / squares
    rest = (value - mean - slope * away for away, value in zip(away_s, values, strict=True))
    degrees = len(values) - 2
    deviation = math.sqrt(math.fsum(one**2 for one in rest) / degrees / squares)
    span = (max(times_s) - min(times_s)) / mean
    return Drift(slope * span, math.hypot(student_t(degrees) * deviation * span, _NOTHING))
