"""Adding records up, by name, in constant memory a name.

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
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from aimeter._support.statistics import calibration_of, error_j2
from aimeter._support.units import UNKNOWN
from aimeter.record import COLUMNS, COUNTS, MeasuredBy
from aimeter.report.summary import Summary, SummaryRow

if TYPE_CHECKING:
    from aimeter.record import Record

By = Literal["name", "model"]

OTHER_NAMES = "(other names)"
"""Where a summary has no more room for names, the rest has this one."""

MOST_NAMES = 10_000
"""Names that the summary of a log tells apart; who has more has put something else into them."""

_METHODS = frozenset(get_args(MeasuredBy))
_COUNTS = slice(COLUMNS.index(COUNTS[0]), COLUMNS.index(COUNTS[-1]) + 1)


def _method(text: str) -> str:
    """Return a way of measuring, of which there are few, whatever a log says."""
    return text if text in _METHODS else UNKNOWN


def _held(value: float | None) -> float | None:
    """Return a sum, or None if it exceeds what a number can hold: it is unknown."""
    return value if value is None or math.isfinite(value) else None


@dataclass(slots=True)
class _Sums:
    calls: int = 0
    errors: int = 0
    known: int = 0
    energy_j: float = 0.0
    resolution_j2: float = 0.0
    calibration_j: float = 0.0
    all_bounded: bool = True
    unit_energy_j: dict[str, float] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    co2e_g: float | None = None
    duration_s: float = 0.0
    gpu: set[str] = field(default_factory=set)
    cpu: set[str] = field(default_factory=set)
    dram: set[str] = field(default_factory=set)
    other: bool = False
    coverage: float = 1.0

    def add(self, record: Record) -> None:
        self.calls += 1
        if record.status == "error":
            self.errors += 1
        self.duration_s += record.duration_s
        self.coverage = min(self.coverage, record.coverage)
        # There are few ways of measuring, and nearly always they are known.
        if record.gpu_method not in self.gpu:
            self.gpu.add(_method(record.gpu_method))
        if record.cpu_method not in self.cpu:
            self.cpu.add(_method(record.cpu_method))
        if record.dram_method not in self.dram:
            self.dram.add(_method(record.dram_method))
        if record.other_j is not None:
            self.other = True
        if record.co2e_g is not None:
            self.co2e_g = (self.co2e_g or 0.0) + record.co2e_g
        if record.energy_j is not None:
            self._add_energy(record, record.energy_j)

    def _add_energy(self, record: Record, energy_j: float) -> None:
        self.known += 1
        self.energy_j += energy_j
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

    def merge(self, other: _Sums) -> None:
        """Count in what another has counted."""
        self.calls += other.calls
        self.errors += other.errors
        self.known += other.known
        self.energy_j += other.energy_j
        self.resolution_j2 += other.resolution_j2
        self.calibration_j += other.calibration_j
        self.all_bounded &= other.all_bounded
        for unit, count in other.units.items():
            self.units[unit] = self.units.get(unit, 0.0) + count
            self.unit_energy_j[unit] = self.unit_energy_j.get(unit, 0.0) + other.unit_energy_j[unit]
        if other.co2e_g is not None:
            self.co2e_g = (self.co2e_g or 0.0) + other.co2e_g
        self.duration_s += other.duration_s
        self.gpu |= other.gpu
        self.cpu |= other.cpu
        self.dram |= other.dram
        self.other |= other.other
        self.coverage = min(self.coverage, other.coverage)

    @property
    def overflowed(self) -> bool:
        sums = (
            self.energy_j,
            self.resolution_j2,
            self.calibration_j,
            self.co2e_g or 0.0,
            *self.units.values(),
        )
        return not all(map(math.isfinite, sums))

    def row(self, name: str, model: str | None = None) -> SummaryRow:
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
            energy_j=_held(self.energy_j) if self.known else None,
            energy_error_j=_held(error_j) if bounded else None,
            per_call_j=_held(self.energy_j / self.known) if self.known else None,
            per_call_error_j=_held(error_j / self.known) if bounded else None,
            per_unit_j={
                unit: per_unit_j
                for unit, count in self.units.items()
                if 0 < count < math.inf
                and (per_unit_j := _held(self.unit_energy_j[unit] / count)) is not None
            },
            co2e_g=_held(self.co2e_g),
            duration_s=self.duration_s,
            methods=methods,
            coverage=self.coverage,
            model=model,
        )


_REMEMBERED = 4096
"""So many rows at least, and twice as many at most, are remembered to have come, for children that come after them."""

_MOST_ORPHANS = 100_000
"""Calls for whose children it is remembered that their own row has not come. Of more, the oldest are taken to have come
before what is remembered: in crashes no more than a few calls are lost, but children may outlive thousands."""


class Tally:
    """A running summary: add records as they come, ask at any time. Used by one thread at a time.

    Args:
        most_names: Names told apart, at most; calls of further ones are added up as `OTHER_NAMES`.
        by: ``model``: calls of one name and of different models are told apart.
    """

    def __init__(self, most_names: float = math.inf, by: By = "name") -> None:
        self._most_names = most_names
        self._by_model = by == "model"
        self._sums: dict[tuple[str, str | None, bool], _Sums] = {}
        """By name, by model and by whether no other call encloses the calls."""
        self._orphans: dict[str, _Sums] = {}
        """Calls inside another whose row has not come: it is open, in another log, or was lost in a crash."""
        self._seen: set[str] = set()
        """Calls whose rows came lately: children may outlive them."""
        self._seen_before: set[str] = set()

    def add(self, record: Record, *, after_parent: bool = False) -> None:
        """Count one record in; `after_parent` tells that the row of the call around it is known to have come before."""
        model = record.model or "" if self._by_model else None
        key = record.name, model, record.parent_id is None
        sums = self._sums.get(key)
        if sums is None:
            if len(self._sums) >= self._most_names:
                key = OTHER_NAMES, None, record.parent_id is None
            sums = self._sums.setdefault(key, _Sums())
        sums.add(record)
        if self._orphans:
            self._orphans.pop(record.call_id, None)
        self._seen.add(record.call_id)
        if len(self._seen) > _REMEMBERED:
            self._seen, self._seen_before = set(), self._seen
        if not (after_parent or record.parent_id is None or self._has_seen(record.parent_id)):
            orphans = self._orphans.get(record.parent_id)
            if orphans is None:
                orphans = self._orphans[record.parent_id] = _Sums()
                if len(self._orphans) > _MOST_ORPHANS:
                    del self._orphans[next(iter(self._orphans))]
            orphans.add(record)

    def _has_seen(self, call_id: str) -> bool:
        return call_id in self._seen or call_id in self._seen_before

    def summary(self, *, skipped: int = 0) -> Summary:
        """Return the sums so far; `skipped` is the number of a log's lines that were no rows."""
        by_name: dict[tuple[str, str | None], _Sums] = {}
        total = _Sums()
        for (name, model, outermost), sums in self._sums.items():
            by_name.setdefault((name, model), _Sums()).merge(sums)
            if outermost:
                total.merge(sums)
        for sums in self._orphans.values():
            total.merge(sums)
        rows = [sums.row(*key) for key, sums in by_name.items()]
        rows.sort(key=lambda row: (-(row.energy_j or 0.0), row.name, row.model or ""))
        return Summary(
            rows=tuple(rows),
            total=total.row("total"),
            nested=sum(row.calls for row in rows) - total.calls,
            skipped=skipped,
            overflowed=sum(sums.overflowed for sums in by_name.values()),
        )


def summarise(records: Iterable[Record], by: By = "name") -> Summary:
    """Add up records, such as those of `aimeter.logs.read`, by name or by name and model.

    What several processes used of one device at the same time is divided among them, see `aimeter.report.division`.
    Logs are read for that first, once, and again if there are such processes. They take constant memory a name, unless
    processes overlapped. Beyond `MOST_NAMES` of them the rest are added up as `OTHER_NAMES`.
    """
    from aimeter.logs.brief import read_briefs  # noqa: PLC0415 - adding up one process's own calls reads no log
    from aimeter.logs.read import ReadResult  # noqa: PLC0415 - likewise
    from aimeter.report.division import between_processes  # noqa: PLC0415 - loads NumPy

    if not isinstance(records, ReadResult):
        records = list(records)
    kept = records
    division, undivided = between_processes(
        lambda: read_briefs(kept.paths) if isinstance(kept, ReadResult) else kept
    )
    tally = Tally(MOST_NAMES, by)
    for record in records:
        tally.add(record if division is None else division.divided(record))
    summary = tally.summary(skipped=getattr(records, "skipped", 0))
    return replace(summary, processes=division.processes if division else 0, undivided=undivided)
