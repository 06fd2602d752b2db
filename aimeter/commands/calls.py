"""The model calls of a command that is run: where their rows go, and what they come to beside the whole of it.

NumPy begins threads when it is loaded, and those that begin before signals are held take them (`aimeter.commands.child`). So
it is loaded when the command has ended.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support.units import quantity
from aimeter.errors import AimeterError
from aimeter.logs.brief import Brief, BriefResult
from aimeter.logs.read import ReadResult, readable
from aimeter.logs.recompute import times
from aimeter.logs.since import Since
from aimeter.report.drawing import drawn
from aimeter.report.tally import summarise
from aimeter.sinks import open_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aimeter.logs.read import Log
    from aimeter.record import Record
    from aimeter.report.summary import SummaryRow
    from aimeter.settings import Settings

_NONE = (
    "no model call was metered: the command made none with a framework that aimeter knows, its Python has no "
    "aimeter, or it sets a log of its own"
)


class Calls:
    """See the module's description.

    Args:
        given: The settings that the command is run with. Without a log it gets a temporary one.
        shown: Whether anything will be told of the calls.

    Attributes:
        settings: Settings that the command is to have beside those given.
        kept: Where the rows are, as the end of a line that tells of the run.

    Raises:
        ConfigurationError: The log cannot be written.
        LogSchemaError: It holds something else.
    """

    def __init__(self, given: Settings, *, shown: bool) -> None:
        self._run = given.run_id or uuid.uuid4().hex
        self.settings: dict[str, object] = {"run_id": self._run, "summary": False}
        self.kept = ""
        self._log = self._folder = self._since = None
        if given.log is not None:
            log = open_log(given.log, given.log_conflict)
            log.close()
            self._log = log.path
        elif shown and given.enabled:
            self._folder = _temporary_folder()
        path = self._log
        if self._folder is not None:
            path = self._folder / "calls.csv"
            self.settings["log"] = path
        if path is not None and shown:
            self._since = Since(path)

    def told(self, whole: Record, status: int) -> list[str]:
        """Return the table of the calls and what else is to be said of them, each without its last line end.

        Args:
            whole: The row of the whole command.
            status: How it ended: its exit status, or minus the signal that killed it.
        """
        if self._since is None:
            return ["aimeter: no table of the model calls, as no temporary file can be made: see --log"]
        try:
            return [*self._table(self._since.logs(), whole), *_lost(status)]
        except KeyboardInterrupt:
            return ["aimeter: interrupted while the log was read for the table of the model calls"]
        except (OSError, AimeterError) as error:
            return [f"aimeter: no table of the model calls: {error}"]

    def close(self) -> None:
        """Remove what was temporary."""
        if self._since is not None:
            self._since.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _table(self, logs: list[Log], whole: Record) -> list[str]:
        spans_s: list[array[float]] = []

        def briefs() -> Iterator[Brief]:
            spans_s[:] = array("d"), array("d")
            for brief in BriefResult(readable(logs), self._run):
                with suppress(ValueError):  # a log may say anything
                    for span_s, moment_s in zip(spans_s, times(brief), strict=True):
                        span_s.append(moment_s)
                yield brief

        summary = summarise(ReadResult(readable(logs), self._run), again=briefs)
        calls = sum(row.calls for row in summary.rows)
        if self._log is not None:
            self.kept = f", {'rows' if calls else 'no row'} in {self._log}"
        if not calls:
            return [f"aimeter: {_NONE}"]
        if self._log is None:
            self.kept = "; the rows are not kept, --log calls.csv does that"
        busy_s = _covered_s(*spans_s)
        unknown = any(row.unknown for row in summary.rows)
        return [drawn(summary).rstrip("\n"), _parted(summary.total, busy_s, whole, unknown=unknown)]


def _temporary_folder() -> Path | None:
    try:
        return Path(tempfile.mkdtemp(prefix="aimeter-"))
    except OSError:
        return None


def _covered_s(begins_s: Sequence[float], ends_s: Sequence[float]) -> float:
    """Return how much time some spans cover together."""
    import numpy as np  # noqa: PLC0415 - see the module's description

    order = np.argsort(np.array(begins_s))
    first_s, reached_s = np.array(begins_s)[order], np.maximum.accumulate(np.array(ends_s)[order])
    first_s[1:] = np.maximum(first_s[1:], reached_s[:-1])
    return float(np.maximum(reached_s - first_s, 0.0).sum())


def _parted(total: SummaryRow, busy_s: float, whole: Record, *, unknown: bool) -> str:
    """Return how much of a command was in its calls, and how much was not.

    Args:
        total: What its calls come to.
        busy_s: The time in which any of them was open.
        whole: The row of the whole command.
        unknown: Whether the energy of some calls is not known.
    """
    busy_s = min(busy_s, whole.duration_s)
    time = f"{quantity(busy_s, 's', largest=0)} ({busy_s / whole.duration_s:.0%} of the time)"
    rest = quantity(whole.duration_s - busy_s, "s", largest=0)
    if total.energy_j is not None and whole.energy_j:
        error_j = (whole.error_j or 0.0) + (total.energy_error_j or 0.0)
        rest_j = whole.energy_j - total.energy_j
        # Less than nothing: the command's own meters saw more than those of the whole.
        if rest_j >= -error_j:
            share = min(total.energy_j / whole.energy_j, 1.0)
            least, most = ("at least ", "at most ") if unknown else ("", "")
            joules = quantity(total.energy_j, "J", total.energy_error_j)
            time = f"{least}{joules} ({share:.0%} of the energy) and {time}"
            rest = f"{most}{quantity(max(rest_j, 0.0), 'J')} and {rest}"
    return f"aimeter: in model calls: {time}; the rest, {rest}, is loading, imports and idling"


def _lost(status: int) -> list[str]:
    if status >= 0 or status == -signal.SIGINT:  # which programs end at as they do by themselves
        return []
    return ["aimeter: the command was killed: calls that were open, or in its last second, may have no row"]
