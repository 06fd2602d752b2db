"""One machine, once: what several processes used of one device at the same time is divided among them.

Each process meters all that a device draws while a call of its own is open, and knows of no other process. So where
calls of n processes are open at once, each of them has the whole in its rows. Here every one gets the n-th part, as
calls of one process that overlap do: a row's joules, taken as spread evenly over its time, times the mean of 1 / n.

A power that is not even could make the sum larger than what the device drew. Where rows of processes overlap without a
break, it drew no more than any set of stretches that covers the time did, a stretch being a time in which one process had
calls open all along; the parts are made smaller until they add up to the least of those.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aimeter._support.machine import UNKNOWN
from aimeter.record import Record
from aimeter.report.processes import Process, Row, process, span_of
from aimeter.sensors.base import KINDS

Array = npt.NDArray[np.float64]

_DEVICE = re.compile("([a-z]+):[0-9]+:(.+)")
"""A GPU by its place and its UUID, as each process may count the places anew; CPUs by their control group."""

_WHOLE = 1 - 1e-9
"""A part above this is the whole: the moments of a row are known to a microsecond."""

_SHORTEST_S = 1e-6


class Parts(NamedTuple):
    """What part of a row is its own, from 0 to 1.

    Attributes:
        energy: Of its joules.
        own: Of those without its children's.
        time: Of its share of the time.
        devices: Of the joules of each device.
    """

    energy: float
    own: float
    time: float
    devices: tuple[float, ...]


def devices(row: Row) -> list[str]:
    """Return what the devices of a row are called by every process of the machine."""
    names = [name.replace("~", "") for name in row.devices.split()]
    return [f"{found[1]} {found[2]}" if (found := _DEVICE.fullmatch(name)) else name for name in names]


class _Stretch(NamedTuple):
    begin_s: float
    end_s: float
    joules: float
    """What its calls used together."""
    least_j: float
    """What the device drew during the call that saw the most."""


@dataclass(slots=True)
class _Load:
    """What one process had open on a device, row by row."""

    begin_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    """Of calls that no other encloses; 0 of others, which are in those."""
    drawn_j: list[float] = field(default_factory=list)
    """What the device drew meanwhile, as far as the call's own figures say; infinite if they do not."""

    def stretches(self) -> list[_Stretch]:
        """Return the times in which a call was open all along, and what was used in each."""
        found: list[_Stretch] = []
        most_j = 0.0
        rows = zip(self.begin_s, self.end_s, self.joules, self.drawn_j, strict=True)
        for begin_s, end_s, joules, drawn_j in sorted(rows):
            if found and begin_s <= found[-1].end_s:
                last = found[-1]
                most_j = max(most_j, drawn_j)
                found[-1] = _Stretch(last.begin_s, max(last.end_s, end_s), last.joules + joules, most_j)
            else:
                most_j = drawn_j
                found.append(_Stretch(begin_s, end_s, joules, most_j))
        return found


