"""What a run used so far, for experiment trackers: the totals of its calls, as numbers beside its losses and scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from aimeter._support.clocks import time
from aimeter.errors import ConfigurationError
from aimeter.report.tally import Tally

if TYPE_CHECKING:
    from aimeter.record import Record
    from aimeter.report.summary import SummaryRow

Log = Callable[[Mapping[str, float], int], None]

_ODD = re.compile(r"[^\w\-./ ]+", re.ASCII)
"""What MLflow allows in no name of a metric, the strictest of them."""


class TotalsSink:
    """A sink that gives a tracker the sums of a run: of all calls, and of each name.

    The metrics are ``aimeter/energy_j``, ``aimeter/energy_error_j``, ``aimeter/co2e_g`` and ``aimeter/calls`` for calls that
    no other one encloses, ``aimeter/NAME/energy_j`` and ``aimeter/NAME/calls`` for each name, and
    ``aimeter/NAME/j_per_item`` (``image``, ``token_in`` …) where it is counted. They only grow, but for those a unit.

    Args:
        log: Takes the metrics and how many calls they are of. It is called in a thread of aimeter's own, or in the one
            that closes the meter, and never by two at once; what it raises is logged once and costs nothing else.
        every_s: So long, at least, lies between two times; the last one is when the meter is closed, as at the end of
            the program.
        most_names: So many names have metrics of their own.

    Attributes:
        lost_rows: 0.
        last_fault: Empty.
    """

    def __init__(self, log: Log, *, every_s: float = 10.0, most_names: int = 50) -> None:
        if not callable(log):
            message = f"log={log!r} must be a function of the metrics and the number of calls"
            raise ConfigurationError(message)
        self.lost_rows, self.last_fault = 0, ""
        self._log, self._every_s, self._most_names = log, every_s, most_names
        self._begin()

    def _begin(self) -> None:
        self._tally = Tally(most_names=self._most_names)
        self._calls = self._told = 0
        self._due_s = time.monotonic()

    def write(self, records: Sequence[Record]) -> None:
        """Add rows up, and log the sums if it is time."""
        for row in records:
            self._tally.add(row)
        self._calls += len(records)
        if time.monotonic() >= self._due_s:
            self._tell()

    def reopen(self) -> None:
        """Begin anew in a forked child: the sums so far are the parent's to log."""
        self._begin()

    def close(self) -> None:
        """Log the sums as they are."""
        self._tell()

    def _tell(self) -> None:
        if self._calls > self._told:
            self._told = self._calls
            self._due_s = time.monotonic() + self._every_s
            self._log(dict(self._metrics()), self._calls)

    def _metrics(self) -> Iterator[tuple[str, float]]:
        summary = self._tally.summary()
        yield from _of("aimeter", summary.total)
        if summary.total.energy_error_j is not None:
            yield "aimeter/energy_error_j", summary.total.energy_error_j
        for row in summary.rows:
            name = f"aimeter/{_ODD.sub('_', row.name) or '_'}"
            yield from _of(name, row)
            for unit, joules in row.per_unit_j.items():
                yield f"{name}/j_per_{unit.removesuffix('s')}", joules


def _of(name: str, row: SummaryRow) -> Iterator[tuple[str, float]]:
    yield f"{name}/calls", float(row.calls)
    if row.energy_j is not None:
        yield f"{name}/energy_j", row.energy_j
    if row.co2e_g is not None:
        yield f"{name}/co2e_g", row.co2e_g
