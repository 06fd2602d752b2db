"""Charts by name: what a call takes, what a unit does, how calls differ, and what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter._support.units import quantity
from aimeter.report.charts.base import (
    COLOURS,
    MOST_NAMES,
    ROW_PX,
    Chart,
    Spec,
    height_of,
    joules,
    log_scale,
    names_on,
    text_of,
)
from aimeter.report.charts.during import calls_in_tree, devices_of, drawn, each_of, mean_of
from aimeter.report.summary import UNIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aimeter.report.digest import Digest
    from aimeter.report.summary import SummaryRow


def _lines(rows: Iterable[SummaryRow], around: str = "") -> Iterator[tuple[str, SummaryRow]]:
    """Yield the rows of a tree with their names in full."""
    for row in rows:
        name = f"{around}{text_of(row.name)}" + (f" ({text_of(row.model)})" if row.model else "")
        yield name, row
        yield from _lines(row.parts, f"{name} > ")


def _first_lines(digest: Digest) -> list[tuple[str, SummaryRow]]:
    return list(_lines(digest.summary.tree))[:MOST_NAMES]


def per_call(digest: Digest) -> Chart | None:
    """Draw the mean energy of a call with its error."""
    rows: list[Spec] = [
        {
            "name": name,
            "model": row.model or "",
            "J": row.per_call_j,
            "low": max(row.per_call_j - (row.per_call_error_j or 0.0), row.per_call_j / 100),
            "high": row.per_call_j + (row.per_call_error_j or 0.0),
            "told": quantity(row.per_call_j, "J", row.per_call_error_j),
            "calls": row.calls,
        }
        for name, row in _first_lines(digest)
        if row.per_call_j is not None and row.per_call_j > 0
    ]
    if not rows:
        return None
    calls = calls_in_tree(digest, {row["name"] for row in rows})
    least = min([row["low"] for row in rows] + [call["J"] for call in calls])
    most = max([row["high"] for row in rows] + [call["J"] + call["error"] for call in calls])
    scale = log_scale(least, most)
    tooltip = [{"field": "name"}, {"field": "told", "title": "a call"}, {"field": "calls"}]
    return Chart(
        "per-call",
        "Energy a call",
        "Mean joules of a call by name, with the 95 % interval of the measurement; each step of the scale is a factor.",
        {
            "data": {"values": rows},
            "height": height_of(rows),
            "encoding": {"y": names_on()},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeWidth": 2, "color": COLOURS[0]},
                    "encoding": {
                        "x": joules("low", "J a call", scale=scale),
                        "x2": {"field": "high"},
                        "tooltip": tooltip,
                    },
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 70},
                    "encoding": {"x": joules("J", "J a call"), "tooltip": tooltip},
                },
            ],
        },
        named=True,
        during=mean_of(calls, scale),
    )


def per_unit(digest: Digest) -> Chart | None:
    """Draw joules a unit."""
    rows: list[Spec] = [
        {
            "name": name,
            "model": row.model or "",
            "unit": UNIT_NAMES[unit],
            "J": unit_j,
            "told": quantity(unit_j, "J"),
        }
        for name, row in _first_lines(digest)
        for unit, unit_j in row.per_unit_j.items()
        if unit_j > 0
    ]
    if not rows:
        return None
    each_j = [row["J"] for row in rows]
    return Chart(
        "per-unit",
        "Joules a unit",
        "What one item, image, step, second of audio or token took, where the calls counted them.",
        {
            "data": {"values": rows},
            "height": ROW_PX * len(rows),
            "transform": [{"calculate": "datum.name + ', J/' + datum.unit", "as": "line"}],
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {
                "y": names_on("line", sort="x"),
                "x": joules("J", "J a unit", scale=log_scale(min(each_j), max(each_j))),
                "color": {"field": "unit", "type": "nominal", "title": "unit"},
                "tooltip": [{"field": "line", "title": "of"}, {"field": "told", "title": "energy"}],
            },
        },
        named=True,
    )


def distribution(digest: Digest) -> Chart | None:
    """Draw how the calls of one name differ."""
    known = [spread for spread in digest.spreads if spread.quantiles_j[2] > 0]
    known.sort(key=lambda spread: -spread.calls * spread.quantiles_j[2])
    rows: list[Spec] = [
        {
            "name": text_of(spread.name),
            "model": text_of(spread.model),
            **dict(
                zip(
                    ("p5", "p25", "p50", "p75", "p95"),
                    (max(one, floor) for one in spread.quantiles_j),
                    strict=True,
                )
            ),
            "calls": spread.calls,
            "told": f"{quantity(spread.quantiles_j[0], 'J')} to {quantity(spread.quantiles_j[4], 'J')}",
        }
        for spread in known[:MOST_NAMES]
        for floor in (spread.quantiles_j[2] / 1000,)
    ]
    if not rows:
        return None
    names = {row["name"] for row in rows}
    above = {spread.name: spread.quantiles_j[4] for spread in known[:MOST_NAMES]}
    outliers: list[Spec] = [
        {
            "name": text_of(call.name),
            "model": text_of(call.model),
            "J": call.energy_j,
            "told": quantity(call.energy_j, "J", call.error_j),
            "call": call.call_id,
        }
        for call in digest.costliest
        if call.energy_j and text_of(call.name) in names and call.energy_j > above.get(call.name, 0.0)
    ]
    calls = [
        drawn(call, text_of(call.name))
        for call in digest.calls
        if call.energy_j and text_of(call.name) in names
    ]
    singles = [one["J"] for one in (*outliers, *calls)]
    scale = log_scale(min([row["p5"] for row in rows] + singles), max([row["p95"] for row in rows] + singles))
    tooltip = [{"field": "name"}, {"field": "told", "title": "90 % of calls"}, {"field": "calls"}]
    return Chart(
        "distribution",
        "How calls of one name differ",
        "Joules of single calls: the thick bar holds the middle half, the thin one 90 %, the mark halves them; rings are the costliest calls.",
        {
            "height": height_of(rows),
            "encoding": {"y": names_on()},
            "layer": [
                {
                    "data": {"values": rows},
                    "mark": {"type": "rule", "strokeWidth": width, "color": COLOURS[0]},
                    "encoding": {
                        "x": joules(low, "J a call", scale=scale),
                        "x2": {"field": high},
                        "tooltip": tooltip,
                    },
                }
                for low, high, width in (("p5", "p95", 2), ("p25", "p75", 9))
            ]
            + [
                {
                    "data": {"values": rows},
                    "mark": {"type": "tick", "color": COLOURS[5], "thickness": 3, "size": 13},
                    "encoding": {"x": joules("p50", "J a call"), "tooltip": tooltip},
                },
                {
                    "data": {"values": outliers},
                    "mark": {"type": "point", "size": 50},
                    "encoding": {
                        "x": joules("J", "J a call"),
                        "tooltip": [
                            {"field": "name"},
                            {"field": "told", "title": "energy"},
                            {"field": "call"},
                        ],
                    },
                },
            ],
        },
        named=True,
        during=each_of(calls),
    )


def parts(digest: Digest) -> Chart | None:
    """Draw the share of each part in the calls around it."""
    rows: list[Spec] = []
    for name, row in _first_lines(digest):
        if not row.parts or not row.energy_j:
            continue
        parts = [(text_of(part.name), part.energy_j or 0.0) for part in row.parts]
        rows += [
            {
                "name": name,
                "part": part,
                "J": part_j,
                "told": quantity(part_j, "J"),
                "share": part_j / row.energy_j,
            }
            for part, part_j in [*parts, ("self", row.self_j or 0.0)]
            if part_j > 0
        ]
    if not rows:
        return None
    return Chart(
        "parts",
        "What calls are made of",
        "The share of each part in the energy of the calls around it: prefill and decode, encoder, denoiser and decoder.",
        {
            "data": {"values": rows},
            "height": height_of(rows),
            "mark": {"type": "bar", "size": 14},
            "encoding": {
                "y": names_on(),
                "x": joules("share", "share", axis={"format": "%"}, scale={"domain": [0, 1], "clamp": True}),
                "color": {"field": "part", "type": "nominal", "title": "part"},
                "tooltip": [
                    {"field": "name"},
                    {"field": "part"},
                    {"field": "told", "title": "energy"},
                    joules("share", "share", format=".0%"),
                ],
            },
        },
        named=True,
    )


def devices(digest: Digest) -> Chart | None:
    """Draw the energy of each device."""
    total = sum(device.energy_j for device in digest.devices)
    if not total > 0:
        return None
    rows: list[Spec] = [
        {
            "device": text_of(f"{device.name} ({device.method})" if device.method else device.name),
            "J": device.energy_j,
            "told": quantity(device.energy_j, "J"),
            "share": device.energy_j / total,
        }
        for device in digest.devices[:MOST_NAMES]
    ]
    shown = {device.name: row["device"] for device, row in zip(digest.devices, rows, strict=False)}
    # Told, as what has no bar has no greatest.
    scale = {"domain": [0.0, max(row["J"] for row in rows)]}
    idle = ""
    if digest.idle_j is not None:
        idle = f" Of it all, {quantity(digest.idle_j, 'J')} ({digest.idle_j / total:.0%}) would have been drawn anyway."
    return Chart(
        "devices",
        "Energy by device",
        f"What calls used of each device, and how it was measured.{idle}",
        {
            "data": {"values": rows},
            "height": height_of(rows, "device"),
            "encoding": {"y": names_on("device")},
            "layer": [
                {
                    "mark": {"type": "bar", "size": 14},
                    "encoding": {
                        "x": joules("J", "J", stack=None, scale=scale),
                        "tooltip": [
                            {"field": "device"},
                            {"field": "told", "title": "energy"},
                            joules("share", "share", format=".0%"),
                        ],
                    },
                }
            ],
        },
        during=devices_of(digest, shown),
    )