class _Shared:
    """How a device was shared over time, as running integrals that are read at any two moments.

    Attributes:
        processes: Those that used it while another one did.
    """

    def __init__(self, loads: Mapping[Process, _Load]) -> None:
        by_process = {key: load.stretches() for key, load in loads.items()}
        stretches = [one for each in by_process.values() for one in each]
        begins = np.sort([one.begin_s for one in stretches])
        ends = np.sort([one.end_s for one in stretches])
        self._at: Array = np.unique(np.concatenate([begins, ends]))
        begun, ended = np.searchsorted(begins, self._at, "right"), np.searchsorted(ends, self._at, "right")
        self._part: Array = 1.0 / np.maximum(begun - ended, 1)
        self._steps: Array = np.concatenate([[0.0], np.cumsum(np.diff(self._at) * self._part[:-1])])
        # A chain of stretches that overlap or touch ends where none is open.
        self._chain_ends: Array = self._at[begun == ended]
        self._scale: Array = np.ones(len(self._chain_ends) + 1)
        self.processes = {
            key
            for key, each in by_process.items()
            if np.any(self.mean(*np.array([one[:2] for one in each]).T) < _WHOLE)
        }
        if self.processes:
            self._limit(list(loads.values()), stretches)
        self._at_list: list[float] = self._at.tolist()
        self._steps_list: list[float] = self._steps.tolist()
        self._part_list: list[float] = self._part.tolist()
        self._scale_list: list[float] = self._scale.tolist()
        self._chain_list: list[float] = self._chain_ends.tolist()

    def _limit(self, loads: Sequence[_Load], stretches: Sequence[_Stretch]) -> None:
        begin_s, end_s, joules = (
            np.array([value for load in loads for value in getattr(load, name)])
            for name in ("begin_s", "end_s", "joules")
        )
        chains = len(self._scale)
        divided = np.bincount(self._chain(begin_s), joules * self.mean(begin_s, end_s), chains)
        in_chain: list[list[_Stretch]] = [[] for _ in range(chains)]
        chain_of = self._chain(np.array([one.begin_s for one in stretches])).tolist()
        for one, chain in zip(stretches, chain_of, strict=True):
            in_chain[chain].append(one)
        for chain, members in enumerate(in_chain):
            if members and divided[chain] > 0:
                self._scale[chain] = min(1.0, _least_cover(members) / divided[chain])

    def _chain(self, moment_s: Array) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._chain_ends, moment_s, "left")

    def _place(self, moment_s: Array) -> npt.NDArray[np.intp]:
        return np.clip(np.searchsorted(self._at, moment_s, "right") - 1, 0, len(self._at) - 1)

    def _integral(self, moment_s: Array) -> Array:
        place = self._place(moment_s)
        beyond_s = moment_s - self._at[place]
        return np.asarray(self._steps[place] + beyond_s * self._part[place])

    def mean(self, begin_s: Array, end_s: Array) -> Array:
        """Return the mean of 1 / n between moments."""
        lasts_s = end_s - begin_s
        integral = self._integral(end_s) - self._integral(begin_s)
        part = integral / np.where(lasts_s > 0, lasts_s, 1.0)
        return np.where(lasts_s > 0, np.clip(part, 0.0, 1.0), self._part[self._place(begin_s)])

    def _until(self, moment_s: float) -> float:
        """Return the integral at one moment; for one, bisecting lists takes a tenth of NumPy's time."""
        place = min(max(bisect_right(self._at_list, moment_s) - 1, 0), len(self._at_list) - 1)
        return self._steps_list[place] + (moment_s - self._at_list[place]) * self._part_list[place]

    def parts(self, span: tuple[float, float], inside: Iterable[tuple[float, float]]) -> Parts:
        """Return the parts of a row with this span, and with rows inside it."""
        begin_s, end_s = span
        own_s = end_s - begin_s
        if own_s > 0:
            part = min(max((self._until(end_s) - self._until(begin_s)) / own_s, 0.0), 1.0)
        else:
            part = float(self.mean(np.array([begin_s]), np.array([end_s]))[0])
        own, reached_s = own_s * part, begin_s
        for first_s, last_s in sorted(inside):
            since_s, until_s = max(first_s, reached_s), min(last_s, end_s)
            if until_s > since_s:
                own_s -= until_s - since_s
                own -= self._until(until_s) - self._until(since_s)
                reached_s = until_s
        scale = self._scale_list[bisect_left(self._chain_list, begin_s)]
        alone = min(max(own / own_s, 0.0), 1.0) if own_s > _SHORTEST_S else part
        return Parts(part * scale, alone * scale, part, ())


def _least_cover(stretches: Sequence[_Stretch]) -> float:
    """Return the least joules of stretches that together cover the time of all of them, which has no break."""
    begin_s = min(one.begin_s for one in stretches)
    ends_s, costs_j = [begin_s], [0.0]
    """What it costs to cover the time up to each end; both rise, as the dearer that reaches less far is dropped."""
    for one in sorted(stretches, key=lambda one: one.end_s):
        place = bisect_left(ends_s, one.begin_s)
        if place == len(ends_s):  # what covers the time before it reaches further than it does
            continue
        cost_j = costs_j[place] + max(one.joules, one.least_j)
        while costs_j and costs_j[-1] >= cost_j:
            ends_s.pop()
            costs_j.pop()
        if not ends_s or one.end_s > ends_s[-1]:
            ends_s.append(one.end_s)
            costs_j.append(cost_j)
    return costs_j[-1]


