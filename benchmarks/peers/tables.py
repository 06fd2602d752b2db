"""The tables of the comparison, as pure functions of its results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.abilities import CALLS
from benchmarks.peers.shown import CLAIMS, DESCRIPTION, DOCS, FEATURES

Results = Mapping[str, Any]


class Label(NamedTuple):
    """What a tool is called, and what it was configured to do."""

    name: str
    configuration: str


LABELS: Mapping[str, Label] = {
    "aimeter": Label(
        "aimeter", "`with aimeter.track(...)`, all settings at their defaults, rows written to a CSV log"
    ),
    "zeus": Label(
        "Zeus",
        "one `ZeusMonitor()`; `begin_window` and `end_window` with a name for each call; `sync_execution=False`, as there "
        "is no framework to wait for",
    ),
    "zeus-approximate": Label("Zeus, approximate", "the same, with `approx_instant_energy=True`"),
    "pyjoules-decorator": Label(
        "pyJoules, decorator", "`@measure_energy` with a handler that keeps the trace; all domains found"
    ),
    "pyjoules-context": Label(
        "pyJoules, context", "`with EnergyContext(handler)` for each call; all domains found"
    ),
    "codecarbon-task": Label(
        "CodeCarbon, task",
        "one `OfflineEmissionsTracker(country_iso_code='FRA')`; `start_task` and `stop_task` with a name for each call; "
        "no output, no logging",
    ),
    "codecarbon-decorator": Label(
        "CodeCarbon, decorator",
        "`@track_emissions(offline=True, country_iso_code='FRA')`, output to a handler in memory, no logging; "
        "`measure_power_secs` at its default",
    ),
    "joules": Label(
        "joules", "`landauer-gap`; one `joules.Session()`; `with session.phase(...)` for each call"
    ),
    "codegreen": Label(
        "codegreen",
        "one `codegreen.Session(...)`; `start_task` and `stop_task` for each call, which is what `with session.task(...)` "
        "does; no file",
    ),
}

PROJECTS: Mapping[str, str] = {
    "zeus": "zeus",
    "pyjoules": "pyJoules",
    "codecarbon": "codecarbon",
    "joules": "landauer-gap",
    "codegreen": "codegreen",
}
"""Where the peers are found on PyPI."""

BINS: Sequence[tuple[str, float, float]] = (
    ("under 50 ms", 0.0, 0.05),
    ("50 to 200 ms", 0.05, 0.2),
    ("0.2 to 1 s", 0.2, 1.0),
    ("over 1 s", 1.0, float("inf")),
)

LENGTH, GPU_TRUE, CPU_TRUE, GPU, CPU, RESOLUTION = range(6)
"""Columns of a row of results."""

_NONE = "Not in this run.\n"


def tables(results: Results) -> dict[str, str]:
    """Return each table as Markdown, by the name of its place in the page."""
    made = {
        "configuration": _configuration(results),
        "machine": _machine(results),
        "gpu-100": _errors(results, ["100 ms"], GPU_TRUE, GPU),
        "gpu-20": _errors(results, ["20 ms"], GPU_TRUE, GPU),
        "gpu-late": _errors(results, ["100 ms, late"], GPU_TRUE, GPU),
        "bars": _bars(results),
        "cost": _cost(results),
        "number": _number(results),
        "overlap": _overlap(results),
        "abilities": _abilities(results),
        "shown": _shown(results),
        "sources": _sources(results),
    }
    if results["machine"]["cpu"]:
        made["cpu"] = _errors(results, ["100 ms", "20 ms"], CPU_TRUE, CPU)
    else:
        made["cpu"] = (
            "Not in this run: this kernel grants no private mounts, and tools look for RAPL at a fixed path.\n"
        )
    return made


def calls_of(
    results: Results, counters: Sequence[str], tool: str, low_s: float, high_s: float
) -> list[list[Any]]:
    """Return the calls of one tool whose length lies within a bin."""
    runs = [results["errors"][name].get(tool) for name in counters]
    return [row for run in runs if run for row in run if low_s <= row[LENGTH] < high_s]


def relative_errors(rows: Sequence[Sequence[Any]], truth: int, said: int) -> list[float]:
    """Return what each call's reading is off by, as a part of its true joules; nothing for calls without one."""
    return [row[said] / row[truth] - 1 for row in rows if row[said] is not None and row[truth] is not None]


