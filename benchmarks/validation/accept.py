"""The bounds that the results must keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .score import ALL, BIN_NAMES, Cell

WANTED_INSIDE = 0.95
"""Part of the calls whose truth must lie inside `error_j`."""

CHANCE = 1e-3
"""A cell of few calls breaks that only if so few inside are less likely than this."""

WANTED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "GPU": dict(zip(BIN_NAMES, ((0.08, 0.35), (0.02, 0.08), (0.006, 0.025), (0.002, 0.006)), strict=True)),
    "GPU, counter of 20 ms": dict(
        zip(BIN_NAMES, ((0.016, 0.07), (0.004, 0.016), (0.0012, 0.005), (0.0004, 0.0012)), strict=True)
    ),
    "CPU": dict(zip(BIN_NAMES, ((0.02, 0.1), (0.004, 0.015), (0.0015, 0.005), (0.0004, 0.001)), strict=True)),
}
"""Wanted median and 95th percentile of the error under the conditions of the comparison: see the page."""

WANTED_BIAS = {"GPU": 0.01, "GPU, counter of 20 ms": 0.01, "CPU": 0.005}
"""Wanted bound of the bias of calls under 1 s."""

CONDITIONS = {"GPU": "H100", "GPU, counter of 20 ms": "H100, counter of 20 ms", "CPU": "RAPL of Intel"}
"""The profiles of the comparison; its load is `COMPARISON_LOAD`."""

COMPARISON_LOAD = "serving"
MOST_TIGHTNESS = 3.0
MOST_UNBALANCED = 1e-3


def chance_of(inside: int, calls: int) -> float:
    """Return how likely at most `inside` of `calls` are inside, if each is with `WANTED_INSIDE`."""
    yes, no = math.log(WANTED_INSIDE), math.log(1 - WANTED_INSIDE)
    ways = math.lgamma(calls + 1)
    return sum(
        math.exp(ways - math.lgamma(k + 1) - math.lgamma(calls - k + 1) + k * yes + (calls - k) * no)
        for k in range(inside + 1)
    )


def faults(cells: Iterable[Cell], balance: Mapping[tuple[str, str], float]) -> list[str]:
    """Return a line for each bound that is broken."""
    cells = list(cells)
    lines = [
        line
        for profile in dict.fromkeys(one.profile for one in cells)
        for line in outside(profile, cells) + unresolved(profile, cells)
    ]
    for kind in CONDITIONS:
        lines += errors(kind, cells) + widths(kind, cells)
    return lines + unbalanced(balance)


def uncovered(cells: Iterable[Cell]) -> list[Cell]:
    """Return the loads and lengths that break the bound of coverage."""
    return [one for one in cells if is_rare(one)]


def unbalanced(balance: Mapping[tuple[str, str], float]) -> list[str]:
    """Return which runs on machines with counters do not add up to them."""
    return [
        f"{profile}, {load}: the shares of a run are off its counter by {100 * off:.2f} %"
        for (profile, load), off in balance.items()
        if "no counter" not in profile and "without" not in profile and "average" not in profile
        if abs(off) > MOST_UNBALANCED
    ]


def outside(profile: str, cells: Iterable[Cell]) -> list[str]:
    """Return in which loads, or lengths of call, too few truths lie inside `error_j`."""
    own = [one for one in cells if one.profile == profile and is_rare(one)]
    whole = {one.load for one in own if one.length == ALL}
    named = [
        f"{one.load if one.length == ALL else f'{one.load} {one.length}'} ({100 * one.within_error:.0f} %)"
        for one in own
        if one.length == ALL or one.load not in whole
    ]
    if not named:
        return []
    return [f"{profile}: too few truths inside `error_j` in {', '.join(named)}"]


def unresolved(profile: str, cells: Iterable[Cell]) -> list[str]:
    """Return in which loads too few truths, by the sensor's own scale, lie inside `resolution_j`."""
    named = [
        f"{one.load} ({100 * one.within_resolution:.0f} %)"
        for one in cells
        if one.profile == profile and one.length == ALL and is_rare(one, one.within_resolution)
    ]
    return [f"{profile}: too few truths inside `resolution_j` in {', '.join(named)}"] if named else []


def is_rare(one: Cell, inside: float | None = None) -> bool:
    """Return whether the truth lies inside `error_j`, or in the part given, in too few calls to be chance."""
    count = known(one)
    part = one.within_error if inside is None else inside
    return count > 0 and chance_of(round(part * count), count) < CHANCE


def known(one: Cell) -> int:
    """Return how many calls of a cell were metered."""
    return one.calls - one.unmetered


def errors(kind: str, cells: Iterable[Cell]) -> list[str]:
    """Return which errors and biases are not as wanted under the conditions of the comparison."""
    lines = []
    for one in compared(kind, cells):
        median, p95 = WANTED[kind][one.length]
        if one.median > median or one.p95 > p95:
            error, wanted = (
                f"{100 * one.median:.2f} / {100 * one.p95:.2f}",
                f"{100 * median:g} / {100 * p95:g}",
            )
            lines.append(f"{one.profile}, {one.load}, {one.length}: {error} %, wanted {wanted} %")
        if one.length != BIN_NAMES[-1] and abs(one.bias) > WANTED_BIAS[kind] + one.bias_pm:
            bias = f"{100 * one.bias:+.2f} ± {100 * one.bias_pm:.2f}"
            lines.append(f"{one.profile}, {one.load}, {one.length}: a bias of {bias} %")
    return lines


def widths(kind: str, cells: Iterable[Cell]) -> list[str]:
    """Return where bars are wider than wanted under the conditions of the comparison."""
    wide = [one for one in compared(kind, cells) if one.tightness > MOST_TIGHTNESS]
    named = ", ".join(f"{one.length} ({one.tightness:.1f})" for one in wide)
    return [f"{CONDITIONS[kind]}, {COMPARISON_LOAD}: too high a tightness in {named}"] if wide else []


def compared(kind: str, cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells of the comparison."""
    return [
        one
        for one in cells
        if one.profile == CONDITIONS[kind] and one.load == COMPARISON_LOAD and one.length != ALL
    ]
