"""What charts of sums show while a page looks at some time only: layers that add up the calls of that time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter.report.charts.base import COLOURS, Spec, joules, text_of, when

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from aimeter.report.digest import Digest, Drawn


def drawn(call: Drawn, name: str) -> Spec:
    """Return a call under a name as a row of a chart."""
    return {
        "name": name,
        "model": text_of(call.model),
        "J": call.energy_j,
        "error": call.error_j or 0.0,
        "from": 1e3 * call.start_s,
        "to": 1e3 * (call.start_s + call.duration_s),
    }


def calls_in_tree(digest: Digest, names: Container[str]) -> list[Spec]:
    """Return the calls that are drawn one by one and are among these names, which say inside of what they are."""
    by_id = {call.call_id: call for call in digest.calls}
    path_of: dict[str, str] = {}
    rows = []
    for call in digest.calls:  # a call mostly begins after the one around it
        around = by_id.get(call.parent_id or "")
        path = text_of(call.name)
        if around is not None:
            if around.call_id not in path_of:
                continue
            path = f"{path_of[around.call_id]} > {text_of(call.name.removeprefix(f'{around.name}.'))}"
        told = f"{path} ({text_of(call.model)})"
        path = told if told in names else path
        if path in names:
            path_of[call.call_id] = path
            if call.energy_j:
                rows.append(drawn(call, path))
    return rows


def mean_of(calls: list[Spec], scale: Spec) -> tuple[Spec, ...]:
    """Return layers with the mean of calls. Its error is at most the mean of theirs, as if all were wrong the same way."""
    mean: list[Spec] = [
        {
            "aggregate": [
                {"op": "mean", "field": "J", "as": "J"},
                {"op": "mean", "field": "error", "as": "error"},
                {"op": "count", "as": "calls"},
            ],
            "groupby": ["name", "model"],
        },
        {"calculate": "max(datum.J - datum.error, datum.J / 100)", "as": "low"},
        {"calculate": "datum.J + datum.error", "as": "high"},
    ]
    tooltip = [{"field": "name"}, joules("J", "J a call", format=".3s"), {"field": "calls"}]
    return (
        {
            "data": {"values": calls},
            "transform": mean,
            "mark": {"type": "rule", "strokeWidth": 2, "color": COLOURS[0]},
            "encoding": {
                "x": joules("low", "J a call", scale=scale),
                "x2": {"field": "high"},
                "tooltip": tooltip,
            },
        },
        {
            "data": {"values": calls},
            "transform": mean,
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {"x": joules("J", "J a call"), "tooltip": tooltip},
        },
    )


def each_of(calls: list[Spec]) -> tuple[Spec, ...]:
    """Return a layer with each call."""
    tooltip = [{"field": "name"}, joules("J", "energy, J", format=".3s"), when("from")]
    return (
        {
            "data": {"values": calls},
            "mark": {"type": "point", "size": 50},
            "encoding": {"x": joules("J", "J a call"), "tooltip": tooltip},
        },
    )


def devices_of(digest: Digest, names: Mapping[str, str]) -> tuple[Spec, ...]:
    """Return a layer with what devices took, by the names that they are shown under."""
    rows: list[Spec] = [
        {
            "device": names[device],
            "J": watts * (stretch.end_s - stretch.begin_s),
            "from": 1e3 * stretch.begin_s,
            "to": 1e3 * stretch.end_s,
        }
        for stretch in digest.power
        for device, watts in stretch.values.items()
        if watts and device in names
    ]
    tooltip = [{"field": "device"}, joules("J", "energy, J", format=".3s")]
    return (
        {
            "data": {"values": rows},
            "transform": [{"aggregate": [{"op": "sum", "field": "J", "as": "J"}], "groupby": ["device"]}],
            "mark": {"type": "bar", "size": 14},
            "encoding": {"x": joules("J", "J", stack=None), "tooltip": tooltip},
        },
    )
