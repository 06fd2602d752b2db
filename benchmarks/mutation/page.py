"""The scores as a table of a page in the docs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .parts import ROOT

PAGE = ROOT / "docs" / "explanation" / "tests.md"
BEGIN, END = "<!-- begin scores: written by the command -->", "<!-- end scores -->"


class Score(NamedTuple):
    """How many changes of a part were noticed."""

    part: str
    tried: int
    equivalent: int
    noticed: int

    @property
    def percent(self) -> float:
        """Of those that could be noticed."""
        return 100 * self.noticed / max(1, self.tried - self.equivalent)


def table(scores: Sequence[Score]) -> str:
    """Return the scores as a table, worst first, with their sum."""
    whole = Score(
        "all",
        sum(one.tried for one in scores),
        sum(one.equivalent for one in scores),
        sum(one.noticed for one in scores),
    )
    lines = ["| part | tried | equivalent | noticed | % |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {one.part} | {one.tried} | {one.equivalent} | {one.noticed} | {one.percent:.0f} |"
        for one in [*sorted(scores, key=lambda one: (one.percent, one.part)), whole]
    ]
    return "\n".join(lines)


def write(scores: Sequence[Score], how: str) -> None:
    """Write the table into the page, between its markers, and how it was made."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{how}\n\n{table(scores)}\n\n{END}{after}", "utf-8")
