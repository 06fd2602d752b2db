"""A report as one page of HTML that needs no network and no other file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from typing import TYPE_CHECKING

from aimeter._support.system import cache_folder
from aimeter._support.units import duration, printable, quantity
from aimeter._version import __version__
from aimeter.report.charts import charts
from aimeter.report.charts.base import BRUSH, SEARCH, SPAN, drawn_at
from aimeter.report.picture import engine
from aimeter.report.trust import trust_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from aimeter.report.charts.base import Chart
    from aimeter.report.digest import Digest, Drawn

_HOW = {
    "counter": "its own energy counter",
    "power": "the power that it reports, added up",
    "estimate": "an estimate from how busy it was",
    "none": "nothing",
}

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""Has a browser load nothing from anywhere, and compile no text as a program, whatever a log holds."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --soft: #f3f4f6; --line: #d0d4da; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #15181c; --soft: #21262d; --line: #3a414a; } }
body { margin: 0 auto; padding: 1rem; max-width: 66rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2rem 0 .3rem; }
p { max-width: 48rem; margin: .3rem 0 .8rem; }
.figures, .meters { display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; list-style: none; }
.figures li, .meters li { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .8rem; }
.figures b { display: block; font-size: 1.25rem; }
.wide { overflow-x: auto; } .chart { width: 100%; min-height: 4rem; color: var(--ink); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; white-space: pre; border-bottom: 1px solid var(--line); }
fieldset { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin: 1rem 0; padding: .6rem .8rem;
  border: 1px solid var(--line); border-radius: .5rem; } fieldset p { flex-basis: 100%; margin: 0; }
label, input { display: block; } input, button { font: inherit; padding: .3rem .5rem; box-sizing: border-box; width: 14rem;
  max-width: 100%; } button { width: auto; }
small, footer { opacity: .8; } #vg-tooltip-element { font-family: inherit; }
@media print { body { max-width: none; } fieldset { display: none; } section { break-inside: avoid; } }
"""

_SCRIPT = """
const charts = JSON.parse(document.getElementById("charts").textContent);
const views = [];
const put = (name, value, but) => {
  for (const view of views)
    if (view !== but) try { view.signal(name, value).runAsync(); } catch { /* it has not that parameter */ }
};
const [since, until] = ["since", "until"].map((id) => document.getElementById(id));
const chosen = (box, other) => box.value ? Date.parse(box.value + "Z") : other;
const look = () => put(SPAN, since.value || until.value ? [chosen(since, 0), chosen(until, 1e15)] : null);
for (const [key, spec] of Object.entries(charts))
  vegaEmbed(document.getElementById(key), spec, { renderer: "svg", actions: false, ast: true, loader: { load: () => Promise.reject() } })
    .then(({ view }) => {
      views.push(view);
      if (key !== "power") return;
      view.addSignalListener(BRUSH, (_, drawn) => {
        const span = drawn.from ?? [];
        [since, until].forEach((box, at) => { box.value = span.length ? new Date(span[at]).toISOString().slice(0, 23) : ""; });
        look();
      });
    });
document.getElementById("search").addEventListener("input", (event) => put(WANTED, event.target.value.toLowerCase()));
for (const box of [since, until]) box.addEventListener("input", look);
document.getElementById("whole").addEventListener("click", () => { since.value = until.value = ""; look(); });
"""
for _name, _value in {"WANTED": SEARCH, "SPAN": SPAN, "BRUSH": BRUSH}.items():
    _SCRIPT = _SCRIPT.replace(_name, json.dumps(_value))


def page(digest: Digest, *, title: str = "What model calls took") -> str:
    """Return the page.

    Raises:
        ConfigurationError: The package that draws charts is not installed.
    """
    shown = charts(digest)
    specs = {chart.key: drawn_at(chart) for chart in shown}
    parts = [
        f"<h1>{escape(title)}</h1>",
        *_words(digest),
        "<h2>Calls by name</h2>",
        f'<div class="wide">{digest.summary._repr_html_()}</div>',
        _filters(digest) if shown else "",
        *map(_section, shown),
        *_tables(digest),
        f"<footer><small>Made by aimeter {escape(__version__)}. Nothing was loaded to show this page.</small></footer>",
    ]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            *parts,
            f'</main><script type="application/json" id="charts">{_as_json(specs)}</script>',
            f'<script type="module">{_script()}\n{_SCRIPT}</script></body></html>',
        ]
    )


