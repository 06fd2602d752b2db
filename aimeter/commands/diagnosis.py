"""What `aimeter doctor` tells, as one plain value; its fields are the keys of the JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aimeter.carbon.place import Step
from aimeter.sensors.base import Finding

METERED, PARTLY, NOT_METERED = 0, 1, 2
"""Exit statuses: every device found is metered; one is estimated, missing or broken; nothing is metered."""


@dataclass(frozen=True, slots=True)
class MeterReport:
    """One channel as metering sees it.

    Attributes:
        id: As in the row's `devices`: ``gpu:0``, ``cpu:0`` …
        kind: ``gpu``, ``cpu``, ``dram`` or ``other``.
        name: The device, zone or event.
        source: The interface it is read through.
        method: ``counter``, ``power`` or ``estimate``.
        relative_error: Calibration error as a 95 % half-width relative to the energy.
        documented_period_s: Time between updates of its value, as documented.
        observed_period_s: The same as learned here, from when its value changed; None where no reading brought
            a new value, or every one did, so that the period is at most `reading_interval_s`.
        observed_period_error_s: Half-width of what those changes leave open; None where it is not known.
        window_s: Time over which a published power is a mean, as documented; 0 for energy.
        reading_interval_s: Mean time between two readings.
        reading_s: Mean duration of a reading: its latency, and how far off in time what it says may be.
        power_w: Mean power while it was watched; None if it gave none.
        shared: The figure is of a whole device of which this process may use a part.
        notes: What the figure covers, what an estimate assumes, why a better way of reading does not serve.
        fault: Why it is not metered after all; None if it works.
        idle_w: Idle power as `aimeter calibrate` has measured it; None if there is no calibration to be used.
        idle_spread_w: Its standard deviation then.
        idle_age_s: How long ago that was.
        learned_window_s: The window as learned here or by `aimeter calibrate --load`; None if it was not. It is used
            in place of the documented one, if that is not a possible value.
        learned_window_error_s: Its 95 % half-width.
        latency_s: How late the published value is, as measured on devices of the kind.
        latency_error_s: Its 95 % half-width.
        learned_latency_s: The same as learned, likewise.
        learned_latency_error_s: Its 95 % half-width.
        learned_age_s: How long ago they were learned.
    """

    id: str
    kind: str
    name: str
    source: str
    method: str
    relative_error: float
    documented_period_s: float
    observed_period_s: float | None
    reading_interval_s: float | None
    reading_s: float | None
    power_w: float | None
    shared: bool
    notes: tuple[str, ...]
    fault: str | None
    idle_w: float | None = None
    idle_spread_w: float | None = None
    idle_age_s: float | None = None
    observed_period_error_s: float | None = None
    window_s: float = 0.0
    latency_s: float = 0.0
    latency_error_s: float = 0.0
    learned_window_s: float | None = None
    learned_window_error_s: float | None = None
    learned_latency_s: float | None = None
    learned_latency_error_s: float | None = None
    learned_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """What the chosen provider of intensity over time says now.

    Attributes:
        name: The provider.
        zone: The zone as the provider names it.
        g_per_kwh: Its value now; None if it gave none while the meters were watched.
        source: Where it is from; likewise `method`.
        method: What kind of intensity it is.
        problem: Why there is none; empty if there is.
    """

    name: str
    zone: str
    g_per_kwh: float | None
    source: str | None
    method: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class CarbonReport:
    """Where grams would come from; see `aimeter.carbon.intensity.Intensity`.

    Attributes:
        region: The setting, None if there is none.
        zone: The zone whose number is used.
        zone_name: What a person calls it.
        g_per_kwh: The intensity; None if there is none to be had.
        source: Data set, version, file, key and year.
        method: What kind of intensity it is.
        year: Year of the data, if it is stated.
        assumed: Nobody asked for it: no region is set.
        pue: Power usage effectiveness that grams are multiplied by.
        place: How the region was looked for, step by step: `step`, `found` and `detail` of each.
        provider: The provider of intensity over time; None if none is chosen.
        factors: Where the factors beyond the plug are from, by name.
    """

    region: str | None
    zone: str | None
    zone_name: str | None
    g_per_kwh: float | None
    source: str
    method: str
    year: int | None
    assumed: bool
    pue: float
    place: tuple[Step, ...] = ()
    provider: ProviderReport | None = None
    factors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SettingReport:
    """A setting that is not at its default, and the place it comes from."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """Where idle powers measured on purpose are kept.

    Attributes:
        path: The file, whether it is there or not; None if the setting is ``off``.
        problem: Why it, or a part of it, is not used; empty if it is used or not there.
    """

    path: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class CostReport:
    """What metering took while it was watched.

    Attributes:
        cpu_share: CPU time of the metering thread as a part of one core.
        interval_s: The setting: longest time between two readings while a call is open.
    """

    cpu_share: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that `aimeter doctor` tells.

    Attributes:
        exit_status: `METERED`, `PARTLY` or `NOT_METERED`.
        verdict: The same in a sentence.
        meters: What is metered.
        gaps: What keeps a device from being metered; these decide the exit status.
        findings: Everything that was found while looking for meters, `gaps` included.
        carbon: Where grams would come from.
        settings: Settings that are not at their defaults.
        versions: By name; None where it is not installed or cannot be told.
        cost: What metering takes.
        calibration: Where idle powers come from.
    """

    exit_status: int
    verdict: str
    meters: tuple[MeterReport, ...]
    gaps: tuple[Finding, ...]
    findings: tuple[Finding, ...]
    carbon: CarbonReport
    settings: Mapping[str, SettingReport]
    versions: Mapping[str, str | None]
    cost: CostReport
    calibration: CalibrationReport
