"""The plots of the comparison, as SVG written by hand: pure functions of its results, the same to the last byte."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from benchmarks.peers.tables import (
    BINS,
    GPU,
    GPU_TRUE,
    LABELS,
    LENGTH,
    Results,
    calls_of,
    relative_errors,
)

COLOURS: Mapping[str, str] = {
    "aimeter": "#0b62a4",
    "zeus": "#c2410c",
    "zeus-approximate": "#e08a3c",
    "pyjoules-decorator": "#2f7d32",
    "pyjoules-context": "#74a85a",
    "codecarbon-task": "#6b3fa0",
    "codecarbon-decorator": "#a67fc9",
    "joules": "#8a6d00",
    "codegreen": "#0f766e",
}
_INK, _GRID = "#333333", "#dddddd"
_LEAST, _MOST = 0.0005, 5.0
"""Relative errors beyond these are drawn at the edge."""


class Scale(NamedTuple):
    """A logarithmic axis: values from `low` to `high` lie from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where a value lies, at the edge if it is outside."""
        part = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)


def plots(results: Results) -> dict[str, str]:
    """Return each plot as SVG, by file name."""
    return {
        "peers-error.svg": _error(results),
        "peers-cost.svg": _cost(results),
        "peers-overlap.svg": _overlap(results),
    }


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = _INK, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{more}>{escape(text)}</text>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: float = 1.0, more: str = "") -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}"{more}/>'


def _frame(x: Scale, y: Scale, x_ticks: Mapping[float, str], y_ticks: Mapping[float, str]) -> Iterator[str]:
    for value, label in x_ticks.items():
        yield _line([(x(value), y.start), (x(value), y.end)], _GRID)
        yield _text(x(value), y.start + 16, label, anchor="middle")
    for value, label in y_ticks.items():
        yield _line([(x.start, y(value)), (x.end, y(value))], _GRID)
        yield _text(x.start - 6, y(value) + 4, label, anchor="end")


def _error(results: Results) -> str:
    """Draw each call of each tool as a point, and the medians of the bins."""
    run = results["errors"]["100 ms"]
    tools = [tool for tool in LABELS if run.get(tool)]
    wide, high, across = 290, 220, 3
    parts = [
        _text(
            16,
            20,
            "Error of a call's GPU joules against its length; counter of 100 ms",
            more=' font-size="14"',
        )
    ]
    for place, tool in enumerate(tools):
        left, top = 60 + (place % across) * wide, 60 + (place // across) * high
        x = Scale(0.01, 3.0, left, left + wide - 50)
        y = Scale(_LEAST, _MOST, top + high - 70, top)
        x_ticks = {0.01: "10 ms", 0.1: "100 ms", 1.0: "1 s"}
        parts += _frame(x, y, x_ticks, {0.001: "0.1 %", 0.01: "1 %", 0.1: "10 %", 1.0: "100 %"})
        parts.append(_text(left, top - 8, LABELS[tool].name, fill=COLOURS[tool], more=' font-weight="bold"'))
        for row in run[tool]:
            for off in relative_errors([row], GPU_TRUE, GPU):
                parts.append(
                    f'<circle cx="{x(row[LENGTH]):.1f}" cy="{y(abs(off)):.1f}" r="2.2" fill="{COLOURS[tool]}" '
                    'fill-opacity="0.45"/>'
                )
        for _, low, top_s in BINS:
            errors = relative_errors(calls_of(results, ["100 ms"], tool, low, top_s), GPU_TRUE, GPU)
            if errors:
                middle = y(statistics.median(map(abs, errors)))
                parts.append(_line([(x(low or 0.01), middle), (x(min(top_s, 3.0)), middle)], _INK, 2))
    height = 60 + -(-len(tools) // across) * high
    note = "A point is a call; bars are medians. Points at the upper edge are off by 500 % and more, at the lower by 0.05 % and less."
    parts.append(_text(16, height - 12, note, fill="#666666"))
    return _svg(across * wide + 30, height, "Error against length of call", parts)


def _lines(
    title: str,
    scales: tuple[Scale, Scale],
    ticks: tuple[Mapping[float, str], Mapping[float, str]],
    series: Mapping[str, Sequence[tuple[float, float]]],
    axis: str,
    notes: Mapping[str, str],
) -> str:
    """Draw a line for each tool, with its name and what is to be noted of it at its end."""
    x, y = scales
    parts = [_text(16, 20, title, more=' font-size="14"'), *_frame(x, y, *ticks)]
    parts.append(_text((x.start + x.end) / 2, y.start + 36, axis, anchor="middle"))
    used: list[float] = []
    for tool, values in sorted(series.items(), key=lambda item: item[1][-1][1]):
        points = [(x(a), y(b)) for a, b in values]
        parts.append(_line(points, COLOURS[tool], 2))
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[tool]}"/>' for a, b in points]
        # Names keep apart: from the lowest line up, each at least a line of text above the one before.
        at = min(points[-1][1] + 4, *(other - 14 for other in used)) if used else points[-1][1] + 4
        used.append(at)
        parts.append(_text(x.end + 10, at, LABELS[tool].name + notes.get(tool, ""), fill=COLOURS[tool]))
    return _svg(800, 400, title, parts)


def _cost(results: Results) -> str:
    series = {tool: cost["blocks"] for tool, cost in results["cost"]["1"].items() if cost and cost["blocks"]}
    x, y = Scale(10, 100_000, 70, 580), Scale(1e-7, 0.1, 340, 40)
    x_ticks = {10.0: "10", 100.0: "100", 1000.0: "1,000", 1e4: "10,000", 1e5: "100,000"}
    y_ticks = {1e-6: "1 µs", 1e-5: "10 µs", 1e-4: "100 µs", 1e-3: "1 ms", 1e-2: "10 ms", 0.1: "100 ms"}
    title = "Mean cost of a call against the number of calls made"
    return _lines(title, (x, y), (x_ticks, y_ticks), series, "calls made so far", {})


def _overlap(results: Results) -> str:
    series = {
        tool: [(row["number"], row["ratio"]) for row in rows]
        for tool, rows in results["overlap"].items()
        if rows
    }
    x, y = Scale(1, 64, 70, 580), Scale(0.5, 100, 340, 40)
    x_ticks = {float(2**power): str(2**power) for power in range(7)}
    y_ticks = {0.5: "0.5", 1.0: "1", 2.0: "2", 5.0: "5", 10.0: "10", 20.0: "20", 50.0: "50", 100.0: "100"}
    title = "Sum of the calls' GPU joules over what the GPU drew"
    notes = {
        tool: f" ({rows[-1]['known']} of {rows[-1]['number']} calls)"
        for tool, rows in results["overlap"].items()
        if rows and rows[-1]["known"] < rows[-1]["number"]
    }
    return _lines(title, (x, y), (x_ticks, y_ticks), series, "calls open at once", notes)
