"""How a meter publishes: period, jitter, latency and window, from what a fast reader saw around work of known times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.hardware.reader import Change

Array = NDArray[np.float64]
Span = tuple[float, float]


class Steps(NamedTuple):
    """How often a meter's value changed, in seconds.

    Attributes:
        period_s: Median time between two changes.
        jitter_s: Standard deviation of a change from the nearest multiple of the mean period.
        unseen: Part of the multiples at which no change was seen.
        sight_s: Median half-width of the time of a change: between two readings.
    """

    period_s: float
    jitter_s: float
    unseen: float
    sight_s: float


class Response(NamedTuple):
    """How late a published value is, and over how long it is a mean.

    Attributes:
        latency_s: Time from the end of the window to the publication.
        latency_pm_s: Its standard error, from parts of the recording taken alone.
        window_s: Length of the window; the time since the publication before, for a counter.
        window_pm_s: Its standard error; 0 for a counter.
        rest_w: Power at rest.
        load_w: Power above it while work runs.
        residual: What the fit leaves, root mean square, as a part of `load_w`.
    """

    latency_s: float
    latency_pm_s: float
    window_s: float
    window_pm_s: float
    rest_w: float
    load_w: float
    residual: float


def steps(changes: Sequence[Change]) -> Steps | None:
    """Return how often a meter's value changes; None if that was seen less than ten times."""
    times = np.array([one.at_s for one in changes[1:]])
    if times.size < 10:
        return None
    gaps = np.diff(times)
    period = float(np.median(gaps))
    for _ in range(3):
        number = np.concatenate([[0], np.cumsum(np.maximum(np.round(gaps / period), 1))])
        period, phase = np.polyfit(number, times, 1)
    off = times - (phase + period * number)
    halves = [(one.after_s - one.before_s) / 2 for one in changes[1:]]
    unseen = 1 - (times.size - 1) / float(number[-1])
    return Steps(float(period), float(np.std(off)), unseen, float(np.median(halves)))


def worked_s(times: Array, spans: Sequence[Span]) -> Array:
    """Return for how long work had run up to each time."""
    begins, ends = (np.array(side) for side in zip(*spans, strict=True))
    edges = np.stack([begins, ends], axis=1).ravel()
    done = np.concatenate([[0.0], np.cumsum(ends - begins)])
    at_edges = np.stack([done[:-1], done[1:]], axis=1).ravel()
    return np.interp(times, edges, at_edges)


def response(changes: Sequence[Change], spans: Sequence[Span], *, counter: bool) -> Response | None:
    """Fit latency and window to publications around work that ran in `spans`; None if there are too few.

    The device is taken to draw one power at rest and another while work runs. A published power is then the mean of
    that over a window that ends `latency_s` before the publication; a counter's gain between two publications is its
    integral, `latency_s` earlier. What is linear is solved, latency and window are searched for on a grid.
    """
    whole = _fit(changes, spans, counter=counter)
    if whole is None:
        return None
    cuts = [spans[len(spans) * k // 4 : len(spans) * (k + 1) // 4] for k in range(4)]
    parts = []
    for cut in cuts:
        if len(cut) < 2:
            continue
        within = [one for one in changes if cut[0][0] - 0.5 < one.at_s < cut[-1][1] + 0.5]
        fit = _fit(within, cut, counter=counter)
        if fit is not None:
            parts.append(fit)
    if len(parts) > 1:
        latency_pm, window_pm = (
            float(np.std([part[place] for part in parts], ddof=1) / len(parts) ** 0.5) for place in (0, 2)
        )
        whole = whole._replace(latency_pm_s=latency_pm, window_pm_s=window_pm)
    return whole


def _fit(changes: Sequence[Change], spans: Sequence[Span], *, counter: bool) -> Response | None:
    times = np.array([one.at_s for one in changes[1:]])
    values = np.array([one.value for one in changes[1:]])
    if times.size < 16:
        return None
    if counter:
        target, before, after = np.diff(values) / np.diff(times), times[:-1], times[1:]
        windows = np.array([np.nan])
    else:
        target, before, after = values, times, times
        windows = np.concatenate([np.arange(0.005, 0.15, 0.01), np.arange(0.15, 1.6, 0.05)])
    latencies = np.arange(-0.05, 0.25, 0.01)
    for fine_s in (0.002, 0.001):
        rows = [_misfit(target, before, after, spans, float(late), windows) for late in latencies]
        late, window, rest, load, rms = min((one for row in rows for one in row), key=lambda one: one[4])
        latencies = late + fine_s * np.arange(-5, 6)
        if not counter:
            # A window of a second is known less well than one of some milliseconds.
            step_s = fine_s if window < 0.15 else 5 * fine_s
            windows = np.maximum(window + step_s * np.arange(-5, 6), 1e-3)
    window = float(np.median(after - before)) if counter else window
    return Response(late, float("nan"), window, 0.0, rest, load, rms / max(abs(load), 1e-9))


def _misfit(
    target: Array, before: Array, after: Array, spans: Sequence[Span], late: float, windows: Array
) -> list[tuple[float, float, float, float, float]]:
    """Return (latency, window, rest, load, misfit) for every window at one latency."""
    rows = []
    for window in windows:
        starts = before - late if np.isnan(window) else after - late - window
        ends = after - late
        part = (worked_s(ends, spans) - worked_s(starts, spans)) / np.maximum(ends - starts, 1e-9)
        shape = np.stack([np.ones_like(part), part], axis=1)
        (rest, load), *_ = np.linalg.lstsq(shape, target, rcond=None)
        rms = float(np.sqrt(np.mean((target - shape @ (rest, load)) ** 2)))
        rows.append((late, float(window), float(rest), float(load), rms))
    return rows
