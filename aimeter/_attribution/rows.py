"""From settled figures to rows, a column at a time: parts added up, errors combined, grams attached."""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from aimeter._attribution.figures import Figures, SoFar
from aimeter._support.clocks import time
from aimeter._support.machine import machine
from aimeter._support.notes import text
from aimeter._support.statistics import error_j2
from aimeter.carbon.accounting import Accounting, Accounts, Calls
from aimeter.record import COLUMNS, COUNTS, DIRECTNESS, SCHEMA, MeasuredBy, Record
from aimeter.sensors.base import KINDS, Channel

if TYPE_CHECKING:
    from aimeter._calls.call import Call
    from aimeter._curve.activity import Array
    from aimeter._curve.trace import Trace

Mask = npt.NDArray[np.bool_]

_LITTLE = 0.1
"""A device of which a call's share is known less well than to this part can tell little of it."""


class Context(NamedTuple):
    """What the rows of one delivery have in common.

    Attributes:
        version: aimeter's version.
        carbon: How joules become grams.
        traces: The traces, in the order of the figures' lists.
        epoch_s: Wall-clock time (Unix) at 0 of the monotonic clock.
        meter_cpu_s: CPU time that metering has cost this process so far.
        run: The setting `run_id`.
    """

    version: str
    carbon: Accounting
    traces: Sequence[Trace]
    epoch_s: float
    meter_cpu_s: float
    run: str | None


def epoch_s(now_s: float) -> float:
    """Return the wall-clock time at 0 of the monotonic clock, which reads `now_s` just now."""
    return time.time() - now_s


def together(resolution_j: Array, energy_j: Array) -> Array:
    """Return the resolution of calls from those of devices, one device a row.

    A device that can tell little of a call cannot because of how the call's power lies in time, and that is alike on
    all devices: such errors add up. Others are of the times of readings, and independent.
    """
    alike = np.where(resolution_j > _LITTLE * energy_j, resolution_j, 0.0)
    summed: Array = np.sqrt(alike.sum(axis=0) ** 2 + ((resolution_j - alike) ** 2).sum(axis=0))
    return summed


def device_name(channel: Channel) -> str:
    """Return how `devices` names a channel: its id, a GPU's with the head of its UUID, ``~`` if shared.

    The CPUs of a control group have its number: containers of one machine each have a ``cpu:0`` of their own.
    """
    name = channel.id
    if channel.device and (channel.kind == "gpu" or channel.source == "cgroup"):
        name += ":" + "-".join(channel.device.split("-")[:2])
    return name + ("~" if channel.shared else "")


def build(figures: Figures, context: Context) -> list[Record]:
    """Return the rows of settled calls."""
    traces = context.traces[: len(figures.metered)]
    joules = _joules(figures, traces)
    accounts = _accounts(figures, joules, context)
    columns = {
        **_constant(context),
        **_told(figures.calls, context),
        **_metered(figures, traces),
        "devices_j": _by_device(figures, traces),
        **joules,
        **accounts.columns,
        "meta": _meta(figures, traces, context, accounts.remarks),
    }
    return list(map(Record._make, zip(*map(columns.__getitem__, COLUMNS), strict=False)))


def _constant(context: Context) -> dict[str, Iterable[object]]:
    """Return the columns that are the same in every row."""
    return {
        "schema": repeat(SCHEMA),
        "pid": repeat(os.getpid()),
        "aimeter_version": repeat(context.version),
        "machine": repeat(machine()),
    }


def _told(calls: Sequence[Call], context: Context) -> dict[str, Iterable[object]]:
    """Return the columns that the calls know by themselves."""
    counts = [call.counts for call in calls]
    counted = set().union(*counts)
    models = [call.notes.get("model") for call in calls]
    parents = [call.parent for call in calls]
    return {
        "call_id": [call.call_id for call in calls],
        "parent_id": [None if parent is None else parent.call_id for parent in parents],
        "name": [text(call.name) for call in calls],
        "status": [call.status for call in calls],
        "error_type": [call.error_type for call in calls],
        "start": _utc(context.epoch_s + np.array([call.start_s for call in calls])),
        "duration_s": [call.duration_s for call in calls],
        "thread": [call.thread for call in calls],
        "model": [None if model is None else str(model) for model in models],
        **{key: [some.get(key) for some in counts] if key in counted else repeat(None) for key in COUNTS},
    }


def _utc(epoch_s: Array) -> list[str]:
    """Return times as ISO 8601 in UTC with microseconds."""
    micros_since = np.rint(epoch_s * 1e6).astype(np.int64)
    seconds, micros = (part.tolist() for part in np.divmod(micros_since, 1_000_000))
    texts = {
        second: datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S") for second in set(seconds)
    }
    return [f"{texts[second]}.{micro:06d}Z" for second, micro in zip(seconds, micros, strict=True)]


class _Devices(NamedTuple):
    """What the row says of the devices that metered a call."""

    names: str
    methods: dict[str, MeasuredBy]


