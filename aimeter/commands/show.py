"""A diagnosis for people: in a terminal, a pipe or a bug report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from aimeter._curve.response_fit import Estimate
from aimeter._support.units import printable, quantity
from aimeter.commands.diagnosis import METERED, PARTLY

if TYPE_CHECKING:
    from rich.console import Console

    from aimeter.commands.diagnosis import CarbonReport, Diagnosis, MeterReport, ProviderReport
    from aimeter.sensors.base import Finding

_COLOURS = {METERED: "green", PARTLY: "yellow"}
_PASSING = "dim"


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print a diagnosis: the meters, what is missing, grams, settings, versions, cost, and the verdict."""
    console.print(Text("Meters", style="bold"))
    if diagnosis.meters:
        console.print(_meters(diagnosis.meters))
    _print(console, [line for meter in diagnosis.meters for line in _remarks(meter)])
    _print(console, _not_learned(diagnosis.meters))
    missing = [line for finding in _by_weight(diagnosis) for line in _told(finding, diagnosis)]
    if diagnosis.calibration.problem:
        where = f"- calibration {diagnosis.calibration.path}: {diagnosis.calibration.problem}"
        missing.append(Text(printable(where), style=_PASSING))
    sections: dict[str, list[str | Text]] = {
        "Not in use": missing,
        "Grams": _grams(diagnosis.carbon),
        "Settings": _settings(diagnosis),
        "Versions": _versions(diagnosis),
        "Cost": [_cost(diagnosis)],
    }
    for title, lines in sections.items():
        if lines:
            console.print(Text(f"\n{title}", style="bold"))
            _print(console, lines)
    colour = _COLOURS.get(diagnosis.exit_status, "red")
    console.print(Text(f"\n{diagnosis.verdict}", style=f"bold {colour}"))


def _print(console: Console, lines: list[str | Text]) -> None:
    for line in lines:
        text = Text(printable(line)) if isinstance(line, str) else line
        # Soft: a command that the terminal wraps can still be copied as one line.
        console.print(text, soft_wrap=True)


