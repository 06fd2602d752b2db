"""What all charts of a report share: what a chart is, how it is drawn, and pieces of its description.

A chart is a description in Vega-Lite (https://vega.github.io/vega-lite/), which an engine draws. Text from a log is data
of a chart, never part of its description. Colours are those of Okabe and Ito, which people who see fewer colours tell
apart (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aimeter._support.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""Names the language; nothing is loaded from there."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

MOST_NAMES = 30
ROW_PX = 22

_SECONDS, _DAYS = 10.0, 2 * 86400.0


SEARCH = "wanted"
"""The parameter of a page's charts that holds what is looked for in names and models, in lower case."""


SPAN = "span"
"""The parameter that holds from when to when calls are looked for, in milliseconds since 1970; null for all of them."""

BRUSH = "brush"
"""The parameter of the chart over which one drags to choose that time."""

IN_SPAN: Spec = {"filter": f"{SPAN} != null && datum.to >= {SPAN}[0] && datum.from <= {SPAN}[1]"}
"""Leaves what happens in the time that is looked at."""


class Chart(NamedTuple):
    """A chart and what is said of it.

    Attributes:
        key: Names it in a page.
        title: Its title.
        words: What it shows, for those who do not see it, and how to read it.
        spec: Its description in Vega-Lite, without size and colours of the page.
        named: Whether its rows bear names, by which a page filters them.
        timed: Whether its rows bear times, likewise.
        during: For a chart of sums: layers that a page shows instead of the chart's while it looks at some time only.
    """

    key: str
    title: str
    words: str
    spec: Spec
    named: bool = False
    timed: bool = False
    during: tuple[Spec, ...] = ()


_NARROW = "containerSize()[0] < 500"
"""Whether the page is on a phone."""

_INNERMOST = "(length(split(datum.label, ' > ')) > 1 ? '> ' : '') + peek(split(datum.label, ' > '))"


def names_on(field: str = "name", sort: str | None = None) -> Spec:
    """Return an axis of names. On a phone it leaves out what is around a part, which stands above it mostly."""
    axis = {
        "labelLimit": {"expr": f"{_NARROW} ? 150 : 260"},
        "labelExpr": f"{_NARROW} ? {_INNERMOST} : datum.label",
    }
    return {"field": field, "type": "nominal", "sort": sort, "title": None, "axis": axis}


def height_of(rows: Iterable[Spec], field: str = "name") -> int:
    """Return how high a chart is with a line for each name in its rows, in pixels."""
    return ROW_PX * len({row[field] for row in rows})


def joules(field: str, title: str, **more: object) -> Spec:
    """Return how a quantity is drawn."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def text_of(name: str) -> str:
    """Return text from a log as it is shown."""
    return printable(name)[:80]


def log_scale(least: float, most: float) -> Spec:
    """Return a scale on which each step is a factor."""
    return {"type": "log", "domain": [least / 1.5, most * 1.5]}


def moment(field: str, span_s: float, **more: object) -> Spec:
    """Return how a time is drawn, in UTC, on an axis of that length."""
    axis = "%H:%M:%S.%L" if span_s < _SECONDS else "%H:%M:%S" if span_s < _DAYS else "%Y-%m-%d %H:%M"
    return {
        "field": field,
        "type": "temporal",
        "title": None,
        "scale": {"type": "utc"},
        "axis": {"format": axis, "labelOverlap": "greedy", "tickCount": 6},
        **more,
    }


def when(field: str) -> Spec:
    """Return how a time is told beside the pointer."""
    return {
        "field": field,
        "type": "temporal",
        "format": "%Y-%m-%d %H:%M:%S.%L",
        "formatType": "utc",
        "title": "from",
    }


def drawn_at(chart: Chart, width: int = 0, *, ink: str = "currentColor", titled: bool = False) -> Spec:
    """Return a chart's description at a width in pixels, or as wide as the page, in the ink of its surroundings."""
    spec = {
        "$schema": SCHEMA,
        "description": f"{chart.title}. {chart.words}",
        "width": width or "container",
        "background": "transparent",
        **chart.spec,
        "config": config(ink),
    }
    if titled:
        spec["title"] = {"text": chart.title, "subtitle": chart.words}
    else:
        _filter(spec, chart)
    return spec


def _filter(spec: Spec, chart: Chart) -> None:
    """Have a chart obey a page's parameters."""
    spec["params"] = [*spec.get("params", ()), {"name": SEARCH, "value": ""}, {"name": SPAN, "value": None}]
    first: list[Spec] = []
    if chart.named:
        first.append({"filter": f"indexof(lower(datum.name + ' ' + (datum.model || '')), {SEARCH}) >= 0"})
    if chart.timed:
        first.append({"filter": f"{SPAN} == null || ({IN_SPAN['filter']})"})
    if not chart.during:
        spec["transform"] = [*first, *spec.get("transform", ())]
        return
    whole = [*first, {"filter": f"{SPAN} == null"}]
    # A layer with data of its own has not the transforms of what is around it.
    spec["layer"] = [
        {**layer, "transform": [*before, *layer.get("transform", ())]}
        for layers, before in ((spec["layer"], whole), (chart.during, [*first, IN_SPAN]))
        for layer in layers
    ]


def config(ink: str, colours: Sequence[str] = COLOURS) -> Spec:
    """Return what all charts look like."""
    return {
        "font": "system-ui, sans-serif",
        "range": {"category": list(colours)},
        "mark": {"color": colours[0]},
        "view": {"stroke": None},
        "axis": {
            "labelColor": ink,
            "titleColor": ink,
            "tickColor": ink,
            "domainColor": ink,
            "gridColor": "#80808040",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "labelSeparation": 5,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "orient": "bottom",
            "columns": {"expr": f"{_NARROW} ? 2 : 4"},
            "labelLimit": 220,
        },
        "title": {"color": ink, "subtitleColor": ink, "anchor": "start", "fontSize": 15},
    }
