"""A table of words and figures: plain text, HTML for notebooks, rich for terminals."""

from __future__ import annotations

import itertools
import re
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, NamedTuple

from aimeter._support.signs import in_signs_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from rich.table import Table
    from rich.text import Text

_LONGEST_NAME = 40
_TEXT_COLUMNS = frozenset({"name", "model", "", "per unit", "measured by", "over time"})
_LISTS = frozenset({"per unit", "measured by"})
_SHORT_NAME = 32
"""A word that is longer may be cut in two where there is no room for it."""
_STROKES = ("over time", "")
"""Columns of strokes, drawn on terminals only: they go first where there is no room, in this order."""
INK = "cyan"
"""Of what is drawn with blocks."""
_MARKUP = r"[\\`*_\[\]<>|#~&]"


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        cells: Its cells; the first one is a name.
        first: What is drawn before the name, such as the branch of a tree.
        then: What is drawn before what follows of it, if it takes several lines.
    """

    cells: tuple[str, ...]
    first: str = ""
    then: str = ""

    def name(self, width: int, height: int = 1) -> list[str]:
        """Return the lines of the name, in `width` characters and at least `height` lines."""
        parts = folded(self.cells[0], max(width - len(self.first), 1)).split("\n")
        parts += [""] * (height - len(parts))
        return [(self.then if at else self.first) + part for at, part in enumerate(parts)]


class Grid(NamedTuple):
    """A table before it is drawn."""

    header: tuple[str, ...]
    rows: tuple[Line, ...]
    total: tuple[str, ...]
    notes: tuple[str, ...]

    def without(self, titles: Collection[str]) -> Grid:
        """Return it without some columns."""
        kept = [at for at, title in enumerate(self.header) if title not in titles]

        def cut(cells: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(cells[at] for at in kept)

        rows = tuple(line._replace(cells=cut(line.cells)) for line in self.rows)
        return self._replace(header=cut(self.header), rows=rows, total=cut(self.total))

    def written(self, encoding: str) -> Grid:
        """Return it in signs that an encoding has."""

        def put(cells: Iterable[str]) -> tuple[str, ...]:
            return tuple(in_signs_of(encoding, cell) for cell in cells)

        rows = tuple(Line(put(line.cells), *put((line.first, line.then))) for line in self.rows)
        return Grid(put(self.header), rows, put(self.total), put(self.notes))


def text(table: Grid) -> str:
    """Draw the table in plain text."""
    table = table.without(_STROKES)
    lines = [
        (part, *(line.cells[1:] if at == 0 else [""] * (len(line.cells) - 1)))
        for line in (Line(table.header), *table.rows, Line(table.total))
        for at, part in enumerate(line.name(_LONGEST_NAME))
    ]
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


def html(table: Grid) -> str:
    """Draw the table in HTML; nothing in it can be markup."""
    table = table.without(_STROKES)

    def drawn(tag: str, cells: tuple[str, ...]) -> str:
        sides = ("left" if title in _TEXT_COLUMNS else "right" for title in table.header)
        return "".join(
            f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )

    rows = "".join(
        f"<tr>{drawn('td', (line.first + line.cells[0], *line.cells[1:]))}</tr>" for line in table.rows
    )
    notes = "<br>".join(map(escape, table.notes))
    return (
        f"<table><thead><tr>{drawn('th', table.header)}</tr></thead><tbody>{rows}</tbody>"
        f"<tfoot><tr>{drawn('th', table.total)}</tr></tfoot></table><p><small>{notes}</small></p>"
    )


def markdown(table: Grid) -> str:
    """Draw the table in Markdown (GitHub's tables); nothing in it can be markup."""
    table = table.without(_STROKES)

    def drawn(cells: Iterable[str]) -> str:
        return f"| {' | '.join(re.sub(_MARKUP, lambda found: chr(92) + found[0], cell) for cell in cells)} |"

    sides = ("---" if title in _TEXT_COLUMNS else "--:" for title in table.header)
    names = ((line.first.replace(" ", "\u00a0") + line.cells[0], *line.cells[1:]) for line in table.rows)
    lines = [drawn(table.header), f"| {' | '.join(sides)} |", *map(drawn, names), drawn(table.total)]
    return "\n".join([*lines, "", *table.notes])


def _listed(title: str, cell: str) -> str:
    """Put each part of a list on a line of its own, a space away from the figures before it."""
    if title not in _LISTS:
        return cell
    return "\n".join(f" {part}" for part in cell.split(", ") if part)


def _pieces(name: str) -> list[str]:
    """Split a name where it may be broken: behind its dots and the like, and before a capital as in ``DiffusionPipeline``."""
    found = re.findall(r"[^.\s/_:-]*?(?:[.\s/_:-]+|(?<=[a-z0-9])(?=[A-Z])|$)", name)
    return [piece for piece in found if piece]


def folded(name: str, width: int) -> str:
    """Return a name in lines of at most `width` characters: broken between its words, elsewhere only if one is too long."""
    lines = [""]
    for piece in _pieces(name):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        whole = lines[-1] + piece
        *full, lines[-1] = [whole[at : at + width] for at in range(0, len(whole), width)]
        lines[-1:] = [*full, lines[-1]]
    return "\n".join(lines)


def rich_table(table: Grid, width: int = 120) -> Table | Text:
    """Draw the table for a terminal of `width` columns. rich is loaded here, when one is drawn.

    What is a list (joules for each unit, kinds of meter) takes a line each, and a long name is folded. Where there is no
    room for strokes they go; then figures are folded, before their error. Where the terminal is too narrow even so, every
    row is drawn as a block of lines: no figure is left out or cut.
    """
    from rich.cells import cell_len  # noqa: PLC0415  loaded when first needed
    from rich.text import Text  # noqa: PLC0415  loaded when first needed

    least = max(
        (
            min(len(piece), _SHORT_NAME) + len(line.first)
            for line in table.rows
            for piece in _pieces(line.cells[0])
        ),
        default=0,
    )
    for fold, left_out in itertools.product((_listed, _tight, _tightest), range(len(_STROKES) + 1)):
        shown = table.without(_STROKES[:left_out])
        lines = [shown.header, *(line.cells for line in shown.rows), shown.total]
        cells = [list(map(fold, shown.header, row)) for row in lines]
        gap = 2 if fold is _listed else 1
        others = [
            max(cell_len(line) for cell in column for line in cell.split("\n")) + gap
            for column in list(zip(*cells, strict=True))[1:]
        ]
        room = width - sum(others) - gap
        if room >= max(least, len("total")):
            return _drawn(shown, cells, gap, room)
    return Text("\n".join(_blocks(table, width)))


def _tight(title: str, cell: str) -> str:
    """Break a title or a figure where that costs no more than a line."""
    return re.sub(r" (±|call|energy|by)(?= |$)", r"\n\1", _listed(title, cell))


def _tightest(title: str, cell: str) -> str:
    """Break what is for each unit as well."""
    return re.sub(r"(?<=J)/", "\n /", _tight(title, cell))


def _drawn(table: Grid, cells: Sequence[Sequence[str]], gap: int, room: int) -> Table:
    from rich import box  # noqa: PLC0415  loaded when first needed
    from rich.table import Table  # noqa: PLC0415  loaded when first needed
    from rich.text import Text  # noqa: PLC0415  loaded when first needed

    drawn = Table(
        box=box.SIMPLE_HEAD,
        caption="\n".join(table.notes),
        caption_justify="left",
        show_footer=True,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    titles, *rows, total = cells
    for title, name, cell in zip(titles, table.header, total, strict=True):
        side: Literal["left", "right"] = "left" if name in _TEXT_COLUMNS else "right"
        # A Text, unlike a string, holds no markup: a name may contain brackets.
        drawn.add_column(title, Text(cell, INK if name in _STROKES else ""), justify=side, no_wrap=True)
    for line, (_, *others) in zip(table.rows, rows, strict=True):
        height = max(cell.count("\n") + 1 for cell in others)
        strokes = (INK if title in _STROKES else "" for title in table.header)
        drawn.add_row(*map(Text, ["\n".join(line.name(room, height)), *others], strokes))
    return drawn


def _blocks(table: Grid, width: int) -> Iterator[str]:
    """Yield the lines of rows that are drawn below each other, each figure behind the title of its column."""
    margin = max(map(len, table.header)) + 4
    strokes = table.header.index("") if "" in table.header else None
    for line in (*table.rows, Line(table.total)):
        yield from line.name(width)
        cells = [*line.cells]
        if strokes is not None:  # a bar stands behind its figure
            cells[strokes - 1 : strokes + 1] = [f"{cells[strokes - 1]:<4} {cells[strokes]}".rstrip(), ""]
        for title, cell in zip(table.header[1:], cells[1:], strict=True):
            parts = cell.split(", ") if title in _LISTS else [cell]
            for at, part in enumerate(parts if cell else ()):
                before = line.then + f"  {'' if at else title}"
                if len(line.then) + margin + len(part) <= width:
                    yield line.then + f"  {'' if at else title}".ljust(margin) + part
                    continue
                if at == 0:
                    yield before
                room = max(width - len(line.then) - 4, 1)
                yield from (f"{line.then}    {piece}" for piece in wrap(part, room, break_on_hyphens=False))
        yield line.then.rstrip()
    for note in table.notes:
        yield from wrap(note, width, break_on_hyphens=False)
