"""Which meters there are, and which of them are used: every GPU's, and one for the CPU.

Powercap, perf and the model are three views of the same CPU. The first that works is used, never two; the
others are reported as unused, so that the choice can be seen.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support.clocks import time
from aimeter.sensors.base import Finding
from aimeter.sensors.estimate import probe as probe_estimate
from aimeter.sensors.nvml import probe as probe_nvml
from aimeter.sensors.perf import open_event
from aimeter.sensors.perf import probe as probe_perf
from aimeter.sensors.powercap import probe as probe_powercap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aimeter.sensors.base import Clock, Sensor
    from aimeter.sensors.perf import OpenEvent

    Probe = Callable[[], tuple[list[Sensor], list[Finding]]]


@dataclass(slots=True)
class Discovery:
    """The sensors to use, and what was found while looking for them."""

    sensors: list[Sensor] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def discover(
    *,
    environ: Mapping[str, str] = os.environ,
    powercap: Path = Path("/sys/class/powercap"),
    perf: Path = Path("/sys/bus/event_source/devices/power"),
    topology: Path = Path("/sys/devices/system/cpu"),
    cgroup: Path = Path("/sys/fs/cgroup"),
    proc: Path = Path("/proc"),
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    open_event: OpenEvent = open_event,
) -> Discovery:
    """Look for every kind of meter, and choose; never raises, and takes up to 80 ms of `sleep`.

    Args:
        environ: Environment in which CUDA's variables are looked up.
        powercap: The powercap tree, or where a container has it mounted.
        perf: The folder of perf's ``power`` PMU.
        topology: Folder that tells which package a CPU belongs to.
        cgroup: Where control groups are mounted.
        proc: Where ``cpuinfo`` and ``self/cgroup`` are.
        clock: Stamps all readings.
        sleep: Waits while counters are watched.
        open_event: Opens a perf event.

    """
    gpus = discover_gpus(environ, clock)
    return discover_cpu(
        Discovery(*gpus),
        powercap=powercap,
        perf=perf,
        topology=topology,
        cgroup=cgroup,
        proc=proc,
        clock=clock,
        sleep=sleep,
        open_event=open_event,
    )


def discover_gpus(
    environ: Mapping[str, str] = os.environ, clock: Clock = time.perf_counter
) -> tuple[list[Sensor], list[Finding]]:
    """Look for the GPUs that this process may use by what its environment and CUDA say now; never raises."""
    return _guarded("nvml", lambda: probe_nvml(environ, clock))


def selection_of_gpus(environ: Mapping[str, str] = os.environ) -> tuple[object, ...]:
    """Return what decides which GPUs `discover_gpus` finds, so that it can be asked again when that has changed."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    variables = (environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"))
    try:
        begun = cuda is not None and bool(cuda.is_initialized())
    except Exception:  # noqa: BLE001 - torch may be half imported
        begun = False
    return (*variables, begun)


def discover_cpu(
    found: Discovery,
    *,
    powercap: Path = Path("/sys/class/powercap"),
    perf: Path = Path("/sys/bus/event_source/devices/power"),
    topology: Path = Path("/sys/devices/system/cpu"),
    cgroup: Path = Path("/sys/fs/cgroup"),
    proc: Path = Path("/proc"),
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    open_event: OpenEvent = open_event,
) -> Discovery:
    """Look for the first view of the CPU that works, and add it to what was found; the arguments are those of `discover`."""
    views: tuple[tuple[str, Probe], ...] = (
        ("powercap", lambda: probe_powercap(powercap, clock, sleep, proc)),
        ("perf", lambda: probe_perf(perf, clock, sleep, open_event, topology, proc)),
        ("estimate", lambda: probe_estimate(proc, cgroup, clock)),
    )
    whole = [channel.id for sensor in found.sensors for channel in sensor.channels if "cpu" in channel.covers]
    chosen = f"the module's meter, {whole[0]}," if whole else ""
    for source, probe in views:
        sensors, findings = _guarded(source, probe)
        if chosen:
            for sensor in sensors:
                sensor.close()
            findings = [_unused(finding, chosen) for finding in findings]
        elif sensors:
            chosen = source
            found.sensors += sensors
        found.findings += findings
    return found


def _guarded(source: str, probe: Probe) -> tuple[list[Sensor], list[Finding]]:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001 - what one driver or kernel answers must not hide the other meters
        detail = f"Looking for it raised {type(error).__name__}: {error}."
        return [], [Finding(source, source, "failed", detail)]


def _unused(finding: Finding, chosen: str) -> Finding:
    if finding.status != "used":
        return finding
    return replace(finding, status="unused", detail=f"It works, but {chosen} already meters the CPU.")
