"""What aimeter can meter here, how well, and what would mend the rest.

The meters are read for a second through a real `Meter` with the settings in force, so that what is told is
what metering would see and cost.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter import settings as settings_module
from aimeter._curve.calibration import Calibrations, path_of
from aimeter._curve.health import DEAD_AFTER_S
from aimeter._support.clocks import time
from aimeter._support.system import read_text
from aimeter._version import __version__
from aimeter.carbon.accounting import Accounting
from aimeter.carbon.intensity import ASSUMED, FALLBACK, GIVEN
from aimeter.carbon.location import resolve
from aimeter.commands.diagnosis import (
    METERED,
    NOT_METERED,
    PARTLY,
    CalibrationReport,
    CarbonReport,
    CostReport,
    Diagnosis,
    MeterReport,
    ProviderReport,
    SettingReport,
)
from aimeter.commands.watch import Watched
from aimeter.meter import Meter
from aimeter.sensors.base import Channel, Finding
from aimeter.sensors.discover import discover
from aimeter.sensors.nvml import driver_version
from aimeter.sinks import open_log

if TYPE_CHECKING:
    from aimeter._curve.response_fit import Estimate
    from aimeter._curve.trace import Trace

WATCH_S = 1.0
_STEP_S = 0.05
_TO_COMPARE_S = 1.0
"""How much longer a counter is watched beside which a power is read: by then it is known whether the two agree."""

_PATIENCE_S = DEAD_AFTER_S + 0.5 - WATCH_S
"""How much longer a counter that stands still is watched: by then the sampler has done what it can."""

_PACKAGES = ("nvidia-ml-py", "codecarbon", "numpy", "psutil")
_CPU_SOURCES = ("powercap", "perf", "estimate")
_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"
"""Vendor and base class of a PCI device (pci.ids; PCI Code and ID Assignment Specification)."""

Progress = Callable[[Sequence[int]], Iterable[int]]


def examine(arguments: Mapping[str, object], progress: Progress = iter) -> Diagnosis:
    """Look for meters, watch them for a second or somewhat longer, and judge.

    Args:
        arguments: Settings given as options.
        progress: Shows the steps of the second as they pass, as `rich.progress.track` does.

    Raises:
        ConfigurationError: A setting is unusable or the log cannot be written.
    """
    settings = settings_module.load(arguments)
    if settings.log is not None:
        open_log(settings.log, settings.log_conflict).close()
    found = discover(powercap=settings.powercap)
    sensors = [Watched(sensor) for sensor in found.sensors]
    quiet = {"log": None, "enabled": True, "memory_rows": 0, "sync": "off", "summary": False}
    with Meter(sensors=sensors, **{**arguments, **quiet}) as meter:  # type: ignore[arg-type]
        began_s, cpu_share = _watch(meter, sensors, progress)
        reports = [report for sensor in sensors for report in sensor.reports(found.findings)]
        learned = meter.sampler.snapshot(
            lambda traces: {trace.channel.id: trace for trace in traces if not trace.gone}
        )
        channels = {channel.id: channel for sensor in sensors for channel in sensor.channels}
        carbon = _carbon(meter)
    stored = Calibrations(path_of(settings.calibration))
    reports = [_at_rest(report, channels.get(report.id), stored) for report in reports]
    reports = [_as_learned(report, learned.get(report.id), began_s) for report in reports]
    gaps = gaps_among(found.findings, nvidia=nvidia_on_bus())
    status, verdict = judge(reports, gaps, enabled=settings.enabled)
    origins = settings_module.origins(arguments)
    return Diagnosis(
        exit_status=status,
        verdict=verdict,
        meters=tuple(reports),
        gaps=tuple(gaps),
        findings=tuple(found.findings),
        carbon=carbon,
        settings={key: SettingReport(getattr(settings, key), origin) for key, origin in origins.items()},
        versions=_versions(),
        cost=CostReport(cpu_share, settings.interval_s),
        calibration=CalibrationReport(None if stored.path is None else str(stored.path), stored.problem),
    )


def _at_rest(report: MeterReport, channel: Channel | None, stored: Calibrations) -> MeterReport:
    """Add what a calibration knows of a channel: its idle power, and how its sensor responds."""
    known = None if channel is None else stored.of(channel)
    if known is None:
        return report
    age_s = stored.age_s(known)
    report = replace(report, idle_w=known.idle_w, idle_spread_w=known.spread_w, idle_age_s=age_s)
    return _responding(report, known.latency, known.window, age_s)


def _responding(
    report: MeterReport, latency: Estimate | None, window: Estimate | None, age_s: float
) -> MeterReport:
    told: dict[str, float] = {}
    for name, found in (("latency", latency), ("window", window)):
        if found is not None:
            told |= {f"learned_{name}_s": found.value_s, f"learned_{name}_error_s": found.error_s}
            told["learned_age_s"] = age_s
    return replace(report, **told)  # type: ignore[arg-type]


def _as_learned(report: MeterReport, trace: Trace | None, began_s: float) -> MeterReport:
    """Put what the sampler has learned of a sensor in the place of means over what was read."""
    if trace is not None and trace.contradiction:
        remark = f"{trace.contradiction[0].upper()}{trace.contradiction[1:]}."
        report = replace(report, notes=(*report.notes, remark))
    if trace is not None and trace.learned.response is not None:
        report = _responding(report, *trace.learned.response.ramp, age_s=0.0)
    period = None if trace is None else trace.learned.period
    if trace is None or period is None:
        return report
    report = replace(report, observed_period_s=period.middle_s, observed_period_error_s=period.half_s)
    times_s, joules, _ = trace.curve.knots
    times_s, joules = times_s[times_s >= began_s], joules[times_s >= began_s]
    if report.fault is not None or len(times_s) < 2:  # noqa: PLR2004 - a difference needs two
        return report
    return replace(report, power_w=float((joules[-1] - joules[0]) / (times_s[-1] - times_s[0])))


def _watch(meter: Meter, sensors: Sequence[Watched], progress: Progress) -> tuple[float, float]:
    """Let a call run for a second, longer if a counter stands still; return its begin and the CPU share of metering."""
    sampler = meter.sampler
    for _ in range(
        2
    ):  # after the second, the round in which the sensors were opened is over and accounted for
        sampler.refresh(DEAD_AFTER_S)
    for sensor in sensors:
        sensor.forget()
    with meter.track("doctor"):
        began_s, cpu_s = sampler.now(), sampler.cpu_s
        _sleep(WATCH_S, progress)
        if sampler.snapshot(lambda traces: any(map(_is_to_compare, traces))):
            _sleep(_TO_COMPARE_S, progress)
        share = (sampler.cpu_s - cpu_s) / (sampler.now() - began_s)
        if any(report.fault for sensor in sensors for report in sensor.reports()):
            _sleep(_PATIENCE_S, progress)
    return began_s, share


def _is_to_compare(trace: Trace) -> bool:
    """Return whether a counter and the power beside it have not been compared yet."""
    return trace.curve.refiner is not None and not trace.curve.refiner.compared


def _sleep(seconds: float, progress: Progress) -> None:
    for _ in progress(range(round(seconds / _STEP_S))):
        time.sleep(_STEP_S)


def gaps_among(findings: Iterable[Finding], *, nvidia: bool) -> list[Finding]:
    """Return the findings that say that a device is there, or may be, and is not metered.

    Not among them: views of a CPU that another view meters, and the absence of an NVIDIA driver where there
    is no NVIDIA GPU.

    Args:
        findings: All that `discover` found.
        nvidia: Whether the machine shows an NVIDIA GPU, whatever its driver says.
    """
    found = [finding for finding in findings if finding.status not in {"used", "unused"}]
    counted = {finding.source for finding in findings if finding.status == "used"} & {"powercap", "perf"}
    gaps = []
    for finding in found:
        if finding.source == "nvml":
            is_gap = nvidia or finding.status != "missing" or finding.subject.startswith("gpu:")
        elif finding.source in _CPU_SOURCES:
            is_gap = finding.source in counted if counted else bool(finding.remedy)
        else:
            is_gap = finding.status != "missing"
        if is_gap:
            gaps.append(finding)
    return gaps


def judge(meters: Sequence[MeterReport], gaps: Sequence[Finding], *, enabled: bool) -> tuple[int, str]:
    """Return the exit status and the verdict."""
    if not enabled:
        return NOT_METERED, "Metering is switched off by the setting `enabled`: calls have no energy."
    working = [meter for meter in meters if meter.fault is None]
    if not working:
        return NOT_METERED, "No meter works here: calls have times and counts, but no energy."
    troubles = []
    measured = [meter.id for meter in working if meter.method != "estimate"]
    estimated = [meter.id for meter in working if meter.method == "estimate"]
    broken = [meter.id for meter in meters if meter.fault is not None]
    if measured:
        troubles.append(f"{_listed(measured)} measured")
    if estimated:
        troubles.append(f"{_listed(estimated)} only estimated")
    if broken:
        troubles.append(f"{_listed(broken)} not metered")
    if gaps:
        troubles.append("1 problem" if len(gaps) == 1 else f"{len(gaps)} problems")
    if estimated or broken or gaps:
        return PARTLY, f"Metered in part: {'; '.join(troubles)}."
    return METERED, f"Every device found is metered: {_listed(measured)}."


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def nvidia_on_bus(root: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Tell whether an NVIDIA GPU is plugged in, whatever its driver says."""
    return any(
        read_text(device / "vendor") == _NVIDIA
        and (read_text(device / "class") or "").startswith(_DISPLAY_CLASS)
        for device in root.glob("*")
    )


