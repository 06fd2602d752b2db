"""A summary: calls by name and what they come to, as figures and as a table of words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from aimeter._support.units import duration, printable, quantity
from aimeter.report.strokes import bar, sparkline
from aimeter.report.table import Grid, Line, html, markdown, rich_table, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text

    _Cells = Mapping[str, str]

UNIT_NAMES = {
    "items": "item",
    "images": "image",
    "tokens_in": "token in",
    "tokens_out": "token out",
    "steps": "step",
    "audio_s": "s of audio",
}
FULLY_COVERED = 0.995  # shows as 100 %

By = Literal["call", "name", "model"]
"""What a summary shows: each name under that of the call around it, names, or names and models."""

_WORTH_MENTIONING = 0.005  # shows as 1 %
_BAR = 8
"""Characters of the bar of a share."""
_MOST_LINES = 40
"""Names in a table that stand beside one another; in a summary are all."""

UNDIVIDED = (
    "Rows of earlier schemas do not say on which machine they were metered: what several processes used at the "
    "same time is in each one's rows, and counted as often."
)


def told(processes: int) -> str:
    """Return what to say where processes were divided."""
    return (
        f"{processes:,} processes used devices of one machine at the same time: what they used then is divided evenly "
        "among them."
    )


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """What the calls of one name come to.

    Attributes:
        name: The calls' name.
        calls: How many there are.
        errors: How many of them raised.
        unknown: How many have no energy; they are left out of every figure in joules.
        energy_j: Energy of the others together; None if there is no other.
        energy_error_j: Its error as a 95 % half-width; None if a call's own is not known.
        per_call_j: Mean energy of a call whose energy is known.
        per_call_error_j: Its error as a 95 % half-width.
        per_unit_j: Energy per unit, by the name of the count: total energy of the calls that have this count,
            divided by the total of the count.
        co2e_g: Carbon of the calls that have any figure of it; None if none has.
        duration_s: Time of all calls together; calls that overlap count twice.
        methods: How each kind of device was measured: all methods that occur, sorted; none for ``other``, as
            rows do not say how. A kind that was never measured is absent.
        coverage: The least `coverage` of any call, 0 to 1.
        model: The calls' model, "" if none was noted; None where models are not told apart.
        self_j: Energy that no call inside these used; None if none is known.
        share: Part of the energy of the calls around these, or of the total, 0 to 1; None where it is not known.
        parts: The calls inside these by name, the most energy first.
        over_time_j: Energy in each of twelve equal stretches of the summary's `span_s`, each call's spread evenly over its
            time; empty where that is not noted.
    """

    name: str
    calls: int
    errors: int
    unknown: int
    energy_j: float | None
    energy_error_j: float | None
    per_call_j: float | None
    per_call_error_j: float | None
    per_unit_j: Mapping[str, float]
    co2e_g: float | None
    duration_s: float
    methods: Mapping[str, tuple[str, ...]]
    coverage: float
    model: str | None = None
    self_j: float | None = None
    share: float | None = None
    parts: tuple[SummaryRow, ...] = ()
    over_time_j: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Calls by name, the most energy first, and what they come to.

    Attributes:
        rows: One a name.
        total: Of the calls that no other call encloses: a parent's energy includes its children's.
        nested: How many calls are inside others and so not in `total`.
        skipped: Lines of the logs that were no whole rows.
        processes: How many processes used a device while another one did; what they used then is divided among them.
        undivided: Processes may have, and their rows, of earlier schemas, do not say on which machine.
        repeated: Rows that were left out, as their call stands in the logs before.
        overflowed: Names with sums too large for a number; those are unknown.
        tree: The same calls, each name under that of the call around it. A name has a row for each model if there are
            several, and only joules a unit that mean something there: a generation's for each new token are its decoding's.
        by: What is shown of these.
        span_s: When the first call of `total` that has energy began and the last one ended, in seconds since 1970; None
            where that is not noted, as in a process's own summary.
    """

    rows: tuple[SummaryRow, ...]
    total: SummaryRow
    nested: int = 0
    skipped: int = 0
    processes: int = 0
    undivided: bool = False
    overflowed: int = 0
    tree: tuple[SummaryRow, ...] = ()
    by: By = "call"
    span_s: tuple[float, float] | None = None
    repeated: int = 0

    def __str__(self) -> str:
        return text(_grid(self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html(_grid(self))

    def markdown(self) -> str:
        """Return the table in Markdown, for a pull request."""
        return markdown(_grid(self))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        yield rich_table(_grid(self).written(options.encoding), options.max_width)


def _grid(summary: Summary) -> Grid:
    """Put a summary into words and figures."""
    shown = summary.tree if summary.by == "call" else summary.rows
    every = (*summary.rows, summary.total)
    alike = len({_measured(row) for row in every}) == 1
    columns = [
        "name",
        *(["model"] if summary.by == "model" else []),
        "calls",
        *(["errors"] if any(row.errors for row in every) else []),
        *(["no energy"] if any(row.unknown for row in every) else []),
        *(["share", ""] if summary.by == "call" else []),
        "per call",
        "per unit",
        "energy",
        "CO2e",
        "time",
        *(["covered"] if any(row.coverage < FULLY_COVERED for row in every) else []),
        *([] if alike else ["measured by"]),
        *(["over time"] if summary.total.over_time_j and summary.total.calls > 1 else []),
    ]
    # Joules of one name for each unit of another would mean nothing.
    units = _cells(shown[0])["per unit"] if len(shown) == 1 else ""
    total = {**_cells(summary.total), "per unit": units, "share": "", "": ""}
    if summary.by == "call":  # there is no column of models
        shown = _labelled(shown)
    return Grid(
        header=tuple(columns),
        rows=tuple(
            Line(tuple(cells.get(column, "") for column in columns), first, then)
            for cells, first, then in _lines(shown)
        ),
        total=tuple(total.get(column, "") for column in columns),
        notes=(*([f"Measured by: {_measured(summary.total)}."] if alike and shown else []), *_notes(summary)),
    )


def _labelled(rows: Sequence[SummaryRow]) -> tuple[SummaryRow, ...]:
    """Return rows with the model in the name, where it is told."""
    return tuple(
        replace(
            row,
            name=row.name if row.model is None else f"{row.name} ({row.model or 'no model noted'})",
            parts=_labelled(row.parts),
        )
        for row in rows
    )


def _lines(
    rows: Sequence[SummaryRow], around: SummaryRow | None = None, margin: str = ""
) -> Iterator[tuple[_Cells, str, str]]:
    """Yield the cells of rows and of what is inside them, with what is drawn before the lines of their names."""
    lines: list[tuple[_Cells, SummaryRow | None]] = [(_cells(row), row) for row in rows[:_MOST_LINES]]
    left = rows[_MOST_LINES:]
    if left:
        calls = sum(row.calls for row in left)
        lines.append(({"name": f"… {len(left):,} more names", "calls": f"{calls:,}"}, None))
    if around is not None and around.self_j is not None and around.energy_j:
        share = around.self_j / around.energy_j
        if share >= _WORTH_MENTIONING:
            own = {
                "name": "self",
                "share": _percent(share),
                "": bar(share, _BAR),
                "energy": quantity(around.self_j, "J"),
            }
            lines.append((own, None))
    for number, (cells, row) in enumerate(lines, 1):
        first, then = ("", "") if around is None else ("└ ", "  ") if number == len(lines) else ("├ ", "│ ")
        yield cells, margin + first, margin + then
        if row is not None and row.parts:
            yield from _lines(row.parts, row, margin + then)


def _percent(share: float) -> str:
    return "<1%" if 0 < share < _WORTH_MENTIONING else f"{share:.0%}"


def _measured(row: SummaryRow) -> str:
    return ", ".join(f"{kind} {'+'.join(seen)}".rstrip() for kind, seen in row.methods.items()) or "nothing"


def _cells(row: SummaryRow) -> dict[str, str]:
    return {
        "name": printable(row.name),
        "model": "" if row.model is None else printable(row.model) or "none noted",
        "calls": f"{row.calls:,}",
        "errors": f"{row.errors:,}",
        "no energy": f"{row.unknown:,}",
        "share": "" if row.share is None else _percent(row.share),
        "": "" if row.share is None else bar(row.share, _BAR),
        "per call": quantity(row.per_call_j, "J", row.per_call_error_j),
        "per unit": ", ".join(f"{quantity(j, 'J')}/{UNIT_NAMES[unit]}" for unit, j in row.per_unit_j.items()),
        "energy": quantity(row.energy_j, "J", row.energy_error_j),
        "CO2e": quantity(row.co2e_g, "g", largest=3),
        "time": duration(row.duration_s),
        "covered": f"{row.coverage:.0%}",
        "measured by": _measured(row),
        "over time": sparkline(row.over_time_j),
    }


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = ["± is the error of measurement, a 95 % half-width; a sensor's calibration does not average out."]
    if summary.nested:
        notes.append(
            f"The total is of calls that no other call encloses; {summary.nested:,} more "
            f"{'is' if summary.nested == 1 else 'are'} inside those."
        )
    if any(row.unknown for row in summary.rows):
        notes.append("Calls without energy are left out of every figure in joules and grams.")
    if any(row.coverage < FULLY_COVERED for row in summary.rows):
        notes.append("Covered: the least part of a call's time that the meters cover.")
    if summary.processes:
        notes.append(told(summary.processes))
    if summary.undivided:
        notes.append(UNDIVIDED)
    if summary.repeated:
        notes.append(
            f"{summary.repeated:,} row{'' if summary.repeated == 1 else 's'} of calls that stand in the logs more than "
            "once: each call is counted once."
        )
    if summary.overflowed:
        notes.append("Sums that are too large for a number are unknown.")
    if summary.skipped:
        lines = "line of the log was" if summary.skipped == 1 else "lines of the log were"
        notes.append(f"{summary.skipped:,} {lines} torn or foreign and skipped.")
    return tuple(notes)
