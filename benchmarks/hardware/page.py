"""The programme's figures in words, and the page of the devices in the docs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.page import filled

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "hardware.md"
RESULTS = Path(__file__).with_name("results")

Results = Mapping[str, Any]


def report(results: Results) -> str:
    """Return all figures, a line each."""
    lines = [", ".join(f"{key} {value}" for key, value in results["device"].items())]
    for trial, figures in results["trials"].items():
        lines += ["", trial]
        for name, value in figures.items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            lines.append(f"  {name}: " + ", ".join(f"{key} {_short(one)}".strip() for key, one in parts))
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def keep(results: Results, folder: Path = RESULTS) -> Path:
    """Write a device's figures beside the programme; one file for each device and driver."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{results['device']['name']} {results['device']['driver']}".lower())
    folder.mkdir(exist_ok=True)
    target = folder / f"{slug}.json"
    target.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return target


def kept(folder: Path = RESULTS) -> list[Results]:
    """Return the figures of all devices, by name."""
    found = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    return sorted(found, key=lambda one: one["device"]["name"])


def write(page: Path = PAGE, folder: Path = RESULTS) -> None:
    """Write the tables of all devices into the page, between their marks."""
    page.write_text(filled(page.read_text("utf-8"), tables(kept(folder))), "utf-8")


def tables(devices: Iterable[Results]) -> dict[str, str]:
    """Return the page's tables by the names of their marks."""
    every = list(devices)
    return {
        "devices": _table(
            ("device", "driver", "limit", "run on"),
            (
                (
                    _name(one),
                    one["device"]["driver"],
                    f"{one['device']['limits_w'][1]:.0f} W",
                    one["device"]["date"],
                )
                for one in every
            ),
        ),
        "meters": _table(
            ("device", "meter", "renewed every", "latency", "window", "one reading, median", "99 %"),
            (
                _meter(one, name)
                for one in every
                for name in ("counter", "instant", "average", "usage", "samples")
            ),
        ),
        "duty": _table(
            ("device", "load", "aimeter", "± error", "counter", "instant", "1 s mean"),
            (
                (
                    _name(one),
                    load,
                    f"{row['aimeter_over_counter']:.4f}",
                    f"{row['error_j'] / row['counter_j']:.3f}",
                    "1",
                    _number(row["instant_over_counter"], ".3f"),
                    _number(row["average_over_counter"], ".3f"),
                )
                for one in every
                for load, row in _of(one, "duty cycle").items()
            ),
        ),
        "short": _table(
            ("device", "call", "draws", "back to back", "mean", "median off", "95 % off", "bars", "inside"),
            (
                (
                    _name(one),
                    f"{1e3 * row['length_s']:.1f} ms",
                    f"{row['true_j']:.3g} J",
                    f"{row['back_to_back_j']:.3g} J",
                    _percent(row["mean_over_true"] - 1, sign="+"),
                    _percent(row["median_off"]),
                    _percent(row["p95_off"]),
                    f"± {_percent(row['resolution'])}",
                    _percent(row["inside_error"]),
                )
                for one in every
                for row in _of(one, "short calls").values()
            ),
        ),
        "cost": _table(
            (
                "device",
                "bare context manager",
                "a call",
                "one call open",
                "a call every 0.5 s",
                "shares and rest over counter",
            ),
            (_cost(one) for one in every if _of(one, "cost of metering")),
        ),
        "tokens": _table(
            ("device", "part", "tokens", "joules a token", "± of one call"),
            (row for one in every for row in _tokens(one)),
        ),
    }


def _of(one: Results, trial: str) -> dict[str, Any]:
    figures = one["trials"].get(trial, {})
    return {} if "failed" in figures else figures


def _name(one: Results) -> str:
    return str(one["device"]["name"]).removeprefix("NVIDIA ")


def _meter(one: Results, name: str) -> tuple[str, ...]:
    seen = _of(one, "samples") if name == "samples" else _of(one, "publication").get(name, {})
    if not seen:
        return ()
    cost = _of(one, "cost of reading").get(name, {})
    counter = name == "counter"
    window = "" if counter else f"{_ms(seen.get('window_s'))} ± {_ms(seen.get('window_pm_s'))}"
    label = {
        "counter": "energy counter",
        "instant": "instant power (field 186)",
        "average": "average power (field 185)",
        "usage": "`nvmlDeviceGetPowerUsage`",
        "samples": "`nvmlDeviceGetSamples`",
    }[name]
    return (
        _name(one),
        label,
        f"{_ms(seen.get('period_s'))} ms",
        f"{_ms(seen.get('latency_s'))} ± {_ms(seen.get('latency_pm_s'))} ms",
        f"{window} ms" if window else "",
        f"{_ms(cost.get('median_s', seen.get('median_cost_s')))} ms",
        f"{_ms(cost['p99_s'])} ms" if cost else "",
    )


def _cost(one: Results) -> tuple[str, ...]:
    figures = _of(one, "cost of metering")
    return (
        _name(one),
        f"{1e6 * figures['bare_s']:.2f} µs",
        f"{1e6 * figures['call_s']:.1f} µs",
        f"{_percent(figures['sampler, one call open'])} of a core",
        f"{_percent(figures['sampler, a call every 0.5 s'])} of a core",
        _number(_of(one, "conservation").get("ratio"), ".4f"),
    )


def _tokens(one: Results) -> Iterable[tuple[str, ...]]:
    for name, row in _of(one, "language model").items():
        part = name.rpartition(".")[2]
        counted = {"prefill": row["tokens_in"], "decode": row["tokens_out"]}.get(part)
        if counted:
            each = f"{1e3 * row['mean_j'] / counted:.3g} mJ"
            yield (
                _name(one),
                part,
                f"{counted:.0f}",
                each,
                _percent(row["median_resolution_j"] / row["mean_j"]),
            )


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    milliseconds = 1e3 * seconds
    return f"{milliseconds:.{3 if milliseconds < 0.1 else 2 if milliseconds < 1 else 1 if milliseconds < 100 else 0}f}"


def _percent(part: float, *, sign: str = "") -> str:
    return f"{100 * part:{sign}.1f} %"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(row for row in rows if row)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
