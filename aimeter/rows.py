"""From settled figures to rows: parts added up, errors combined, grams attached."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from .carbon.intensity import Intensity, co2e_g
from .record import SCHEMA, MeasuredBy, Record, Status

if TYPE_CHECKING:
    from .call import Call
    from .sensors.base import Channel
    from .settle import Figures
    from .trace import Trace

_WORST: dict[str, int] = {"none": 0, "counter": 1, "power": 2, "estimate": 3}


class Context(NamedTuple):
    """What the rows of one delivery have in common.

    Attributes:
        version: aimeter's version.
        intensity: Carbon intensity to apply, with its source.
        pue: Power usage effectiveness to apply.
        traces: The traces, in the order of the figures' lists.
        epoch_s: Wall-clock time (Unix) at 0 of the monotonic clock.
        meter_cpu_s: CPU time that metering has cost this process so far.
    """

    version: str
    intensity: Intensity
    pue: float
    traces: Sequence[Trace]
    epoch_s: float
    meter_cpu_s: float


def epoch_s(now_s: float) -> float:
    """Return the wall-clock time at 0 of the monotonic clock, of which `now_s` is a reading taken just now."""
    return time.time() - now_s


def error_j(resolution_j: float, calibration: Mapping[str, float]) -> float:
    """Combine errors into one 95 % half-width.

    Resolution and the calibrations of different kinds of meter are independent and add in quadrature; those
    of one kind (all RAPL domains, say) share their cause, so `calibration` holds their plain sums.
    """
    return math.sqrt(resolution_j**2 + sum(half_width**2 for half_width in calibration.values()))


def device_name(channel: Channel) -> str:
    """Return how `devices` names a channel: its id, a GPU's with the head of its UUID, ``~`` if it is shared."""
    name = channel.id
    if channel.kind == "gpu" and channel.device:
        name += ":" + "-".join(channel.device.split("-")[:2])
    return name + ("~" if channel.shared else "")


def build(figures: Figures, context: Context) -> Record:
    """Return the row of one settled call."""
    call = figures.call
    parts: dict[str, float] = {}
    methods: dict[str, MeasuredBy] = {}
    calibration: dict[str, float] = {}
    devices: list[str] = []
    energy = own = window = idle = variance = 0.0
    idle_known = True
    missing: dict[str, str] = {}
    for k, trace in enumerate(context.traces[: len(figures.energy_j)]):
        if trace.died_s < call.end_s and trace.died_s > call.start_s:
            missing[trace.channel.id] = trace.reason
        if not figures.metered[k]:
            continue
        channel, joules = trace.channel, figures.energy_j[k]
        name = device_name(channel)
        if name not in devices:  # a device that fell back to another way of reading has two traces
            devices.append(name)
        energy += joules
        own += figures.self_j[k]
        window += figures.window_j[k]
        variance += figures.resolution_j[k] ** 2
        parts[channel.kind] = parts.get(channel.kind, 0.0) + joules
        if _WORST[channel.method] > _WORST[methods.get(channel.kind, "none")]:
            methods[channel.kind] = channel.method
        cause = f"{channel.source} {channel.kind}"
        calibration[cause] = calibration.get(cause, 0.0) + channel.relative_error * joules
        if trace.idle_w is None:
            idle_known = False
        else:
            idle += min(trace.idle_w * figures.idle_s, joules)
    known = bool(devices)
    resolution = math.sqrt(variance)
    intensity = context.intensity.g_per_kwh
    counts, notes = call.counts, dict(call.notes)
    model = notes.pop("model", None)
    remarks: dict[str, object] = dict(call.remarks)
    if figures.suspended_s:
        remarks["suspended_s"] = round(figures.suspended_s, 9)
    if missing:
        remarks["missing"] = missing
    remarks["meter_cpu_s"] = round(context.meter_cpu_s, 4)
    notes["aimeter"] = remarks
    status: Status = call.status  # type: ignore[assignment]
    return Record(
        schema=SCHEMA,
        call_id=call.call_id,
        parent_id=None if call.parent is None else call.parent.call_id,
        name=call.name,
        status=status,
        error_type=call.error_type,
        start=datetime.fromtimestamp(context.epoch_s + call.start_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        duration_s=call.duration_s,
        pid=os.getpid(),
        thread=call.thread,
        energy_j=energy if known else None,
        error_j=error_j(resolution, calibration) if known else None,
        resolution_j=resolution if known else None,
        self_j=own if known else None,
        window_j=window if known else None,
        idle_j=idle if known and idle_known else None,
        gpu_j=parts.get("gpu"),
        cpu_j=parts.get("cpu"),
        dram_j=parts.get("dram"),
        other_j=parts.get("other"),
        gpu_method=methods.get("gpu", "none"),
        cpu_method=methods.get("cpu", "none"),
        dram_method=methods.get("dram", "none"),
        devices=" ".join(devices),
        coverage=figures.coverage if known else 0.0,
        concurrency=figures.concurrency,
        items=counts.get("items"),
        images=counts.get("images"),
        tokens_in=counts.get("tokens_in"),
        tokens_out=counts.get("tokens_out"),
        steps=counts.get("steps"),
        audio_s=counts.get("audio_s"),
        model=None if model is None else str(model),
        pue=context.pue,
        intensity_g_per_kwh=intensity,
        intensity_source=context.intensity.source,
        intensity_method=context.intensity.method,
        zone=context.intensity.zone,
        co2e_g=co2e_g(energy, intensity, context.pue) if known and intensity is not None else None,
        embodied_g=None,
        meta=notes,
        aimeter_version=context.version,
    )


def so_far(call: Call, shares: Sequence[float], windows: Sequence[float], context: Context) -> Figures:
    """Return provisional figures of a call that is still open; half of what it used is left open."""
    from .settle import Figures  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

    return Figures(
        call,
        list(shares),
        list(shares),
        list(windows),
        0.0,
        [joules / 2 for joules in shares],
        [len(trace.curve) > 0 for trace in context.traces],
        1.0,
        1.0,
        0.0,
    )