def bias(rows: Sequence[Sequence[Any]], truth: int, said: int) -> float:
    """Return by what part all calls together are off."""
    known = [row for row in rows if row[said] is not None and row[truth] is not None]
    return float(sum(row[said] for row in known) / sum(row[truth] for row in known) - 1)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile, interpolated between the values beside it."""
    return (
        values[0]
        if len(values) == 1
        else statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a table as Markdown, with columns of numbers to the right."""
    lines = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(part: float) -> str:
    """Return a part as a percentage with two digits that count."""
    value = 100 * part
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def _signed(part: float) -> str:
    return ("+" if part > 0 else "-" if part < 0 else "") + percent(abs(part))


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _times(ratio: float) -> str:
    """Return a ratio with two digits that count."""
    return f"{float(f'{ratio:.2g}'):,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _configuration(results: Results) -> str:
    rows = [
        [label.name, results["versions"][tool], label.configuration]
        for tool, label in LABELS.items()
        if tool in results["versions"]
    ]
    return table(["tool", "version", "how it was used"], rows, numbers=False)


def _machine(results: Results) -> str:
    machine = results["machine"]
    rapl = f", of the RAPL file {_seconds(machine['rapl_s'])}" if machine.get("rapl_s") else ""
    return (
        f"Made on {machine['date']} with `aimeter/` as of commit `{machine['commit']}`, in {machine['minutes']:.0f} minutes. "
        f"{machine['words']}. A reading of the GPU's counter took {_seconds(machine['nvml_s'])}{rapl} (medians). "
        f"{machine['calls']} calls a tool and counter, {machine['jobs']} tools at a time. Costs had nothing of the "
        f"comparison beside them; the machine's load was {machine['load'][0]:.1f} before and {machine['load'][1]:.1f} after "
        "them, so that they are those of a machine that does other things, too.\n"
    )


def _errors(results: Results, counters: Sequence[str], truth: int, said: int) -> str:
    rows = []
    for tool, label in LABELS.items():
        cells = []
        for _, low, high in BINS:
            calls = calls_of(results, counters, tool, low, high)
            off = relative_errors(calls, truth, said)
            if not off:
                break
            sizes = sorted(map(abs, off))
            middle, worst = percent(statistics.median(sizes)), percent(percentile(sizes, 95))
            missing = f", {len(calls) - len(off)} without" if len(off) < len(calls) else ""
            cells.append(f"{middle} / {worst} ({_signed(bias(calls, truth, said))}){missing}")
        if len(cells) == len(BINS):
            rows.append([label.name, *cells])
    return table(["median / p95 (bias) in %", *(name for name, _, _ in BINS)], rows) if rows else _NONE


def _bars(results: Results) -> str:
    """Tell how often the truth lies within what aimeter states, and how wide that is."""
    inside, width = ["truth within ± `resolution_j`"], ["median half-width, in % of the call"]
    for _, low, high in BINS:
        calls = calls_of(results, list(results["errors"]), "aimeter", low, high)
        known = [row for row in calls if row[RESOLUTION] is not None]
        if not known:
            return _NONE
        hits = sum(
            abs(_total(row, GPU, CPU) - _total(row, GPU_TRUE, CPU_TRUE)) <= row[RESOLUTION] for row in known
        )
        inside.append(f"{hits} of {len(known)}")
        width.append(
            percent(statistics.median(row[RESOLUTION] / _total(row, GPU_TRUE, CPU_TRUE) for row in known))
        )
    return table(["aimeter, GPU and CPU together", *(name for name, _, _ in BINS)], [inside, width])


def _total(row: Sequence[Any], *columns: int) -> float:
    return sum(row[column] or 0.0 for column in columns)


