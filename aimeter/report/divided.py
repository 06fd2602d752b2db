"""Records with what several processes used of one device at the same time divided among them, if any did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from aimeter.report.processes import Row, at_once

if TYPE_CHECKING:
    from aimeter.record import Record
    from aimeter.report.division import Division
    from aimeter.report.summary import Summary

AllRows = Callable[[], Iterable[Row]]


def between_processes(rows: AllRows) -> tuple[Division | None, bool]:
    """Return how rows are to be divided, None if not at all, and whether some should be that do not say their machine.

    Args:
        rows: Gives all rows, anew each time.
    """
    known, unknown = at_once(rows())
    if not known:
        return None, unknown
    from aimeter.report.division import Division  # noqa: PLC0415 - loads NumPy

    division = Division(rows())
    return division if division.processes else None, unknown


class Rows:
    """Records, with what several processes used of one device at the same time divided among them.

    Logs are read for that first, once, and again if there are such processes. They take constant memory a name, unless
    processes overlapped.

    Args:
        records: Records, such as those of `aimeter.logs.read`.
        wanted: Tells which of them are wanted; the others are divided with, all the same. All are, if not given.
        again: Gives the rows that are divided, anew each time; by default those of `records`, be they wanted or not.

    Attributes:
        undivided: Processes may have used a device at the same time, and their rows do not say on which machine.
    """

    def __init__(
        self,
        records: Iterable[Record],
        wanted: Callable[[Record], bool] | None = None,
        again: AllRows | None = None,
    ) -> None:
        from aimeter.logs.brief import read_briefs  # noqa: PLC0415 - adding up one process's own calls reads no log
        from aimeter.logs.read import ReadResult  # noqa: PLC0415 - likewise

        kept = self._records = records if isinstance(records, ReadResult) else list(records)
        self._wanted = wanted
        self._division, self.undivided = between_processes(
            again or (lambda: read_briefs(kept.paths) if isinstance(kept, ReadResult) else kept)
        )

    def __iter__(self) -> Iterator[tuple[Record, bool]]:
        """Yield each record, and whether it is wanted: of what is not, it counts only what is inside and around it."""
        for record in self._records:
            wanted = self._wanted is None or self._wanted(record)
            yield record if self._division is None or not wanted else self._division.divided(record), wanted

    def told(self, summary: Summary) -> Summary:
        """Return a summary of these that says what was divided and what was skipped."""
        return replace(
            summary,
            skipped=getattr(self._records, "skipped", 0),
            repeated=getattr(self._records, "repeated", 0),
            processes=self._division.processes if self._division else 0,
            undivided=self.undivided,
        )