def _carbon(meter: Meter) -> CarbonReport:
    carbon = meter.carbon
    intensity, region = carbon.intensity, carbon.place.region
    known = intensity.method != GIVEN and region is not None
    return CarbonReport(
        region=meter.settings.region,
        zone=intensity.zone,
        zone_name=resolve(region).name if known and region is not None else None,
        g_per_kwh=intensity.g_per_kwh,
        source=intensity.source,
        method=intensity.method,
        year=intensity.year,
        assumed=intensity.method.endswith(ASSUMED),
        pue=carbon.pue,
        place=carbon.place.steps,
        provider=_provider(carbon),
        factors=carbon.sources,
    )


def _provider(carbon: Accounting) -> ProviderReport | None:
    """Return what the chosen provider has answered while the meters were watched."""
    if carbon.feed is None:
        return None
    now_s = time.time()
    found = carbon.feed.over(now_s, now_s)
    is_live = not found.intensity.method.endswith(FALLBACK)
    return ProviderReport(
        name=carbon.feed.provider.name,
        zone=carbon.feed.zone,
        g_per_kwh=found.intensity.g_per_kwh if is_live else None,
        source=found.intensity.source if is_live else None,
        method=found.intensity.method if is_live else None,
        problem="" if is_live else str(found.remark["reason"]),
    )


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "aimeter": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions["nvidia-driver"] = driver_version()
    return versions