def _each(results: Results, part: str, cells: Callable[[Any], list[str]]) -> list[list[str]]:
    found = results[part]
    return [[label.name, *cells(found[tool])] for tool, label in LABELS.items() if found.get(tool)]


def _cost(results: Results) -> str:
    rows = []
    # One interpreter, one floor: the least seen in any of the processes.
    floor_s = min(cost["floor_s"] for cost in results["cost"]["1"].values())
    for tool, label in LABELS.items():
        one, eight = results["cost"]["1"].get(tool), results["cost"]["8"].get(tool)
        if one:
            cells = [
                _seconds(one["call_s"]),
                _times(one["call_s"] / floor_s),
                _seconds(eight["call_s"] if eight else None),
                _seconds(one["cpu_s"]),
                _seconds(one["first_s"]),
                f"{one['memory_mib']:.0f} MiB",
                f"{one['threads']} / {one['processes']}",
            ]
            rows.append([label.name, *cells])
    head = [
        "an empty call",
        "1 GPU",
        "times two timestamps",
        "8 GPUs",
        "CPU time, 1 GPU",
        "import, set-up and first call",
        "memory",
        "threads / processes beside",
    ]
    return table(head, rows)


def _number(results: Results) -> str:
    reaches = sorted({reach for tool in results["cost"]["1"].values() if tool for reach, _ in tool["blocks"]})

    def cells(cost: Any) -> list[str]:
        blocks = dict(cost["blocks"])
        return [_seconds(blocks.get(reach)) for reach in reaches]

    head = ["mean cost of a call", *(f"up to {reach:,}" for reach in reaches)]
    return table(head, _each({"cost": results["cost"]["1"]}, "cost", cells))


def _overlap(results: Results) -> str:
    numbers = results["machine"]["together"]

    def cells(rows: Any) -> list[str]:
        return [
            f"{row['ratio']:.2f}"
            + (f" ({row['known']} of {row['number']})" if row["known"] < row["number"] else "")
            for row in rows
        ]

    return table(["calls open at once", *map(str, numbers)], _each(results, "overlap", cells))


def _abilities(results: Results) -> str:
    def cell(found: float | str | None) -> str:
        return "-" if found is None else f"{found:.2f}" if isinstance(found, float) else found

    def cells(found: Any) -> list[str]:
        kept = f"{found['log']}: {found['rows']}, {found['rows_if_killed']}" if found["rows"] else "none"
        tried = (found[name] for name in ("outer", "inner", "at_once", "coroutine", "stream"))
        return [*map(cell, tried), kept]

    head = [
        "said over drawn",
        "outer of two nested",
        "inner",
        "two coroutines at once, together",
        "decorated `async def`",
        "decorated generator",
        f"rows of {CALLS} calls: at exit, if killed",
    ]
    return table(head, _each(results, "abilities", cells))


def _shown(results: Results) -> str:
    """Return a row for each thing that may be shown; a claim whose phrase was not found is left out."""
    names = [LABELS[tool].name.partition(",")[0] for tool in CLAIMS]

    def cell(tool: str, feature: str) -> str:
        return CLAIMS[tool][feature].text if results["shown"][tool].get(feature) else "-"

    rows = [[feature, *(cell(tool, feature) for tool in CLAIMS)] for feature in FEATURES]
    return table(["", *names], rows, numbers=False)


def _sources(results: Results) -> str:
    """Say for each tool where its column is from."""
    lines = [f"Read on {results['machine']['date']}:", ""]
    for tool, claims in CLAIMS.items():
        name = LABELS[tool].name.partition(",")[0]
        places = sorted({claim.place for claim in claims.values()})
        if all((DOCS / place).is_file() for place in places):
            said = ", ".join(f"[{Path(place).stem}](../{place})" for place in places)
        else:
            said = ", ".join("its description" if place == DESCRIPTION else f"`{place}`" for place in places)
            version = results["versions"][tool]
            project = PROJECTS[tool.partition("-")[0]]
            said = f"{project} {version}: {said}"
        lines.append(f"- {name}: {said}")
    return "\n".join(lines) + "\n"
