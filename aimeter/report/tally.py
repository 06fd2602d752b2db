"""Adding records up: by name, by model, and by the place of a call among others, in constant memory a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from aimeter.record import COUNTS
from aimeter.report.divided import Rows
from aimeter.report.summary import By, Summary, SummaryRow
from aimeter.report.sums import Span, Sums, held
from aimeter.report.tree import Branch, Branches, Key, Tree

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from aimeter.record import Record
    from aimeter.report.divided import AllRows

MOST_NAMES = 10_000
"""Names that the summary of a log tells apart; who has more has put something else into them."""

_OF_TOKENS = frozenset({"tokens_in", "tokens_out"})
_OF_WORK = frozenset({*_OF_TOKENS, "steps"})
"""What parts of a call are for; items, images and seconds of audio are what the whole call is for."""


class Tally:
    """A running summary: add records as they come, ask at any time. Used by one thread at a time.

    Args:
        most_names: Names told apart, at most; calls of further ones are added up as `aimeter.report.tree.OTHER_NAMES`.
        by: What the summary shows: ``call``, each name under that of the call around it; ``name``; or ``model``, calls of
            one name and of different models apart.
        over_time: Note when the energy was used, too.
    """

    def __init__(self, most_names: float = math.inf, by: By = "call", *, over_time: bool = False) -> None:
        self._over_time = over_time
        self._tree = Tree(most_names, over_time=over_time)
        self._by = by

    def add(self, record: Record, *, after_parent: bool = False, wanted: bool = True) -> None:
        """Count one record in, or only know that it is between others if it is not wanted: see `Tree.add`."""
        self._tree.add(record, after_parent=after_parent, wanted=wanted)

    def summary(self, *, skipped: int = 0) -> Summary:
        """Return the sums so far; `skipped` is the number of a log's lines that were no rows."""
        found = summed(*self._tree.whole(), self._by, over_time=self._over_time)
        return replace(found, skipped=skipped)


def summed(roots: Branches, elsewhere: Branches, by: By, *, over_time: bool) -> Summary:
    """Return the summary of calls that nothing encloses, with those inside them, and of calls elsewhere: see `Tree`."""
    by_name: dict[tuple[str, str | None], Sums] = {}
    for (name, model), branch in _every(roots, elsewhere):
        key = name, model if by == "model" else None
        by_name.setdefault(key, branch.sums.alike()).merge(branch.sums)
    total = Sums.timed() if over_time else Sums()
    for branch in roots.values():
        total.merge(branch.sums)
    span_s = total.span_s
    rows = [sums.row(*key, span_s=span_s) for key, sums in by_name.items()]
    return Summary(
        rows=tuple(sorted(rows, key=_most_first)),
        total=total.row("total", span_s=span_s),
        nested=sum(row.calls for row in rows) - total.calls,
        overflowed=sum(sums.overflowed for sums in by_name.values()),
        tree=_rows(roots, total, span_s),
        span_s=span_s,
        by=by,
    )


def _every(*those: Branches) -> Iterator[tuple[Key, Branch]]:
    """Yield all branches, those inside others too."""
    left = [*those]
    while left:
        branches = left.pop()
        yield from branches.items()
        left += [branch.parts for branch in branches.values() if branch.parts]


def _most_first(row: SummaryRow) -> tuple[float, str, str]:
    return -(row.energy_j or 0.0), row.name, row.model or ""


def _rows(branches: Branches, around: Sums, span_s: Span | None, prefix: str = "") -> tuple[SummaryRow, ...]:
    """Return the rows of what is inside the same call: models are told where those of one name differ."""
    models: dict[str, int] = {}
    for name, _ in branches:
        models[name] = models.get(name, 0) + 1
    alone = {frozenset(branch.sums.units) & _OF_TOKENS for branch in branches.values()}
    rows = []
    for (name, model), branch in branches.items():
        sums = branch.sums
        row = sums.row(
            name.removeprefix(prefix) or name,
            model if models[name] > 1 else None,
            share=held(sums.energy_j / around.energy_j) if sums.known and around.energy_j > 0 else None,
            units=_meant(sums.units, branch.parts, alone),
            parts=_rows(branch.parts, sums, span_s, f"{name}."),
            span_s=span_s,
        )
        rows.append(row)
    return tuple(sorted(rows, key=_most_first))


def _meant(
    counted: Mapping[str, float], parts: Branches, beside: AbstractSet[AbstractSet[str]]
) -> frozenset[str]:
    """Return the counts by which to divide the energy of some calls.

    What its parts count apart is theirs: a generation's joules a token of the prompt are its prefill's, and those a new
    token its decoding's. Of calls that read and write tokens, and are not divided further, only a part beside another
    one that does nothing but write is for those it reads.

    Args:
        counted: What the calls count.
        parts: What is inside them.
        beside: The sets of tokens that parts of the same call count.
    """
    inner = frozenset(unit for _, branch in _every(parts) for unit in branch.sums.units) & _OF_WORK
    meant = frozenset(COUNTS) & counted.keys() - inner
    if meant >= _OF_TOKENS:
        meant -= {"tokens_out" if frozenset({"tokens_out"}) in beside else "tokens_in"}
    return meant


def summarise(
    records: Iterable[Record],
    by: By = "call",
    wanted: Callable[[Record], bool] | None = None,
    again: AllRows | None = None,
) -> Summary:
    """Add up records, such as those of `aimeter.logs.read`, by `by`: see `Tally`; and `Rows` for the rest.

    Beyond `MOST_NAMES` names the rest are added up as one.
    """
    rows = Rows(records, wanted, again)
    tally = Tally(MOST_NAMES, by, over_time=True)
    for record, is_wanted in rows:
        tally.add(record, wanted=is_wanted)
    return rows.told(tally.summary())
