"""A recording as sensors of a meter: its clock is stepped through the calls, and each row held against the reference."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import aimeter
from aimeter.sensors.nvml_gpu import NvmlGpu
from aimeter.sensors.visible import Gpu
from aimeter.testing import FakeClock
from benchmarks.replay.recordings import Recording

WAYS = ("counter", "usage", "instant")

_NOT_SUPPORTED = 3


class Scores(NamedTuple):
    """How the rows of a recording compare with the reference.

    Attributes:
        calls: How many calls there were.
        gain: Joules of all calls by the reference over those by aimeter.
        median: Median of how far a call's joules are off, in parts of what the reference says.
        p95: 95th percentile of the same.
        error: Median of the half-width that aimeter gives, in the same parts.
        inside: Part of the calls whose reference lies inside it.
    """

    calls: int
    gain: float
    median: float
    p95: float
    error: float
    inside: float


class PlayedNvml:
    """The few functions of the binding that `NvmlGpu` asks, answered from a recording at the time of a clock.

    Args:
        recording: What was published.
        clock: Tells the time in the recording.
        serves: Channels of it that are answered; the others are not supported, as on an older board or driver.
    """

    class NVMLError(Exception):
        """As the binding's."""

        def __init__(self, value: int) -> None:
            super().__init__(f"return code {value}")
            self.value = value

    def __init__(self, recording: Recording, clock: FakeClock, serves: Collection[str]) -> None:
        self._published = {name: recording.published[name] for name in serves if name in recording.published}
        self._clock = clock

    def nvmlInit(self) -> None:  # noqa: N802
        """Do nothing."""

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Do nothing."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """Return a handle."""
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        """Return the counter in mJ."""
        return round(1e3 * self._now("counter"))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        """Return the power in mW: a mean over 1 s on newer boards."""
        return round(1e3 * self._now("usage"))

    def nvmlDeviceGetFieldValues(self, handle: int, fields: list[tuple[int, int]]) -> list[Any]:  # noqa: N802
        """Return the instant power in mW."""
        if fields[0][1]:
            return [SimpleNamespace(nvmlReturn=_NOT_SUPPORTED)]
        value = SimpleNamespace(uiVal=round(1e3 * self._now("instant")))
        return [SimpleNamespace(nvmlReturn=0, value=value)]

    def _now(self, channel: str) -> float:
        """Return what was published last."""
        if channel not in self._published:
            raise self.NVMLError(_NOT_SUPPORTED)
        times, values = self._published[channel]
        return float(values[max(np.searchsorted(times, self._clock(), side="right") - 1, 0)])


def play(recording: Recording, way: str) -> Scores | None:
    """Return the scores of a recording read in one way; None if it was not published.

    Args:
        recording: What to play.
        way: ``counter`` with the instant power beside it, ``instant``, or ``usage`` alone.
    """
    if way not in recording.published:
        return None
    clock = FakeClock(0.0)
    serves = {"counter": ("counter", "instant"), "instant": ("instant",), "usage": ("usage",)}[way]
    gpu = Gpu(0, "", recording.name, recording.capability, recording.max_power_w)
    sensor = NvmlGpu(PlayedNvml(recording, clock, serves), gpu, clock=clock)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, calibration="off")
    last_s = min(float(times[-1]) for times, _ in recording.published.values())
    calls = [span for span in recording.calls if span[0] >= 0 and span[1] <= last_s]
    rows = []
    with meter.track(
        "first"
    ):  # the meter starts to read with the first call, and keeps reading for some seconds
        clock.sleep(0.001)
    for begin_s, end_s in calls:
        clock.sleep(max(begin_s - clock(), 0.0))
        with meter.track("work") as call:
            clock.sleep(end_s - clock())
        rows.append(call)
    clock.sleep(max(last_s - clock(), 0.0))
    meter.flush()
    records = [call.record for call in rows]
    meter.close()
    joules = np.array([record.gpu_j for record in records], float)
    error_j = np.array([record.error_j for record in records], float)
    truth_j = np.array([recording.drew_j(begin_s, end_s) for begin_s, end_s in calls])
    off = np.abs(joules - truth_j) / truth_j
    return Scores(
        calls=len(calls),
        gain=float(truth_j.sum() / joules.sum()),
        median=float(np.median(off)),
        p95=float(np.quantile(off, 0.95)),
        error=float(np.median(error_j / truth_j)),
        inside=float(np.mean(np.abs(joules - truth_j) <= error_j)),
    )
