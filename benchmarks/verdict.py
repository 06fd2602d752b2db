"""Findings of a run: what was measured beside what is wanted, and when that is a failure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

FAR_OFF = 2.0
"""A figure that misses its target by more than this factor fails the run; machines are noisy below that."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One measured figure.

    Attributes:
        what: What was measured.
        figure: The figure.
        unit: Its unit.
        at_most: The greatest value wanted, if any.
        at_least: The least value wanted, if any.
        note: What a reader should know beside the figure.
    """

    what: str
    figure: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def excess(self) -> float:
        """By which factor the target is missed: 1 or less is met."""
        if self.at_most is not None:
            return self.figure / self.at_most if self.at_most else float(self.figure > 0) * (FAR_OFF + 1)
        if self.at_least is not None:
            return self.at_least / self.figure if self.figure else float("inf")
        return 0.0

    @property
    def wanted(self) -> str:
        """The target in words."""
        if self.at_most is not None:
            return f"at most {_number(self.at_most)} {self.unit}".strip()
        if self.at_least is not None:
            return f"at least {_number(self.at_least)} {self.unit}".strip()
        return ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``far off``, or nothing where no target is set."""
        if not self.wanted:
            return ""
        if self.excess <= 1:
            return "met"
        return "missed" if self.excess <= FAR_OFF else "far off"


REFERENCE_BARE_S = 180e-9
"""What a bare context manager with two timestamps costs on an ordinary server core with Python 3.11."""


class Bare:
    """The least that can measure a duration."""

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.end = time.perf_counter()


def slowness() -> float:
    """Return how many times slower this machine runs Python than an ordinary one, by the bare context manager.

    Targets such as 20,000 calls a second are of an ordinary machine; a slow virtual one is held to its share of them.
    """

    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            with Bare():
                pass
        best = min(best, (time.perf_counter() - began) / 1000)
    return max(best / REFERENCE_BARE_S, 1.0)


def table(findings: list[Finding]) -> list[str]:
    """Return the findings as lines of text."""
    rows = [
        (one.what, f"{_number(one.figure)} {one.unit}".strip(), one.wanted, one.verdict, one.note)
        for one in findings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
