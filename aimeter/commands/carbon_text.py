"""Carbon's results as lines of text, the same in a terminal and a pipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch

from aimeter._support.units import UNKNOWN, quantity
from aimeter.carbon.equivalents import Comparison
from aimeter.commands.best import Best
from aimeter.commands.compare import WhatIf
from aimeter.commands.refill import Refill
from aimeter.commands.region import Shown
from aimeter.commands.report import unread
from aimeter.commands.sci import Score


def columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines with aligned columns; the last one is as long as it is."""
    listed = list(rows)
    if not listed:
        return
    widths = [max(len(row[place]) for row in listed) for place in range(len(listed[0]) - 1)]
    for row in listed:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def _number(value: float | None) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.4g}"


@singledispatch
def lines(result: object) -> Iterator[str]:
    """Yield a result as lines of text."""
    raise TypeError(result)


@lines.register
def _(result: WhatIf) -> Iterator[str]:
    yield f"{quantity(result.energy_j, 'J')} in {result.rows} rows, each joule counted once"
    if result.unknown:
        yield f"{result.unknown} rows have no energy and are left out"
    yield ""
    yield from columns(
        [
            ("place", "zone", "g/kWh", "grams", "ratio", "year", "what it is"),
            *(
                (
                    one.place,
                    one.zone or "",
                    _number(one.g_per_kwh),
                    quantity(one.co2e_g, "g", largest=3),
                    "" if one.ratio is None or not math.isfinite(one.ratio) else f"{one.ratio:.2f}",
                    "" if one.year is None else str(one.year),
                    one.method or one.source or "",
                )
                for one in result.places
            ),
        ]
    )
    yield from _warned(result.warnings)


@lines.register
def _(result: Shown) -> Iterator[str]:
    found = result.intensity
    yield f"{result.name} ({result.zone})"
    yield f"  {_number(found.g_per_kwh)} g CO2e/kWh, {found.year or 'year not stated'}"
    yield f"  source: {found.source}"
    yield f"  method: {found.method}"
    if result.neighbours:
        yield "Neighbours"
        yield from columns(
            (
                f"  {one.zone.code}",
                one.zone.name,
                _number(one.intensity.g_per_kwh),
                str(one.intensity.year or ""),
                ";".join(one.intensity.method.split(";")[2:4]),
            )
            for one in result.neighbours
        )
    if result.published:
        yield "Other numbers published for it"
        yield from columns(
            (f"  {one.g_per_kwh:g}", str(one.year or "no year"), one.kind, one.source)
            for one in result.published
        )


@lines.register
def _(result: Best) -> Iterator[str]:
    yield f"{result.provider} for {result.zone}: {result.source}"
    yield f"  {result.method}"
    yield f"  now: {_number(result.now_g_per_kwh)} g/kWh"
    if not result.windows:
        yield "  no stretch of that length is covered by the forecast"
        return
    yield from columns(
        [
            ("  from", "to", "g/kWh", "of now"),
            *(
                (
                    f"  {one.start}",
                    one.end,
                    _number(one.g_per_kwh),
                    "" if one.ratio is None else f"{one.ratio:.0%}",
                )
                for one in result.windows
            ),
        ]
    )


@lines.register
def _(result: Refill) -> Iterator[str]:
    yield f"{result.path}: {result.rows} rows; {result.filled} of {result.waiting} that waited are complete"
    if result.filled:
        before, after = (quantity(grams, "g", largest=3) for grams in (result.before_g, result.after_g))
        yield f"  their grams: {before} before, {after} now"
    if result.skipped:
        yield f"  {unread(result.skipped)}, and are not in the new file"
    for problem in result.problems:
        yield f"  {problem}"


@lines.register
def _(result: Score) -> Iterator[str]:
    span = ""
    if result.m_g is not None:
        span = f" ({quantity(result.sci_lower_g, 'g', largest=3)} to {quantity(result.sci_upper_g, 'g', largest=3)})"
    yield f"SCI = (E * I + M) / R = {quantity(result.sci_g, 'g', largest=3)} CO2e per {_one(result.unit)}{span}"
    yield ""
    pue = f"PUE {result.pue[0]:g}"
    if result.pue[0] != result.pue[1]:
        pue += f" to {result.pue[1]:g}"
    m_text = "not given"
    if result.m_g is not None and result.m_lower_g is not None and result.m_upper_g is not None:
        m_text = f"{result.m_g:.6g} g, {result.m_lower_g:.6g} to {result.m_upper_g:.6g} ({result.m_source})"
    yield from columns(
        [
            ("  E", f"{result.e_kwh:.6g} kWh, {pue}"),
            ("  I", f"{result.i_g_per_kwh:.6g} g CO2e/kWh ({' / '.join(result.methods)})"),
            ("  O = E * I", f"{result.o_g:.6g} g"),
            ("  M", m_text),
            ("  R", f"{result.r:.6g} {result.unit}, in {result.rows} rows"),
            ("  boundary", result.boundary),
        ]
    )
    yield from _warned(result.warnings)


def compared(energy: Sequence[Comparison], grams: Sequence[Comparison]) -> Iterator[str]:
    """Yield equivalents: energy with energy, grams with grams."""
    for title, found in (("energy", energy), ("CO2e", grams)):
        if found:
            yield f"As {title}"
            yield from (f"  {one}" for one in found)


def _one(unit: str) -> str:
    known = {"items": "item", "images": "image", "steps": "step", "audio_s": "second of audio"}
    return known.get(unit, {"tokens_in": "input token", "tokens_out": "output token"}.get(unit, unit))


def _warned(warnings: Sequence[str]) -> Iterator[str]:
    if warnings:
        yield ""
        yield from (f"  note: {one}" for one in warnings)
