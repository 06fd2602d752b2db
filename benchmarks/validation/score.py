"""Run a load on a machine and hold aimeter's rows against the truth."""

from __future__ import annotations

import contextvars
import random
import zlib
from typing import Any, NamedTuple

import numpy as np

import aimeter

from .loads import LOADS, Span, launched
from .machines import PROFILES, START_S, machine
from .waveform import Array, Waveform

BINS_S = (0.05, 0.2, 1.0, np.inf)
BIN_NAMES = ("under 50 ms", "50 to 200 ms", "0.2 to 1 s", "over 1 s")
ALL = "all"

STEP_S = 0.1
"""The longest period of the counters."""

WHOLE = 0.999
"""A call is covered as a whole, but for rounding."""

LEAST_J = 1e-9
"""Stands in for a bar of no width at all."""


class Judged(NamedTuple):
    """One call beside the truth; joules.

    Attributes:
        length_s: How long it lasted.
        start_s: When it began.
        energy_j: What its row says; NaN where it says that nothing is known. Likewise the next two.
        resolution_j: 95 % half-width, calibration not included.
        error_j: 95 % half-width.
        truth_j: Its share of what the devices drew.
        sensed_j: The same by the sensors' own scale: `truth_j` but for gain and offset.
        coverage: Which part of it was metered.
    """

    length_s: float
    start_s: float
    energy_j: float
    resolution_j: float
    error_j: float
    truth_j: float
    sensed_j: float
    coverage: float


class Run(NamedTuple):
    """One load on one machine.

    Attributes:
        calls: Its calls.
        unbalanced: What all calls and nobody add up to, less what the sensors would have counted, over the latter;
            the one step at either end that a counter cannot resolve is forgiven. NaN where the machine went
            without a meter for a time.
    """

    calls: list[Judged]
    unbalanced: float


def shares(spans: list[Span], waveform: Waveform) -> Array:
    """Return the true joules of each call: at every instant power is divided evenly among the open calls that
    have no open call in them, and a call's include those of the calls in it."""
    edges = sorted(
        [(s.start_s, 1, k) for k, s in enumerate(spans)] + [(s.end_s, 0, k) for k, s in enumerate(spans)]
    )
    energy = waveform.energies_j(np.array([edge[0] for edge in edges]))
    around: list[list[int]] = []
    for k, span in enumerate(spans):
        around.append([k] if span.parent is None else [k, *around[span.parent]])
    result, children, open_calls = np.zeros(len(spans)), [0] * len(spans), set()
    for number, (_, begins, k) in enumerate(edges):
        leaves = [one for one in open_calls if not children[one]]
        if leaves:
            part = (energy[number] - energy[number - 1]) / len(leaves)
            for leaf in leaves:
                result[around[leaf]] += part
        parent = spans[k].parent
        if parent is not None:
            children[parent] += 1 if begins else -1
        if begins:
            open_calls.add(k)
        else:
            open_calls.discard(k)
    return result


class _Actor:
    """One call of a load: begins and ends when the calendar says so, in the context of a task of its own."""

    def __init__(self, meter: aimeter.Meter, around: _Actor | None) -> None:
        # Calls that overlap without being nested belong to different tasks.
        self._context = contextvars.copy_context() if around is None else around._context
        self._meter = meter
        self.call: Any = None

    def begin(self) -> None:
        self.call = self._meter.track("call")
        self._context.run(self.call.__enter__)

    def end(self) -> None:
        self._context.run(self.call.__exit__, None, None, None)


