"""A summary as a table: plain text, HTML for notebooks, rich for terminals."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

from aimeter.report.units import printable, quantity

if TYPE_CHECKING:
    from rich.table import Table

    from aimeter.report.summary import Summary, SummaryRow

_UNIT_NAMES = {
    "items": "item",
    "images": "image",
    "tokens_in": "token in",
    "tokens_out": "token out",
    "steps": "step",
    "audio_s": "s of audio",
}
_LONGEST_NAME = 40
_FULLY_COVERED = 0.995  # shows as 100 %
_TEXT_COLUMNS = frozenset({"name", "per unit", "measured by"})
_LISTS = frozenset({"per unit", "measured by"})
_SHORT_NAME = 20
_ROOMY, _WIDE = 88, 112


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


class Grid(NamedTuple):
    """A table before it is drawn."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]
    notes: tuple[str, ...]


def grid(summary: Summary) -> Grid:
    """Put a summary into words and figures."""
    every = (*summary.rows, summary.total)
    columns = ["name", "calls", "errors", "per call", "per unit", "energy", "CO2e", "time", "measured by"]
    if any(row.unknown for row in every):
        columns.insert(3, "no energy")
    if any(row.coverage < _FULLY_COVERED for row in every):
        columns.insert(-1, "covered")
    return Grid(
        header=tuple(columns),
        rows=tuple(tuple(_cells(row)[column] for column in columns) for row in summary.rows),
        # Joules of one name for each unit of another would mean nothing.
        total=tuple(
            "" if column == "per unit" and len(summary.rows) > 1 else _cells(summary.total)[column]
            for column in columns
        ),
        notes=_notes(summary),
    )


def _cells(row: SummaryRow) -> dict[str, str]:
    return {
        "name": printable(row.name),
        "calls": f"{row.calls:,}",
        "errors": f"{row.errors:,}",
        "no energy": f"{row.unknown:,}",
        "per call": quantity(row.per_call_j, "J", row.per_call_error_j),
        "per unit": ", ".join(
            f"{quantity(j, 'J')}/{_UNIT_NAMES[unit]}" for unit, j in row.per_unit_j.items()
        ),
        "energy": quantity(row.energy_j, "J", row.energy_error_j),
        "CO2e": quantity(row.co2e_g, "g", largest=3),
        "time": quantity(row.duration_s, "s", largest=0),
        "covered": f"{row.coverage:.0%}",
        "measured by": ", ".join(f"{kind} {'+'.join(seen)}" for kind, seen in row.methods.items())
        or "nothing",
    }


def _notes(summary: Summary) -> tuple[str, ...]:
    notes = ["± is the error of measurement, a 95 % half-width; a sensor's calibration does not average out."]
    if summary.nested:
        notes.append(
            f"The total is of calls that no other call encloses; {summary.nested:,} more are inside those."
        )
    if any(row.unknown for row in summary.rows):
        notes.append("Calls without energy are left out of every figure in joules and grams.")
    if any(row.coverage < _FULLY_COVERED for row in summary.rows):
        notes.append("Covered: the least part of a call's time that the meters cover.")
    if summary.processes:
        notes.append(told(summary.processes))
    if summary.undivided:
        notes.append(UNDIVIDED)
    if summary.skipped:
        notes.append(f"{summary.skipped:,} lines of the log were torn or foreign and were skipped.")
    return tuple(notes)


def text(table: Grid) -> str:
    """Draw the table in plain text."""
    lines = [table.header, *table.rows, table.total]
    lines = [(_shortened(name), *others) for name, *others in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def drawn(cells: tuple[str, ...]) -> str:
        aligned = (
            cell.ljust(width) if title in _TEXT_COLUMNS else cell.rjust(width)
            for title, cell, width in zip(table.header, cells, widths, strict=True)
        )
        return "  ".join(aligned).rstrip()

    rule = "-" * len("  ".join("-" * width for width in widths))
    header, *rows, total = map(drawn, lines)
    return "\n".join([header, rule, *rows, rule, total, *table.notes])


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def html(table: Grid) -> str:
    """Draw the table in HTML; nothing in it can be markup."""

    def drawn(tag: str, cells: tuple[str, ...]) -> str:
        sides = ("left" if title in _TEXT_COLUMNS else "right" for title in table.header)
        return "".join(
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )

    rows = "".join(f"<tr>{drawn('td', row)}</tr>" for row in table.rows)
    notes = "<br>".join(map(escape, table.notes))
    return (
        f"<table><thead><tr>{drawn('th', table.header)}</tr></thead><tbody>{rows}</tbody>"
        f"<tfoot><tr>{drawn('th', table.total)}</tr></tfoot></table><p><small>{notes}</small></p>"
    )


def _listed(cell: str) -> str:
    """Put each part on a line of its own, a space away from the figures before it."""
    return "\n".join(f" {part}" for part in cell.split(", ") if part)


def rich_table(table: Grid, width: int = 120) -> Table:
    """Draw the table for a terminal of `width` columns. rich is loaded here, when one is drawn.

    What is a list (joules for each unit, kinds of meter) takes a line each. In a narrow terminal the sum of the
    energy gives way, which is the calls times the energy of one, and a column of errors that are all 0.
    """
    from rich import box  # noqa: PLC0415  loaded when first needed
    from rich.table import Table  # noqa: PLC0415  loaded when first needed
    from rich.text import Text  # noqa: PLC0415  loaded when first needed

    drawn = Table(
        box=box.SIMPLE_HEAD,
        caption="\n".join(table.notes),
        caption_justify="left",
        show_footer=True,
        padding=(0, 1 if width >= _ROOMY else 0, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    spared = {"energy", "errors"} if table.total[table.header.index("errors")] == "0" else {"energy"}
    shown = [width >= _WIDE or title not in spared for title in table.header]

    def cells(row: tuple[str, ...]) -> list[Text]:
        # A Text, unlike a string, holds no markup: a name may contain brackets.
        pairs = zip(table.header, row, shown, strict=True)
        return [Text(_listed(cell) if title in _LISTS else cell) for title, cell, show in pairs if show]

    # Where space is short a long name is folded, but not before the last column is.
    folded = {"measured by"} | {"name" for row in table.rows if len(row[0]) > _SHORT_NAME}
    titles = [title for title, show in zip(table.header, shown, strict=True) if show]
    for title, total in zip(titles, cells(table.total), strict=True):
        side: Literal["left", "right"] = "left" if title in _TEXT_COLUMNS else "right"
        drawn.add_column(
            f" {title}" if title in _LISTS else title,
            total,
            justify=side,
            overflow="fold",
            no_wrap=title not in folded,
        )
    for row in table.rows:
        drawn.add_row(*cells(row))
    return drawn
