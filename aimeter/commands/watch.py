"""Meters under observation: what a series of readings shows of a channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from aimeter.commands.diagnosis import MeterReport
from aimeter.sensors.base import Accompanied, Channel, FallsBack, Finding, Outcome, Reading, Retakes, Sensor


class Watched:
    """A sensor whose readings are kept."""

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self.seen: dict[Channel, list[Reading]] = {channel: [] for channel in sensor.channels}

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The sensor's own; they change when it falls back to another way of reading."""
        return self.sensor.channels

    def read(self) -> list[Reading]:
        """Read the sensor and remember what it said."""
        channels = self.sensor.channels
        readings = self.sensor.read()
        for channel, reading in zip(channels, readings, strict=False):
            self.seen.setdefault(channel, []).append(reading)
        return readings

    def forget(self) -> None:
        """Forget the readings so far."""
        self.seen = {channel: [] for channel in self.channels}

    def reopen(self) -> None:
        """Reopen the sensor."""
        self.sensor.reopen()

    def close(self) -> None:
        """Close the sensor."""
        self.sensor.close()

    def fall_back(self) -> bool:
        """Have the sensor fall back, if it can."""
        return isinstance(self.sensor, FallsBack) and self.sensor.fall_back()

    def retake(self) -> bool:
        """Have the sensor start over, if it can."""
        return isinstance(self.sensor, Retakes) and self.sensor.retake()

    def beside(self) -> Sensor | None:
        """Return what the sensor has beside it."""
        return self.sensor.beside() if isinstance(self.sensor, Accompanied) else None

    def reports(self, findings: Iterable[Finding] = ()) -> list[MeterReport]:
        """Return what was seen of each channel that is in use at last.

        Args:
            findings: What was found when the sensors were looked for; it says why a channel is no counter.
        """
        given_up = [channel for channel in self.seen if channel not in self.channels]
        lost = [f"Its {one.method} {observe(one, self.seen[one]).fault or 'failed'}." for one in given_up]
        reports = []
        for channel in self.channels:
            report = report_of(channel, observe(channel, self.seen.get(channel, [])))
            notes = lost or _why_no_counter(channel, findings)
            if channel.note and not any(channel.note in note for note in notes):
                notes = [*notes, f"{channel.note[0].upper()}{channel.note[1:]}."]
            reports.append(replace(report, notes=tuple(notes)))
        return reports


def _why_no_counter(channel: Channel, findings: Iterable[Finding]) -> list[str]:
    subjects = {channel.name, f"{channel.id} {channel.name}"}
    used = [finding for finding in findings if finding.status == "used" and finding.subject in subjects]
    return [finding.detail for finding in used if channel.method != "counter"]


class Observation(NamedTuple):
    """What a series of readings says about its channel."""

    period_s: float | None
    interval_s: float | None
    reading_s: float | None
    power_w: float | None
    fault: str | None


def observe(channel: Channel, readings: Sequence[Reading]) -> Observation:
    """Say what a series of readings of one channel shows.

    The period is the mean time between changes of the value, where some readings brought a change and some
    did not. A counter's power is its gain from the first change to the last, falls of the counter left out.
    """
    good = [reading for reading in readings if reading.outcome is Outcome.OK and reading.value is not None]
    if not good:
        return Observation(None, None, None, None, readings[-1].reason if readings else "was not read")
    values = [reading.value or 0.0 for reading in good]
    times = [(reading.before_s + reading.after_s) / 2 for reading in good]
    changes = [k for k in range(1, len(good)) if values[k] != values[k - 1]]
    span_s = times[-1] - times[0]
    interval_s = span_s / (len(good) - 1) if len(good) > 1 else None
    period_s = None
    if 1 < len(changes) < len(good) - 1:
        period_s = (times[changes[-1]] - times[changes[0]]) / (len(changes) - 1)
    power_w: float | None = None
    if channel.quantity == "power":
        power_w = sum(values) / len(values)
    elif len(changes) > 1:
        gains = [values[k] - values[k - 1] for k in changes[1:] if values[k] > values[k - 1]]
        power_w = sum(gains) / (times[changes[-1]] - times[changes[0]])
    fault = None
    if readings[-1].outcome is Outcome.GONE:
        fault, power_w = readings[-1].reason, None
    elif channel.quantity == "energy" and not changes and span_s > 2 * channel.period_s:
        fault = f"has not advanced for {span_s:.1f} s"
    reading_s = sum(reading.after_s - reading.before_s for reading in good) / len(good)
    return Observation(period_s, interval_s, reading_s, power_w, fault)


def report_of(channel: Channel, seen: Observation) -> MeterReport:
    """Put a channel and what was seen of it side by side."""
    return MeterReport(
        id=channel.id,
        kind=channel.kind,
        name=channel.name,
        source=channel.source,
        method=channel.method,
        relative_error=channel.relative_error,
        documented_period_s=channel.period_s,
        observed_period_s=seen.period_s,
        reading_interval_s=seen.interval_s,
        reading_s=seen.reading_s,
        power_w=seen.power_w,
        window_s=channel.window_s,
        latency_s=channel.latency_s,
        latency_error_s=channel.latency_error_s,
        shared=channel.shared,
        notes=(),
        fault=seen.fault,
    )