def _as_json(value: object) -> str:
    """Return JSON in which nothing can end the element around it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script() -> str:
    """Return the script that draws charts, which the package vl-convert carries; kept, as to put it together takes seconds."""
    vl_convert = engine()
    kept: Path = cache_folder() / f"charts-{version('vl-convert-python')}.js"
    try:
        return kept.read_text("utf-8")
    except OSError:
        made: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace(
            "</script", "<\\/script"
        )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(made, "utf-8")
    except OSError:
        pass  # it is put together again next time
    return made


def _words(digest: Digest) -> Iterable[str]:
    """Yield what was measured, on what, by which meters, and how far it can be trusted."""
    total = digest.summary.total
    if digest.begin_s is None or digest.end_s is None:
        yield "<p>There is no call in these logs.</p>"
        return
    names = len(digest.summary.rows)
    began = datetime.fromtimestamp(digest.begin_s, UTC)
    inside = f", and {_calls(digest.summary.nested)} inside them" if digest.summary.nested else ""
    yield (
        f"<p>{_calls(total.calls)}{inside}, of {names:,} name{'s' * (names != 1)}, from "
        f"{began:%Y-%m-%d %H:%M:%S} UTC on, within {duration(digest.end_s - digest.begin_s)}, in {digest.processes:,} "
        f"process{'es' * (digest.processes != 1)} on {len(digest.machines):,} machine{'s' * (len(digest.machines) != 1)}.</p>"
    )
    yield '<ul class="figures">'
    for figure, what in (
        (quantity(total.energy_j, "J", total.energy_error_j), "energy, with its 95 % error"),
        (quantity(None if total.energy_j is None else total.energy_j / 3600, "Wh"), "the same in watt-hours"),
        (quantity(total.co2e_g, "g", largest=3), "CO2 equivalent"),
        (quantity(total.per_call_j, "J", total.per_call_error_j), "a call, on average"),
    ):
        yield f"<li><b>{escape(figure)}</b>{what}</li>"
    yield f"</ul><p>{escape(trust_sentence(total))}</p>"
    yield "<h2>By which meters</h2><ul class=meters>"
    for device in digest.devices:
        yield f"<li><b>{escape(printable(device.name))}</b>: {_HOW.get(device.method, 'a meter of its own')}</li>"
    yield "</ul>"
    if digest.uncovered:
        yield f"<p>The meters covered less than the whole of {_calls(digest.uncovered)}.</p>"
    for source, method, _ in digest.sources[:5]:
        yield f"<p><small>Grams by: {escape(printable(source))} ({escape(printable(method))}).</small></p>"


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"


def _filters(digest: Digest) -> str:
    """Return the boxes in which a reader says what to look at."""
    ends = (digest.begin_s, digest.end_s)
    moments = [
        datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:23]
        for at in ends
        if at is not None
    ]
    told = "the calls" if digest.complete else f"the {len(digest.calls):,} calls that are drawn"
    return (
        '<fieldset id="filters"><legend>What to look at</legend>'
        '<label>Name or model has <input id="search" type="search"></label>'
        + "".join(
            f'<label>{word} (UTC) <input id="{key}" type="datetime-local" step="any" value=""></label>'
            for word, key in (("From", "since"), ("Until", "until"))
        )
        + '<button id="whole" type="button">The whole time</button>'
        f"<p><small>The log is from {moments[0].replace('T', ' ')} to {moments[-1].replace('T', ' ')}. Or drag over the power "
        f"below. Then the charts of energy a call, of its spread, of devices, calls and carbon show {told} at that time; units, "
        "parts and all tables are of the whole log.</small></p></fieldset>"
    )


def _section(chart: Chart) -> str:
    return (
        f'<section><h2>{escape(chart.title)}</h2><p>{escape(chart.words)}</p><div class="chart" id="{chart.key}" role="figure" '
        f'aria-label="{escape(chart.title)}" tabindex="0"></div></section>'
    )


def _tables(digest: Digest) -> Iterable[str]:
    """Yield what is told in words: the costliest calls, errors, the meter's own cost, lines that were no rows."""
    if digest.costliest:
        yield "<h2>Costliest calls</h2>"
        yield _table(("call", "began (UTC)", "took", "energy", "CO2e"), map(_told, digest.costliest))
    if digest.errors:
        yield "<h2>Errors</h2>"
        yield _table(
            ("call", "exception", "times"), ((name, kind, f"{n:,}") for name, kind, n in digest.errors)
        )
    if digest.meter_cpu_s is not None and digest.begin_s is not None and digest.end_s is not None:
        span_s = digest.end_s - digest.begin_s
        part = f", {digest.meter_cpu_s / span_s:.2%} of one core over that time" if span_s > 0 else ""
        yield f"<h2>What metering took</h2><p>{duration(digest.meter_cpu_s)} of CPU time{part}.</p>"
    if digest.problems:
        yield "<h2>Lines that could not be read</h2><ul>"
        yield "".join(f"<li>{escape(printable(problem))}</li>" for problem in digest.problems)
        yield "</ul>"


def _told(call: Drawn) -> Sequence[str]:
    return (
        call.name,
        f"{datetime.fromtimestamp(call.start_s, UTC):%Y-%m-%d %H:%M:%S.%f}",
        duration(call.duration_s),
        quantity(call.energy_j, "J", call.error_j),
        quantity(call.co2e_g, "g", largest=3),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(printable(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
