"""Sums of records.

The error of a sum or a mean: each record carries a 95 % half-width, `error_j`, and the part of it that
sampling leaves open, `resolution_j`. The rest, ``calibration = sqrt(error_j² - resolution_j²)``, is the
sensor's own, and one sensor is wrong in the same direction at every call. By the law of propagation of
uncertainty (JCGM 100:2008, "GUM", 5.1.2 and 5.2.2) independent parts add in quadrature, and fully correlated
parts linearly:

    error of n calls together = sqrt(sum of resolution_j² + (sum of calibration)²)
    error of their mean       = that / n

So the mean of many calls is limited by the calibration alone. Where meters of several kinds stand behind a
call, each is correlated with itself only, and the linear sum is a little too large, never too small. This is
the error of measurement of these calls, not their spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, get_args

from aimeter._support.statistics import calibration_of, error_j2
from aimeter._support.units import UNKNOWN
from aimeter.record import COLUMNS, COUNTS, MeasuredBy
from aimeter.report.bins import Bins, unix_s
from aimeter.report.summary import SummaryRow

if TYPE_CHECKING:
    from collections.abc import Collection

    from aimeter.record import Record

Span = tuple[float, float]
"""From a time to a time, in seconds since 1970."""

STRETCHES = 12
_MOST_BINS = 24
JOULES = "J"
_METHODS = frozenset(get_args(MeasuredBy))
_COUNTS = slice(COLUMNS.index(COUNTS[0]), COLUMNS.index(COUNTS[-1]) + 1)


def _method(text: str) -> str:
    """Return a way of measuring, of which there are few, whatever a log says."""
    return text if text in _METHODS else UNKNOWN


@cache
def _both(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return a union of ways of measuring: the same one for all, as there are few and sums are many."""
    return one | other


def held(value: float | None) -> float | None:
    """Return a sum, or None if it exceeds what a number can hold: it is unknown."""
    return value if value is None or math.isfinite(value) else None