def run(profile: str, load: str, calls: int, seed: int = 0) -> Run:
    """Play a load on a machine; the same arguments give the same result."""
    choose = random.Random(zlib.crc32(f"{profile}|{load}|{seed}".encode()))
    played = launched(LOADS[load](choose, calls), choose)
    with machine(PROFILES[profile], played, choose) as this:
        actors: list[_Actor] = []
        for span in played.spans:
            actor = _Actor(this.meter, None if span.parent is None else actors[span.parent])
            actors.append(actor)
            this.world.at(START_S + span.start_s, actor.begin)
            this.world.at(START_S + span.end_s, actor.end)
        this.world.advance(START_S + played.end_s - this.world())
        this.meter.flush()
        rows = [actor.call.record for actor in actors]
        unattributed_j = sum(this.meter.unattributed_j().values())
    spans = [
        span._replace(start_s=actor.call.start_s, end_s=actor.call.end_s)
        for actor, span in zip(actors, played.spans, strict=True)
    ]
    true = sum(shares(spans, waveform) for _, waveform, _ in this.devices)
    sensed = sum(shares(spans, waveform) for _, _, waveform in this.devices)
    judged = [
        Judged(
            span.end_s - span.start_s,
            span.start_s,
            *(np.nan if value is None else value for value in (row.energy_j, row.resolution_j, row.error_j)),
            truth_j=true[k],
            sensed_j=sensed[k],
            coverage=row.coverage,
        )
        for k, (span, row) in enumerate(zip(spans, rows, strict=True))
        if span.judged
    ]
    whole = all(row.coverage > WHOLE for row in rows)
    total_j = sum(row.self_j or 0.0 for row in rows) + unattributed_j
    return Run(judged, _unbalanced(total_j, spans, this.devices) if whole else np.nan)


def _unbalanced(total_j: float, spans: list[Span], devices: list[tuple[str, Waveform, Waveform]]) -> float:
    begin, end = min(span.start_s for span in spans), max(span.end_s for span in spans)
    sensed = [waveform for _, _, waveform in devices]
    counted_j = sum(waveform.energy_j(end) - waveform.energy_j(begin) for waveform in sensed)
    forgiven_j = STEP_S * sum(waveform.power_w(end) + waveform.power_w(begin) for waveform in sensed)
    off_j = total_j - counted_j
    return float(np.copysign(max(abs(off_j) - forgiven_j, 0.0), off_j)) / counted_j


class Cell(NamedTuple):
    """The calls of one length of one load on one machine, in numbers; ratios to the truth.

    Attributes:
        profile: The machine.
        load: The load.
        length: Which lengths of call.
        calls: How many calls.
        unmetered: How many of them have no energy; the rest below is of the others.
        median: Median of the absolute error.
        p95: Its 95th percentile.
        bias: Sum of the errors over the sum of the truths; two standard errors of that in `bias_pm`.
        within_error: Part of the calls whose truth lies inside `error_j`.
        within_resolution: The same for `resolution_j` and the energy on the sensor's own scale.
        half_width: Median of `resolution_j`; that over the median error is `tightness`.
        needed: Which part of `resolution_j` is enough for 95 % of the calls; 1 is a bar that is just right.
    """

    profile: str
    load: str
    length: str
    calls: int
    unmetered: int
    median: float
    p95: float
    bias: float
    bias_pm: float
    within_error: float
    within_resolution: float
    half_width: float
    tightness: float
    needed: float


def cells(profile: str, load: str, judged: list[Judged]) -> list[Cell]:
    """Sum up a run, by length of call and over all lengths."""
    result = [cell(profile, load, ALL, judged)]
    lower = 0.0
    for upper, name in zip(BINS_S, BIN_NAMES, strict=True):
        some = [one for one in judged if lower <= one.length_s < upper]
        lower = upper
        if some:
            result.append(cell(profile, load, name, some))
    return result


def cell(profile: str, load: str, length: str, judged: list[Judged]) -> Cell:
    """Sum up some calls."""
    known = [one for one in judged if not np.isnan(one.energy_j)]
    nothing = [np.nan] * 9
    if not known:
        return Cell(profile, load, length, len(judged), len(judged), *nothing)
    energy, truth, sensed, resolution, error = (
        np.array([getattr(one, name) for one in known])
        for name in ("energy_j", "truth_j", "sensed_j", "resolution_j", "error_j")
    )
    off = np.abs(energy - truth) / truth
    sampling = np.abs(energy - sensed) / sensed
    deviation = energy - truth
    median = float(np.median(off))
    half_width = float(np.median(resolution / sensed))
    middle = float(np.median(sampling))
    return Cell(
        profile,
        load,
        length,
        len(judged),
        len(judged) - len(known),
        median,
        float(np.quantile(off, 0.95)),
        float(deviation.sum() / truth.sum()),
        float(2 * deviation.std() * np.sqrt(len(known)) / truth.sum()),
        float(np.mean(np.abs(energy - truth) <= error)),
        float(np.mean(np.abs(energy - sensed) <= resolution)),
        half_width,
        half_width / middle if middle > 0 else np.inf,
        float(np.quantile(np.abs(energy - sensed) / np.maximum(resolution, LEAST_J), 0.95)),
    )