def _meters(meters: tuple[MeterReport, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "device", "measured by"):
        table.add_column(title, overflow="fold")
    seen = any(meter.observed_period_s is not None for meter in meters)
    rested = any(meter.idle_w is not None for meter in meters)
    windowed = any(meter.window_s for meter in meters)
    titles = ("power", *(["idle"] if rested else []), "error", "period", *(["seen"] if seen else []))
    for title in (*titles, *(["window"] if windowed else []), "reading"):
        table.add_column(title, justify="right", no_wrap=True)
    for meter in meters:
        cells = (
            f"  {meter.id}",
            printable(meter.name),
            f"{meter.source} {meter.method}",
            quantity(meter.power_w, "W"),
            *([_idle(meter)] if rested else []),
            f"±{meter.relative_error:.0%}",
            _time(meter.documented_period_s),
            *([_observed(meter)] if seen else []),
            *([_time(meter.window_s) if meter.window_s else ""] if windowed else []),
            "" if meter.reading_s is None else _time(meter.reading_s),
        )
        table.add_row(*map(Text, cells), style="red" if meter.fault else "")
    return table


def _observed(meter: MeterReport) -> str:
    if meter.observed_period_s is None or not meter.observed_period_error_s:
        return "" if meter.observed_period_s is None else _time(meter.observed_period_s)
    return quantity(meter.observed_period_s, "s", meter.observed_period_error_s, largest=0)


def _idle(meter: MeterReport) -> str:
    if meter.idle_w is None or meter.idle_age_s is None:
        return ""
    return f"{quantity(meter.idle_w, 'W')}, {_age(meter.idle_age_s)} old"


def _age(seconds: float) -> str:
    """Return ``3 days``, ``2 h`` or ``5 min``."""
    minutes = seconds / 60
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _remarks(meter: MeterReport) -> list[str | Text]:
    remarks = [f"not metered: {meter.fault}"] if meter.fault else []
    return [f"  {meter.id}: {remark}" for remark in (*remarks, *_learned(meter), *meter.notes)]


def _learned(meter: MeterReport) -> list[str]:
    """Return what was learned of how a sensor responds, and whether it is used in place of what is documented."""
    told = []
    late_s, late_error_s = meter.learned_latency_s, meter.learned_latency_error_s
    if late_s is not None and late_error_s is not None:
        expected = quantity(meter.latency_s, "s", meter.latency_error_s, largest=0)
        replaces = Estimate(late_s, late_error_s).replaces(Estimate(meter.latency_s, meter.latency_error_s))
        how = f"{'used in place of' if replaces else 'not told from'} {expected}"
        told.append(f"latency {quantity(late_s, 's', late_error_s, largest=0)}, {how}")
    wide_s, wide_error_s = meter.learned_window_s, meter.learned_window_error_s
    if wide_s is not None and wide_error_s is not None:
        differs = Estimate(wide_s, wide_error_s).replaces(Estimate(meter.window_s, 0.0))
        documented = f"the documented {_time(meter.window_s)}"
        how = f"used in place of {documented}" if differs else f"not told from {documented}"
        told.append(f"window {quantity(wide_s, 's', wide_error_s, largest=0)}, {how}")
    if not told or meter.learned_age_s is None:
        return []
    return [f"learned {_age(meter.learned_age_s)} ago: {'; '.join(told)}"]


def _not_learned(meters: tuple[MeterReport, ...]) -> list[str | Text]:
    """Return one line on the meters whose response nobody has learned yet."""
    slow = [meter.id for meter in meters if meter.source == "nvml" and meter.learned_age_s is None]
    if not slow:
        return []
    what = "latency and window are taken as of others of their kind; to learn them"
    return [f"  {', '.join(slow)}: {what}: aimeter calibrate --load MODULE:FUNCTION"]


def _by_weight(diagnosis: Diagnosis) -> list[Finding]:
    """Return what is not in use, gaps first."""
    missing = [finding for finding in diagnosis.findings if finding.status != "used"]
    return sorted(missing, key=lambda finding: finding not in diagnosis.gaps)


def _told(finding: Finding, diagnosis: Diagnosis) -> list[str | Text]:
    is_gap = finding in diagnosis.gaps
    subject = finding.subject if finding.subject.startswith("/") else f"{finding.source} {finding.subject}"
    lines = [f"{'✗' if is_gap else '-'} {subject}: {finding.status}. {finding.detail}"]
    if finding.remedy:
        lines.append(f"    {'to mend it' if is_gap else 'if need be'}: {finding.remedy}")
    return [Text(printable(line), style="" if is_gap else _PASSING) for line in lines]


def _grams(carbon: CarbonReport) -> list[str | Text]:
    steps: list[str | Text] = [
        Text(printable(f"  - {step.step}: {step.found or 'nothing'} ({step.detail})"), style=_PASSING)
        for step in carbon.place
        if carbon.region is None
    ]
    return [*_intensity(carbon), *_provided(carbon.provider), *steps]


def _provided(provider: ProviderReport | None) -> list[str | Text]:
    if provider is None:
        return []
    head = f"  live, {provider.name} for {provider.zone}: "
    if provider.g_per_kwh is None:
        return [f"{head}no value now, so rows have the one above. {provider.problem}"]
    return [f"{head}{provider.g_per_kwh:.4g} g CO2e/kWh", f"  {provider.source}", f"  {provider.method}"]


def _intensity(carbon: CarbonReport) -> list[str | Text]:
    if carbon.g_per_kwh is None:
        return [f"  no grams: {carbon.source.removeprefix('none: ')}"]
    lines: list[str | Text] = [f"  {carbon.g_per_kwh:.4g} g CO2e/kWh, {_place(carbon)}"]
    if carbon.method != "given":
        lines += [f"  source: {carbon.source}", f"  method: {carbon.method}"]
    if carbon.pue != 1:
        source = f" ({carbon.factors['pue']})" if "pue" in carbon.factors else ""
        lines.append(f"  times a PUE of {carbon.pue:g}{source}")
    lines += [f"  {name}: {source}" for name, source in carbon.factors.items() if name != "pue"]
    if carbon.assumed:
        lines.append("    to mend it: export AIMETER_REGION=FR (or US-VA, aws:us-east-1 …)")
    return lines


def _place(carbon: CarbonReport) -> str:
    if carbon.assumed:
        return "a world average, because no region is set"
    if carbon.method == "given":
        return "given by the user" + (f" for {carbon.zone}" if carbon.zone else "")
    year = "year not stated" if carbon.year is None else str(carbon.year)
    return f"{carbon.zone_name} ({carbon.zone}), {year}"


def _settings(diagnosis: Diagnosis) -> list[str | Text]:
    lines: list[str | Text] = []
    for key, setting in diagnosis.settings.items():
        origin = "this command line" if setting.origin == "argument" else setting.origin
        lines.append(f"  {key} = {setting.value}  ({origin})")
    return lines or ["  all at their defaults"]


def _versions(diagnosis: Diagnosis) -> list[str | Text]:
    widest = max(map(len, diagnosis.versions))
    return [f"  {name.ljust(widest)}  {text or 'none'}" for name, text in diagnosis.versions.items()]


def _cost(diagnosis: Diagnosis) -> str:
    cost = diagnosis.cost
    return f"  Metering took {cost.cpu_share:.1%} of one core at an interval of {_time(cost.interval_s)}."