@dataclass(slots=True)
class Sums:
    """What some calls come to: see `SummaryRow` for what is made of it."""

    calls: int = 0
    errors: int = 0
    known: int = 0
    energy_j: float = 0.0
    self_j: float = 0.0
    resolution_j2: float = 0.0
    calibration_j: float = 0.0
    all_bounded: bool = True
    unit_energy_j: dict[str, float] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    co2e_g: float | None = None
    duration_s: float = 0.0
    gpu: frozenset[str] = frozenset()
    cpu: frozenset[str] = frozenset()
    dram: frozenset[str] = frozenset()
    other: bool = False
    coverage: float = 1.0
    over_time: Bins | None = None

    def add(self, record: Record) -> None:
        """Count one record in."""
        self.calls += 1
        if record.status == "error":
            self.errors += 1
        self.duration_s += record.duration_s
        self.coverage = min(self.coverage, record.coverage)
        # There are few ways of measuring, and nearly always they are known.
        if record.gpu_method not in self.gpu:
            self.gpu = _both(self.gpu, frozenset({_method(record.gpu_method)}))
        if record.cpu_method not in self.cpu:
            self.cpu = _both(self.cpu, frozenset({_method(record.cpu_method)}))
        if record.dram_method not in self.dram:
            self.dram = _both(self.dram, frozenset({_method(record.dram_method)}))
        if record.other_j is not None:
            self.other = True
        if record.co2e_g is not None:
            self.co2e_g = (self.co2e_g or 0.0) + record.co2e_g
        if record.energy_j is not None:
            self._add_energy(record, record.energy_j)

    def _add_energy(self, record: Record, energy_j: float) -> None:
        self.known += 1
        self.energy_j += energy_j
        if self.over_time is not None:
            begin_s = unix_s(record.start, record.duration_s)
            if begin_s is not None:
                self.over_time.spread(begin_s, begin_s + record.duration_s, {JOULES: energy_j})
        self.self_j += record.self_j or 0.0
        if record.error_j is None:
            self.all_bounded = False
        else:
            resolution_j = record.resolution_j or 0.0
            self.resolution_j2 += resolution_j * resolution_j
            self.calibration_j += calibration_of(record.error_j, resolution_j)
        counts: tuple[float | None, ...] = record[_COUNTS]  # type: ignore[assignment]  # which are its floats
        for unit, count in zip(COUNTS, counts, strict=True):
            if count is not None:
                self.units[unit] = self.units.get(unit, 0.0) + count
                self.unit_energy_j[unit] = self.unit_energy_j.get(unit, 0.0) + energy_j

    def merge(self, other: Sums) -> None:
        """Count in what another has counted."""
        self.calls += other.calls
        self.errors += other.errors
        self.known += other.known
        self.energy_j += other.energy_j
        self.self_j += other.self_j
        self.resolution_j2 += other.resolution_j2
        self.calibration_j += other.calibration_j
        self.all_bounded &= other.all_bounded
        for unit, count in other.units.items():
            self.units[unit] = self.units.get(unit, 0.0) + count
            self.unit_energy_j[unit] = self.unit_energy_j.get(unit, 0.0) + other.unit_energy_j[unit]
        if other.co2e_g is not None:
            self.co2e_g = (self.co2e_g or 0.0) + other.co2e_g
        self.duration_s += other.duration_s
        self.gpu = _both(self.gpu, other.gpu)
        self.cpu = _both(self.cpu, other.cpu)
        self.dram = _both(self.dram, other.dram)
        self.other |= other.other
        self.coverage = min(self.coverage, other.coverage)
        if self.over_time is not None and other.over_time is not None:
            self.over_time.merge(other.over_time)
        elif other.known:
            self.over_time = None  # a part is not the whole

    @classmethod
    def timed(cls) -> Sums:
        """Return sums that note when the energy was used, too."""
        return cls(over_time=Bins(_MOST_BINS))

    def alike(self) -> Sums:
        """Return sums of nothing that note as much as these."""
        return Sums() if self.over_time is None else Sums.timed()

    @property
    def span_s(self) -> Span | None:
        """From when to when the energy was used, if that is noted and is more than a moment."""
        bins = self.over_time
        return None if bins is None or not bins.begin_s < bins.end_s else (bins.begin_s, bins.end_s)

    @property
    def overflowed(self) -> bool:
        """Whether a sum is too large for a number."""
        sums = (
            self.energy_j,
            self.resolution_j2,
            self.calibration_j,
            self.co2e_g or 0.0,
            *self.units.values(),
        )
        return not all(map(math.isfinite, sums))

    def row(
        self,
        name: str,
        model: str | None = None,
        *,
        share: float | None = None,
        units: Collection[str] | None = None,
        parts: tuple[SummaryRow, ...] = (),
        span_s: Span | None = None,
    ) -> SummaryRow:
        """Return the row of a summary.

        Args:
            name: Its name.
            model: Its model.
            share: Its share.
            units: Gives the joules a unit of these only; by default of all.
            parts: What is inside.
            span_s: Gives the joules of equal stretches from this time to that.
        """
        error_j = math.sqrt(error_j2(self.resolution_j2, [self.calibration_j]))
        bounded = self.known > 0 and self.all_bounded
        seen = {"gpu": self.gpu, "cpu": self.cpu, "dram": self.dram}
        methods = {kind: tuple(sorted(those)) for kind, those in seen.items() if those - {"none"}}
        if self.other:
            methods["other"] = ()  # no column says how
        return SummaryRow(
            name=name,
            calls=self.calls,
            errors=self.errors,
            unknown=self.calls - self.known,
            energy_j=held(self.energy_j) if self.known else None,
            energy_error_j=held(error_j) if bounded else None,
            per_call_j=held(self.energy_j / self.known) if self.known else None,
            per_call_error_j=held(error_j / self.known) if bounded else None,
            per_unit_j={
                unit: per_unit_j
                for unit in COUNTS
                if (count := self.units.get(unit, 0.0)) > 0
                and (units is None or unit in units)
                and count < math.inf
                and (per_unit_j := held(self.unit_energy_j[unit] / count)) is not None
            },
            co2e_g=held(self.co2e_g),
            duration_s=self.duration_s,
            methods=methods,
            coverage=self.coverage,
            model=model,
            self_j=held(self.self_j) if self.known else None,
            share=share,
            parts=parts,
            over_time_j=()
            if span_s is None or self.over_time is None or not math.isfinite(self.energy_j)
            else self.over_time.evenly(JOULES, *span_s, STRETCHES),
        )
