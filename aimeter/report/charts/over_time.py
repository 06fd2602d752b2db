"""Charts over time: power by device, calls, and carbon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter._support.units import prefix, quantity
from aimeter.report.charts.base import BRUSH, COLOURS, Chart, Spec, joules, moment, text_of, when
from aimeter.report.digest import lanes

if TYPE_CHECKING:
    from aimeter.report.digest import Digest

_BRUSH = {"name": BRUSH, "select": {"type": "interval", "encodings": ["x"]}}


def power(digest: Digest) -> Chart | None:
    """Draw power over time, device on device."""
    rows: list[Spec] = []
    for stretch in digest.power:
        below = 0.0
        for device, watts in stretch.values.items():
            if watts:
                rows.append(
                    {
                        "from": 1e3 * stretch.begin_s,
                        "to": 1e3 * stretch.end_s,
                        "device": text_of(device),
                        "below": below,
                        "above": below + watts,
                        "W": quantity(watts, "W"),
                    }
                )
                below += watts
    if not rows:
        return None
    return Chart(
        "power",
        "Power over time",
        "Mean watts that calls used, by device; what a device drew while no call was open is in no row.",
        {
            "data": {"values": rows},
            "height": 180,
            "params": [_BRUSH],
            "mark": {"type": "rect", "clip": True},
            "encoding": {
                "x": moment("from", _span_s(digest)),
                "x2": {"field": "to"},
                "y": joules("below", "W"),
                "y2": {"field": "above"},
                "color": {"field": "device", "type": "nominal", "title": "device"},
                "tooltip": [when("from"), {"field": "device"}, {"field": "W", "title": "power"}],
            },
        },
    )


def _span_s(digest: Digest) -> float:
    return 0.0 if digest.begin_s is None or digest.end_s is None else digest.end_s - digest.begin_s


def timeline(digest: Digest) -> Chart | None:
    """Draw calls over time."""
    rows: list[Spec] = [
        {
            "name": text_of(call.name),
            "model": text_of(call.model),
            "from": 1e3 * call.start_s,
            "to": 1e3 * (call.start_s + max(call.duration_s, 1e-6)),
            "lane": lane,
            "J": quantity(call.energy_j, "J", call.error_j),
            "took": quantity(call.duration_s, "s", largest=0),
            "status": call.status,
            "in": text_of(call.place),
        }
        for call, lane in lanes(digest.calls)
    ]
    if not rows:
        return None
    height = 14 * (1 + max(row["lane"] for row in rows))
    words = (
        "Each call, nested ones under the calls around them."
        if digest.complete
        else (
            f"{len(rows):,} of {_calls(digest):,} calls, drawn by chance, nested ones under the calls around them."
        )
    )
    return Chart(
        "timeline",
        "Calls over time",
        words,
        {
            "data": {"values": rows},
            "height": min(max(height, 60), 400),
            "mark": {
                "type": "bar",
                "clip": True,
                "cornerRadius": 2,
                "stroke": "#80808080",
                "strokeWidth": 0.5,
            },
            "encoding": {
                "x": moment("from", _span_s(digest)),
                "x2": {"field": "to"},
                "y": {"field": "lane", "type": "ordinal", "axis": None},
                "color": {"field": "name", "type": "nominal", "title": "call"},
                "tooltip": [{"field": one} for one in ("name", "model", "J", "took", "status", "in")],
            },
        },
        named=True,
        timed=True,
    )


def _calls(digest: Digest) -> int:
    return sum(row.calls for row in digest.summary.rows)


def carbon(digest: Digest) -> Chart | None:
    """Draw grams and intensity over time."""
    known = [
        (stretch, (stretch.values["co2e_g"] or 0.0) / (stretch.end_s - stretch.begin_s) * 3600)
        for stretch in digest.carbon
    ]
    if not known:
        return None
    exponent = prefix(max(grams for _, grams in known), largest=3)
    title = f"{exponent.text}g CO2e an hour"
    rows: list[Spec] = [
        {
            "from": 1e3 * stretch.begin_s,
            "to": 1e3 * stretch.end_s,
            "none": 0,
            "rate": grams / exponent.factor,
            "g_per_kwh": stretch.values["g_per_kwh"],
        }
        for stretch, grams in known
    ]
    return Chart(
        "carbon",
        "Carbon over time",
        "CO2 equivalent that calls caused (bars), and the intensity of the electricity that they ran on (line).",
        {
            "data": {"values": rows},
            "height": 140,
            "encoding": {"x": moment("from", _span_s(digest))},
            "layer": [
                {
                    "mark": {"type": "rect", "clip": True, "color": COLOURS[2]},
                    "encoding": {
                        "x2": {"field": "to"},
                        "y": joules("none", title),
                        "y2": {"field": "rate"},
                        "tooltip": [
                            when("from"),
                            joules("rate", title, format=".3g"),
                            joules("g_per_kwh", "g/kWh", format=".3g"),
                        ],
                    },
                },
                {
                    "mark": {
                        "type": "line",
                        "interpolate": "step-after",
                        "color": COLOURS[5],
                        "strokeWidth": 2,
                    },
                    "encoding": {"y": joules("g_per_kwh", "g/kWh", scale={"zero": True})},
                },
            ],
            "resolve": {"scale": {"y": "independent"}},
        },
        timed=True,
    )
