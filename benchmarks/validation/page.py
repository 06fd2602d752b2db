"""The results as tables of a page in the docs, and all numbers beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .accept import COMPARISON_LOAD, CONDITIONS, WANTED, compared, faults, is_rare
from .score import ALL, BIN_NAMES, Cell

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "validation.md"
NUMBERS = Path(__file__).with_name("results.json")
BEGIN, END = "<!-- begin {name}: written by the suite -->", "<!-- end {name} -->"

Balance = Mapping[tuple[str, str], float]


def as_json(cells: Sequence[Cell], balance: Balance) -> str:
    """Return all numbers as JSON, rounded to what they are worth, a line for each row."""
    rows = [[_rounded(value) for value in one] for one in cells]
    sums = [[profile, load, _rounded(ratio)] for (profile, load), ratio in balance.items()]
    return (
        f'{{"columns": {json.dumps(Cell._fields)},\n"cells": [\n{_lines(rows)}\n],\n'
        f'"unbalanced": [\n{_lines(sums)}\n]}}\n'
    )


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    return ",\n".join(json.dumps(row) for row in rows)


def read() -> tuple[list[Cell], Balance]:
    """Return the numbers beside the suite."""
    numbers = json.loads(NUMBERS.read_text("utf-8"))

    def known(value: Any) -> Any:
        return math.nan if value is None else value

    cells = [Cell(*map(known, one)) for one in numbers["cells"]]
    return cells, {(profile, load): known(ratio) for profile, load, ratio in numbers["unbalanced"]}


def write(cells: Sequence[Cell], balance: Balance) -> None:
    """Write the numbers beside the suite and, from them, the tables into the page, between their markers."""
    NUMBERS.write_text(as_json(cells, balance), "utf-8")
    text = PAGE.read_text("utf-8")
    for name, table in tables(*read()).items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    PAGE.write_text(text, "utf-8")


def tables(cells: Sequence[Cell], balance: Balance) -> dict[str, str]:
    """Return the page's tables by the names of their markers."""
    return {
        "comparison": comparison(cells),
        "inside": by_profile_and_load(cells, inside),
        "accuracy": by_profile_and_load(cells, accuracy),
        "lengths": by_length(cells),
        "faults": "\n".join(f"- {line}" for line in faults(cells, balance)) or "Nothing.",
    }


def comparison(cells: Sequence[Cell]) -> str:
    """Return what is reached under the conditions of the comparison beside what is wanted."""
    rows = []
    for kind in CONDITIONS:
        for one in compared(kind, cells):
            median, p95 = WANTED[kind][one.length]
            rows.append(
                [
                    kind,
                    one.length,
                    str(one.calls),
                    f"{_percent(median)} / {_percent(p95)}",
                    f"{_percent(one.median)} / {_percent(one.p95)}",
                    f"{_percent(one.bias, sign=True)} ± {_percent(one.bias_pm)}",
                    f"{100 * one.within_resolution:.1f}",
                    f"{100 * one.within_error:.1f}",
                    f"{one.tightness:.1f}",
                    f"{one.needed:.2f}",
                ]
            )
    head = ["meter", "length", "calls", "wanted, %", "median / p95, %", "bias, %"]
    head += ["in `resolution_j`, %", "in `error_j`, %", "tightness", "needed"]
    return _table(head, rows)


def by_profile_and_load(cells: Sequence[Cell], say: Any) -> str:
    """Return a table of one figure for each machine and load, over calls of all lengths."""
    whole = {(one.profile, one.load): one for one in cells if one.length == ALL}
    profiles = list(dict.fromkeys(profile for profile, _ in whole))
    loads = list(dict.fromkeys(load for _, load in whole))
    rows = [
        [profile, *(say(whole[profile, load]) if (profile, load) in whole else "" for load in loads)]
        for profile in profiles
    ]
    return _table(["machine", *loads], rows)


def inside(one: Cell) -> str:
    """Return which part of the calls has its truth inside `error_j`; bold if that is too few."""
    if one.calls == one.unmetered:
        return "-"
    text = f"{100 * one.within_error:.1f}"
    return f"**{text}**" if is_rare(one) else text


def accuracy(one: Cell) -> str:
    """Return the median error and the median half-width."""
    return "-" if one.calls == one.unmetered else f"{_percent(one.median)} ± {_percent(one.half_width)}"


def by_length(cells: Sequence[Cell]) -> str:
    """Return median and 95th percentile by length of call for the load of the comparison."""
    serving = {(one.profile, one.length): one for one in cells if one.load == COMPARISON_LOAD}
    rows = []
    for profile in dict.fromkeys(profile for profile, _ in serving):
        row = [profile]
        for length in BIN_NAMES:
            one = serving.get((profile, length))
            row.append(f"{_percent(one.median)} / {_percent(one.p95)}" if one is not None else "")
        rows.append(row)
    return _table(["machine", *BIN_NAMES], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(ratio: float, *, sign: bool = False) -> str:
    """Return a ratio in percent with two significant digits, or whole percents above ten."""
    value = 100 * ratio
    digits = 0 if abs(value) >= 9.95 else 1 if abs(value) >= 0.995 else 2
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _rounded(value: Any) -> Any:
    """Return a number with four digits; None for what is not known, as JSON knows no NaN."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if abs(value) < float("inf") else None