def _metered(figures: Figures, traces: Sequence[Trace]) -> dict[str, Iterable[object]]:
    """Return the columns that say by what a call was metered; there are few combinations."""
    which = [tuple(column) for column in figures.metered.T.tolist()]
    known = {metered: _devices(traces, metered) for metered in set(which)}
    devices = [known[metered] for metered in which]
    return {
        "devices": [some.names for some in devices],
        **{f"{kind}_method": [some.methods[kind] for some in devices] for kind in ("gpu", "cpu", "dram")},
    }


def _by_device(figures: Figures, traces: Sequence[Trace]) -> list[tuple[float, ...]]:
    """Return the column of joules by device, in the order of the names in `devices`."""
    joules = figures.energy_j.T.tolist()
    places = _places([device_name(trace.channel) for trace in traces])
    if figures.metered.all() and len(set(places)) == len(places):
        return list(map(tuple, joules))
    found: list[tuple[float, ...]] = []
    for metered, drawn in zip(figures.metered.T.tolist(), joules, strict=True):
        own: dict[int, float] = {}
        for place, is_metered, joule in zip(places, metered, drawn, strict=True):
            if is_metered:
                own[place] = own.get(place, 0.0) + joule
        found.append(tuple(own.values()))
    return found


def _places(names: Sequence[str]) -> list[int]:
    """Return where each name stands first: a device that fell back has two traces, but one name."""
    return [names.index(name) for name in names]


def _devices(traces: Sequence[Trace], metered: Sequence[bool]) -> _Devices:
    methods: dict[str, MeasuredBy] = dict.fromkeys(KINDS, "none")
    # A device that fell back to another way of reading has two traces, but one name.
    names: dict[str, None] = {}
    for trace, is_metered in zip(traces, metered, strict=True):
        if is_metered:
            channel = trace.channel
            names[device_name(channel)] = None
            methods[channel.kind] = max(methods[channel.kind], channel.method, key=DIRECTNESS.__getitem__)
    return _Devices(" ".join(names), methods)


def _joules(figures: Figures, traces: Sequence[Trace]) -> dict[str, Sequence[float | None]]:
    """Return the columns of energy and what follows from it; None where nothing was metered."""
    metered = figures.metered
    joules = np.where(metered, figures.energy_j, 0.0)
    energy = joules.sum(axis=0)
    channels = [trace.channel for trace in traces]
    parts: dict[str, list[float | None]] = {}
    for kind in KINDS:
        own = [place for place, channel in enumerate(channels) if channel.kind == kind]
        parts[f"{kind}_j"] = _where(_any(metered[own]), joules[own].sum(axis=0))
    calibration: dict[str, Array] = {}  # of all channels of one kind: they share its cause
    for trace, drawn in zip(traces, joules, strict=True):
        cause = f"{trace.channel.source} {trace.channel.kind}"
        calibration[cause] = calibration.get(cause, 0.0) + trace.relative_error * drawn
    idle_w = np.array([np.nan if trace.idle_w is None else trace.idle_w for trace in traces])[:, None]
    idle = np.where(metered, np.minimum(idle_w * figures.idle_s, joules), 0.0).sum(axis=0)
    resolution = together(np.where(metered, figures.resolution_j, 0.0), figures.energy_j)
    known = _any(metered)
    energy_j = _where(known, energy)
    return {
        "energy_j": energy_j,
        "error_j": _where(known, np.sqrt(error_j2(resolution**2, calibration.values()))),
        "resolution_j": _where(known, resolution),
        "self_j": _where(known, np.where(metered, figures.self_j, 0.0).sum(axis=0)),
        "window_j": _where(known, np.where(metered, figures.window_j, 0.0).sum(axis=0)),
        "idle_j": _where(known & ~np.isnan(idle), idle),
        **parts,
        "coverage": (figures.coverage * known).tolist(),
        "concurrency": figures.concurrency.tolist(),
    }


def _accounts(figures: Figures, joules: Mapping[str, Sequence[float | None]], context: Context) -> Accounts:
    """Return the columns of carbon and water, and what is to be remarked on each call."""
    starts = [context.epoch_s + call.start_s for call in figures.calls]
    durations = [call.duration_s for call in figures.calls]
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    share_s = ((np.array(durations) - figures.suspended_s) / figures.concurrency).tolist()
    return context.carbon.of(Calls(starts, ends, joules["energy_j"], joules["error_j"], share_s))


def _any(metered: Mask) -> Mask:
    """Return for each call whether any device metered it."""
    return metered.any(axis=0)  # type: ignore[return-value]  # an array, as there are two axes


def _where(known: Mask, values: Array) -> list[float | None]:
    """Return the values with None where they are not known."""
    listed: list[float | None] = values.tolist()
    if known.all():
        return listed
    return [value if is_known else None for value, is_known in zip(listed, known.tolist(), strict=True)]