class Division:
    """Which rows overlap with those of other processes, and what part of each is its own.

    Args:
        rows: All rows.

    Attributes:
        processes: How many processes used some device while another one did.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        kept: list[tuple[Row, float, float]] = []
        self._children: dict[str, list[tuple[float, float]]] = {}
        times_seen: Counter[str] = Counter()
        for row in rows:
            span = span_of(row)
            if span is not None and row.machine != UNKNOWN:
                kept.append((row, *span))
                times_seen[row.call_id] += 1
                if row.parent_id is not None:
                    self._children.setdefault(row.parent_id, []).append(span)
        ids = times_seen.keys()
        for call_id, times_said in times_seen.items():
            if (
                times_said > 1
            ):  # whose children they are, nobody knows; and each of the rows would go through all
                self._children.pop(call_id, None)
        loads: dict[tuple[str, str], dict[Process, _Load]] = {}
        for row, begin_s, end_s in kept:
            inside, seen = row.parent_id in ids, _seen(row)
            for name, used_j in zip(devices(row), _devices_j(row), strict=True):
                load = loads.setdefault((row.machine, name), {}).setdefault(process(row), _Load())
                load.begin_s.append(begin_s)
                load.end_s.append(end_s)
                load.joules.append(0.0 if inside else used_j)
                load.drawn_j.append(used_j * seen if used_j else 0.0)
        self._shared: dict[tuple[str, str], _Shared] = {}
        sharing: set[Process] = set()
        for device, by_process in loads.items():
            if len(by_process) > 1:
                shared = _Shared(by_process)
                if shared.processes:
                    self._shared[device] = shared
                    sharing |= shared.processes
        self.processes = len(sharing)

    def parts(self, row: Row) -> Parts | None:
        """Return what part of a row is its own; None if it shares nothing with another process."""
        shared = [self._shared.get((row.machine, name)) for name in devices(row)]
        span = span_of(row)
        if span is None or not any(shared):
            return None
        inside = self._children.get(row.call_id, ())
        found = [_ALONE if one is None else one.parts(span, inside) for one in shared]
        energy = [each.energy for each in found]
        if all(part == 1.0 for part in energy):
            return None
        weights = _devices_j(row)
        if not sum(weights) > 0:
            weights = (1.0,) * len(found)
        whole = sum(weights)
        return Parts(
            energy=sum(part * weight for part, weight in zip(energy, weights, strict=True)) / whole,
            own=sum(each.own * weight for each, weight in zip(found, weights, strict=True)) / whole,
            time=min(each.time for each in found),
            devices=tuple(energy),
        )

    def divided(self, record: Record) -> Record:
        """Return a record with what is its own: joules, their error, grams, litres and share of the time."""
        parts = self.parts(record)
        if parts is None:
            return record
        devices_j = tuple(
            joules * part for joules, part in zip(_devices_j(record), parts.devices, strict=True)
        )
        changed: dict[str, object] = {"devices_j": devices_j} if record.devices_j else {}
        kinds = [name.partition(":")[0] for name in record.devices.split()]
        for kind in KINDS:
            own = [k for k, one in enumerate(kinds) if one == kind]
            before_j = sum(record.devices_j[k] for k in own) if record.devices_j else 0.0
            part = sum(devices_j[k] for k in own) / before_j if before_j > 0 else parts.energy
            changed[f"{kind}_j"] = _times(getattr(record, f"{kind}_j"), part)
        for name in _BY_ENERGY:
            changed[name] = _times(getattr(record, name), parts.energy)
        for name in _BY_TIME:
            changed[name] = _times(getattr(record, name), parts.time)
        changed["self_j"] = _times(record.self_j, parts.own)
        changed["concurrency"] = record.concurrency / parts.time
        return record._replace(**changed)  # type: ignore[arg-type]  # by the names of its columns


_ALONE = Parts(1.0, 1.0, 1.0, ())
_BY_ENERGY = (
    "energy_j",
    "error_j",
    "resolution_j",
    "idle_j",
    "co2e_g",
    "co2e_error_g",
    "market_co2e_g",
    "water_site_l",
    "water_grid_l",
)
_BY_TIME = ("embodied_g", "embodied_lower_g", "embodied_upper_g")


def _times(value: float | None, part: float) -> float | None:
    return None if value is None else value * part


def _devices_j(row: Row) -> tuple[float, ...]:
    """Return the joules of each device; where the row does not say, 0."""
    count = len(row.devices.split())
    return row.devices_j if len(row.devices_j) == count else (0.0,) * count


def _seen(row: Row) -> float:
    """Return how much more than the row's own the devices drew meanwhile: for other calls, and while not looked at."""
    if row.energy_j is None or row.window_j is None or not row.energy_j > 0 or not row.coverage > 0:
        return math.inf
    return row.window_j / row.energy_j / row.coverage
