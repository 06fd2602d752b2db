"""What the pages, pictures and tables of a report show: one pass over the rows, in bounded memory."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from aimeter.report.bins import LAST_S, Bins, unix_s
from aimeter.report.divided import Rows
from aimeter.report.spread import Spread
from aimeter.report.summary import FULLY_COVERED
from aimeter.report.tally import MOST_NAMES, Tally

if TYPE_CHECKING:
    from aimeter.record import Record
    from aimeter.report.summary import By, Summary

MOST_CALLS = 2_000
"""Calls that are drawn one by one; of more, so many by chance and the costliest."""

_MOST_SPREADS = 200
_COSTLIEST = 20
_MOST_WAITING = 10_000
_MOST_GAPS = 16
"""Calls inside one another that are not wanted; one may say that it is inside itself."""
_IDLE, _GRAMS, _JOULES, _WEIGHTED = ("idle j", "co2e g", "energy j", "energy j times g/kWh")
"""What is spread over time beside the devices, whose names have no spaces."""
_CARBON = frozenset({_GRAMS, _JOULES, _WEIGHTED})
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Drawn(NamedTuple):
    """A call that is drawn.

    Attributes:
        call_id: Its id.
        parent_id: That of the call around it.
        name: Its name.
        model: Its model, or "".
        status: How it ended.
        place: Process and thread.
        start_s: When it began, in seconds since 1970.
        duration_s: How long it took.
        energy_j: What it used, or None.
        error_j: The error of that, or None.
        co2e_g: Its grams, or None.
    """

    call_id: str
    parent_id: str | None
    name: str
    model: str
    status: str
    place: str
    start_s: float
    duration_s: float
    energy_j: float | None
    error_j: float | None
    co2e_g: float | None


class NameSpread(NamedTuple):
    """Joules of the calls of a name and model: how many, and the 5, 25, 50, 75 and 95 % quantiles."""

    name: str
    model: str
    calls: int
    least_j: float
    quantiles_j: tuple[float, ...]
    most_j: float


class Stretch(NamedTuple):
    """A stretch of time and what is told of it by key."""

    begin_s: float
    end_s: float
    values: dict[str, float | None]


class Device(NamedTuple):
    """What calls that no other call encloses used of one device, and how that was measured."""

    name: str
    method: str
    energy_j: float


@dataclass(frozen=True, slots=True)
class Digest:
    """What a log tells.

    Attributes:
        summary: Calls by name.
        begin_s: When the first call began, in seconds since 1970; likewise `end_s`. None without calls.
        machines: The machines' ids.
        processes: How many processes wrote rows.
        devices: What was metered, the most energy first.
        idle_j: What of the energy devices would have drawn anyway; None where it is not known.
        power: Over time, the mean watts that calls used by device.
        carbon: Over time, grams (``co2e_g``) and the mean intensity (``g_per_kwh``).
        spreads: Joules a call, by name and model.
        calls: Calls that are drawn one by one: all, or as many as are drawn.
        complete: Whether these are all.
        costliest: The calls that used most.
        errors: How often calls raised what, by name and by the exception's name.
        uncovered: Calls of which the meters cover less than all.
        sources: What the grams are made of: how much energy with each kind of intensity.
        meter_cpu_s: CPU time that metering took, of all processes; None if rows do not say.
        problems: Where the first lines are that were no rows.
    """

    summary: Summary
    begin_s: float | None
    end_s: float | None
    machines: tuple[str, ...]
    processes: int
    devices: tuple[Device, ...]
    idle_j: float | None
    power: tuple[Stretch, ...]
    carbon: tuple[Stretch, ...]
    spreads: tuple[NameSpread, ...]
    calls: tuple[Drawn, ...]
    complete: bool
    costliest: tuple[Drawn, ...]
    errors: tuple[tuple[str, str, int], ...]
    uncovered: int
    sources: tuple[tuple[str, str, float], ...]
    meter_cpu_s: float | None
    problems: tuple[str, ...] = ()


class Digester:
    """Takes records as they come; ask for the digest at the end.

    Args:
        by: How the summary is shown.
        seed: Which calls are drawn if there are too many is chance, the same for the same seed.
    """

    def __init__(self, by: By = "call", seed: int = 0) -> None:
        self._tally = Tally(MOST_NAMES, by, over_time=True)
        self._choose = random.Random(seed)  # noqa: S311 - which calls are drawn
        self._begin_s: float | None = None
        self._end_s: float | None = None
        self._machines: dict[str, None] = {}
        self._pids: set[tuple[str, int]] = set()
        self._devices: dict[str, float] = {}
        self._methods: dict[str, str] = {}
        self._idle_j: float | None = None
        self._power, self._carbon = Bins(), Bins()
        self._inner: dict[str, dict[str, float]] = {}
        """By call whose row has not come, what the calls inside it used: their time is told by themselves."""
        self._around: dict[str, tuple[float, float] | str] = {}
        """When calls were whose rows came lately, as those inside may come after them; of one not wanted, who is around it."""
        self._around_before: dict[str, tuple[float, float] | str] = {}
        self._spreads: dict[tuple[str, str], Spread] = {}
        self._calls: list[Drawn] = []
        self._rows = 0
        self._costliest: list[tuple[float, int, Drawn]] = []
        self._errors: Counter[tuple[str, str]] = Counter()
        self._uncovered = 0
        self._sources: dict[tuple[str, str], float] = {}
        self._meter_cpu_s: dict[tuple[str, int], float] = {}

    def add(self, record: Record, *, wanted: bool = True) -> None:
        """Count one record in; if it is not wanted, what is inside it is taken to be inside the one around it."""
        self._tally.add(record, wanted=wanted)
        if not wanted:
            self._around_is(record.call_id, record.parent_id or "")
            if inner := self._inner.pop(record.call_id, None):
                self._take_off(record.parent_id, inner)
            return
        start_s = unix_s(record.start, record.duration_s)
        if start_s is not None:
            end_s = start_s + record.duration_s
            self._begin_s = start_s if self._begin_s is None else min(self._begin_s, start_s)
            self._end_s = end_s if self._end_s is None else max(self._end_s, end_s)
        if len(self._machines) < MOST_NAMES:
            self._machines[record.machine] = None
        process = record.machine, record.pid
        if process in self._pids or len(self._pids) < MOST_NAMES:
            self._pids.add(process)
            told = record.meta.get("aimeter")
            spent_s = told.get("meter_cpu_s") if isinstance(told, dict) else None
            if isinstance(spent_s, int | float) and 0 <= spent_s < LAST_S:
                self._meter_cpu_s[process] = max(self._meter_cpu_s.get(process, 0.0), float(spent_s))
        if record.status == "error":
            self._errors[record.name, record.error_type or ""] += 1
        self._uncovered += record.coverage < FULLY_COVERED
        if start_s is not None:
            self._draw(record, start_s)
            self._add_energy(record, start_s, end_s)

    def _draw(self, record: Record, start_s: float) -> None:
        drawn = Drawn(
            record.call_id,
            record.parent_id,
            record.name,
            record.model or "",
            record.status,
            f"{record.pid} {record.thread}".rstrip(),
            start_s,
            record.duration_s,
            record.energy_j,
            record.error_j,
            record.co2e_g,
        )
        self._rows = number = self._rows + 1
        if number <= MOST_CALLS:
            self._calls.append(drawn)
        else:  # each call has the same chance to be among those drawn: Vitter's algorithm R
            place = self._choose.randrange(number)
            if place < MOST_CALLS:
                self._calls[place] = drawn
        if record.energy_j is not None:
            key = record.name, record.model or ""
            if key in self._spreads or len(self._spreads) < _MOST_SPREADS:
                self._spreads.setdefault(key, Spread()).add(record.energy_j)
            add = heapq.heappush if len(self._costliest) < _COSTLIEST else heapq.heappushpop
            add(self._costliest, (record.energy_j, -number, drawn))

    def _add_energy(self, record: Record, start_s: float, end_s: float) -> None:
        """Count in what a call used but for the calls inside it, whose rows come before or after its own."""
        if record.energy_j is None:
            return
        names = record.devices.split()
        whole = dict(zip(names, record.devices_j, strict=False)) or {record.devices or "all": record.energy_j}
        for name in whole:
            if name not in self._methods and len(self._methods) < MOST_NAMES:
                self._methods[name] = _method(name, record)
        if record.idle_j is not None:
            whole[_IDLE] = record.idle_j
        if record.co2e_g is not None:
            whole[_GRAMS] = record.co2e_g
            source = record.intensity_source or "", record.intensity_method or ""
            if record.parent_id is None and (source in self._sources or len(self._sources) < _MOST_SPREADS):
                self._sources[source] = self._sources.get(source, 0.0) + record.energy_j
            if record.intensity_g_per_kwh is not None:
                whole[_JOULES] = record.energy_j
                whole[_WEIGHTED] = record.energy_j * record.intensity_g_per_kwh
        inner = self._inner.pop(record.call_id, {})
        self._spread(start_s, end_s, {key: amount - inner.get(key, 0.0) for key, amount in whole.items()})
        self._take_off(record.parent_id, whole)
        self._around_is(record.call_id, (start_s, end_s))

    def _take_off(self, parent_id: str | None, amounts: dict[str, float]) -> None:
        """Take what calls used off the one around them, or off that around it if it is not wanted."""
        for _ in range(_MOST_GAPS):
            around = self._around.get(parent_id or "", self._around_before.get(parent_id or ""))
            if not isinstance(around, str):
                break
            parent_id = around
        if not parent_id:
            return
        if isinstance(around, tuple):
            self._spread(*around, {key: -amount for key, amount in amounts.items()})
        elif parent_id in self._inner or len(self._inner) < _MOST_WAITING:
            sums = self._inner.setdefault(parent_id, {})
            for key, amount in amounts.items():
                sums[key] = sums.get(key, 0.0) + amount

    def _around_is(self, call_id: str, around: tuple[float, float] | str) -> None:
        self._around[call_id] = around
        if len(self._around) > _MOST_WAITING:
            self._around, self._around_before = {}, self._around

    def _spread(self, start_s: float, end_s: float, amounts: dict[str, float]) -> None:
        told = {key: amount for key, amount in amounts.items() if key in _CARBON}
        drawn = {key: amount for key, amount in amounts.items() if key in self._methods}
        self._power.spread(start_s, end_s, drawn)
        self._carbon.spread(start_s, end_s, told)
        for name, joules in drawn.items():
            self._devices[name] = self._devices.get(name, 0.0) + joules
        if _IDLE in amounts:
            self._idle_j = (self._idle_j or 0.0) + amounts[_IDLE]

    def digest(self) -> Digest:
        """Return what the records so far tell."""
        return Digest(
            summary=self._tally.summary(),
            begin_s=self._begin_s,
            end_s=self._end_s,
            machines=tuple(self._machines),
            processes=len(self._pids),
            devices=tuple(
                sorted(
                    (Device(name, self._methods[name], joules) for name, joules in self._devices.items()),
                    key=lambda device: -device.energy_j,
                )
            ),
            idle_j=self._idle_j,
            power=_stretches(
                self._power, lambda sums, span_s: {name: max(j, 0.0) / span_s for name, j in sums.items()}
            ),
            carbon=_stretches(
                self._carbon,
                lambda sums, _: {
                    "co2e_g": max(sums.get(_GRAMS, 0.0), 0.0),
                    "g_per_kwh": sums[_WEIGHTED] / sums[_JOULES] if sums.get(_JOULES, 0.0) > 0 else None,
                },
            ),
            spreads=tuple(
                NameSpread(
                    *key, spread.count, spread.least, tuple(map(spread.quantile, _QUANTILES)), spread.most
                )
                for key, spread in self._spreads.items()
            ),
            calls=tuple(sorted(self._calls, key=lambda call: call.start_s)),
            complete=self._rows <= MOST_CALLS,
            costliest=tuple(drawn for *_, drawn in sorted(self._costliest, reverse=True)),
            errors=tuple((*key, count) for key, count in self._errors.most_common(_MOST_SPREADS)),
            uncovered=self._uncovered,
            sources=tuple(
                (*key, joules) for key, joules in sorted(self._sources.items(), key=lambda item: -item[1])
            ),
            meter_cpu_s=sum(self._meter_cpu_s.values()) if self._meter_cpu_s else None,
        )


def digest(
    records: Iterable[Record], by: By = "call", wanted: Callable[[Record], bool] | None = None
) -> Digest:
    """Return what records tell, such as those of `aimeter.logs.read`: see `Digester`, and `Rows` for the arguments."""
    rows = Rows(records, wanted)
    digester = Digester(by)
    for record, is_wanted in rows:
        digester.add(record, wanted=is_wanted)
    found = digester.digest()
    return replace(found, summary=rows.told(found.summary), problems=tuple(getattr(records, "problems", ())))


def _stretches(
    bins: Bins, tell: Callable[[dict[str, float], float], dict[str, float | None]]
) -> tuple[Stretch, ...]:
    return tuple(
        Stretch(begin_s, begin_s + bins.width_s, tell(sums, bins.width_s)) for begin_s, sums in bins.rows()
    )


def _method(name: str, record: Record) -> str:
    """Return how a device was measured: by its kind, as rows tell."""
    kind = name.partition(":")[0]
    return {"gpu": record.gpu_method, "cpu": record.cpu_method, "dram": record.dram_method}.get(kind, "")


def lanes(calls: Iterable[Drawn]) -> Iterator[tuple[Drawn, int]]:
    """Yield calls with the lane in which each is drawn: under the call around it, and no two at a time in one."""
    ends: list[float] = []
    lane_of: dict[str, int] = {}
    for call in sorted(calls, key=lambda one: (one.start_s, -one.duration_s)):
        lane = 0 if call.parent_id is None else lane_of.get(call.parent_id, -1) + 1
        while lane < len(ends) and ends[lane] > call.start_s + 1e-9:
            lane += 1
        ends += [0.0] * (lane + 1 - len(ends))
        ends[lane] = call.start_s + call.duration_s
        lane_of[call.call_id] = lane
        yield call, lane