def _meta(
    figures: Figures,
    traces: Sequence[Trace],
    context: Context,
    carbon: Sequence[Mapping[str, object]] | None,
) -> list[Mapping[str, object]]:
    """Return what callers noted and aimeter remarks; calls of which there is nothing to say share one."""
    common: dict[str, object] = {"meter_cpu_s": round(context.meter_cpu_s, 4)}
    if context.run is not None:
        common["run"] = context.run
    if context.carbon.sources:
        common["factors"] = dict(context.carbon.sources)
    covers = {
        trace.channel.id: trace.channel.note or f"includes {', '.join(trace.channel.covers)}"
        for trace in traces
        if trace.channel.covers or trace.channel.source == "process"
    }
    if covers:
        common["covers"] = covers
    contradictions = {trace.channel.id: trace.contradiction for trace in traces if trace.contradiction}
    if contradictions:
        common["contradiction"] = contradictions
    nothing: Mapping[str, object] = {"aimeter": common}
    died = [trace for trace in traces if trace.died_s < math.inf and not trace.health.withdrawn]
    doubtful = _implausible(figures, traces)
    borrowed_s = [
        (k, one.calibration.measured_s) for k, one in enumerate(traces) if one.calibration is not None
    ]
    if not (died or doubtful or borrowed_s or carbon or figures.suspended_s.any()):
        return [_noted(call.notes, call.remarks, common, nothing) for call in figures.calls]
    metas: list[Mapping[str, object]] = []
    for index, (call, suspended_s) in enumerate(
        zip(figures.calls, figures.suspended_s.tolist(), strict=True)
    ):
        notes, remarks = call.notes, call.remarks
        if index in doubtful:
            remarks = {**remarks, "implausible": doubtful[index]}
        if suspended_s:
            remarks = {**remarks, "suspended_s": round(suspended_s, 9)}
        if died:
            metered = {
                trace.channel.id for trace, yes in zip(traces, figures.metered[:, index], strict=True) if yes
            }
            missing = _missing(call, died, metered)
            remarks = {**remarks, "missing": missing} if missing else remarks
        since_s = min((when_s for k, when_s in borrowed_s if figures.metered[k, index]), default=None)
        if since_s is not None:
            age_s = max(context.epoch_s + call.start_s - since_s, 0.0)
            remarks = {**remarks, "idle": {"source": "calibration", "age_s": round(age_s)}}
        if carbon is not None:
            remarks = {**remarks, "carbon": carbon[index]}
        metas.append(_noted(notes, remarks, common, nothing))
    return metas


def _noted(
    notes: Mapping[str, object],
    remarks: Mapping[str, object],
    common: Mapping[str, object],
    nothing: Mapping[str, object],
) -> Mapping[str, object]:
    """Return what stands in a row's `meta`."""
    if not (notes or remarks):
        return nothing
    rest = {key: value for key, value in notes.items() if key != "model"}
    return {**rest, "aimeter": {**remarks, **common}}


def _missing(call: Call, died: Sequence[Trace], metered: Container[str]) -> dict[str, str]:
    """Return why devices are missing in a row: they died during the call, or before it and did not come back."""
    return {
        trace.channel.id: trace.reason
        for trace in died
        if call.start_s < trace.died_s < call.end_s
        or (trace.died_s <= call.start_s and trace.channel.id not in metered)
    }


def _implausible(figures: Figures, traces: Sequence[Trace]) -> dict[int, dict[str, str]]:
    """Return, by call, the devices whose mean power lies outside what they can draw, even with its error.

    The range is from half of the idle power seen, because idle is not always the same, to the device's own limit,
    with a tenth on top, because limits are kept on average only. This check needs no model: whatever the cause, a
    sensor that says so is wrong, or another one is meant.
    """
    found: dict[int, dict[str, str]] = {}
    seconds = np.array([call.duration_s for call in figures.calls])
    seconds = np.where(seconds > 0, seconds, np.inf)
    for k, trace in enumerate(traces):
        most_w, least_w = trace.channel.max_power_w or math.inf, (trace.idle_w or 0.0) / 2
        power_w, half_w = figures.window_j[k] / seconds, figures.resolution_j[k] / seconds
        outside = (power_w - half_w > 1.1 * most_w) | (power_w + half_w < least_w)
        for index in np.flatnonzero(outside & figures.metered[k] & np.isfinite(seconds)):
            text = f"{power_w[index]:.0f} W is outside {2 * least_w:.0f} W idle to {most_w:.0f} W limit"
            found.setdefault(int(index), {})[trace.channel.id] = text
    return found


def so_far(call: Call, used: SoFar, context: Context) -> Figures:
    """Return provisional figures of a call that is still open; half of what it used is left open."""
    share, own, window = (np.array([one or 0.0 for one in each])[:, None] for each in used)
    one, none = np.ones(1), np.zeros(1)
    metered = np.array(
        [
            len(trace.curve) > 0 and has is not None
            for trace, has in zip(context.traces, used.energy_j, strict=True)
        ],
        dtype=bool,
    )[:, None]
    return Figures([call], share, own, window, share / 2, metered, 0 * share, one, one, none)
