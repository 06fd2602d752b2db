"""What rows come to as series of metrics: labels that are bounded in number, parts by method, and joules by device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from aimeter._attribution.rows import device_name
from aimeter._support.log import warn_once
from aimeter.record import DIRECTNESS

if TYPE_CHECKING:
    from aimeter.meter import Meter
    from aimeter.record import Record
    from aimeter.sensors.base import Channel

OTHERS = "other names"
"""The name under which calls are counted whose own would be one too many."""

BUCKETS_J = (*(round(base * 10.0**power, 4) for power in range(-3, 6) for base in (1.0, 3.0)), 1e6)
"""Upper ends of the classes of a call's joules: two a decade, from a millijoule to a megajoule."""

_LONGEST_LABEL = 200


class Names:
    """Names and models as labels, so many and no more.

    Args:
        most: How many pairs have labels of their own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[str, str | None], tuple[str, str]] = {}

    def of(self, row: Record) -> tuple[str, str]:
        """Return the labels of a row's name and model; the model's is empty if there is none."""
        return self._known.get((row.name, row.model)) or self._new(row.name, row.model)

    def _new(self, name: str, model: str | None) -> tuple[str, str]:
        if len(self._known) >= self._most:
            warn_once(
                f"There are series for {self._most} names and models; calls of others are counted as {OTHERS!r}:"
                " name calls by what they do, not by whom they serve."
            )
            return OTHERS, ""
        labels = self._known[name, model] = as_label(name), as_label(model or "")
        return labels


def as_label(text: str) -> str:
    """Return a text as a label: one that can be written as UTF-8, and not too long for a series."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def method_of(row: Record) -> str:
    """Return the least direct of the methods of a row's parts."""
    return max(row.gpu_method, row.cpu_method, row.dram_method, key=DIRECTNESS.__getitem__)


def parts_j(row: Record) -> tuple[tuple[float | None, str], ...]:
    """Return the joules of each kind of device, with the method; rows have none of other devices."""
    return (
        (row.gpu_j, row.gpu_method),
        (row.cpu_j, row.cpu_method),
        (row.dram_j, row.dram_method),
        (row.other_j, "other"),
    )


class Drawn(NamedTuple):
    """What a device drew since it was asked last.

    Attributes:
        device: Its id, such as ``gpu:0``.
        uuid: What tells it apart from others: a GPU's UUID.
        kind: ``gpu``, ``cpu``, ``dram`` or ``other``.
        method: How it is metered.
        energy_j: All of it.
        unattributed_j: The part that is no call's of this process.
    """

    device: str
    uuid: str
    kind: str
    method: str
    energy_j: float
    unattributed_j: float


class Devices:
    """The joules of a meter's devices, as far as calls are settled.

    Args:
        source: Returns the meter.
    """

    def __init__(self, source: Callable[[], Meter]) -> None:
        self._source = source
        self._unattributed_j: dict[str, float] = {}

    def since(self, rows: Iterable[Record]) -> Iterator[Drawn]:
        """Return what each device drew since the last time; `rows` are those that were settled meanwhile."""
        meter = self._source()
        of_calls: dict[str, float] = {}
        for row in rows:
            if row.parent_id is None:
                for name, joules in zip(row.devices.split(), row.devices_j, strict=False):
                    of_calls[name] = of_calls.get(name, 0.0) + joules
        now_j: dict[str, float] = {}
        channels: dict[str, Channel] = {}
        for trace, joules in zip(meter.sampler.readers.traces, meter.sampler.unattributed_j(), strict=False):
            name = device_name(trace.channel)
            channels.setdefault(name, trace.channel)
            now_j[name] = now_j.get(name, 0.0) + joules
        before_j, self._unattributed_j = self._unattributed_j, now_j
        for name, channel in channels.items():
            more_j = max(now_j[name] - before_j.get(name, 0.0), 0.0)
            yield Drawn(
                channel.id,
                as_label(channel.device),
                channel.kind,
                channel.method,
                of_calls.get(name, 0.0) + more_j,
                more_j,
            )

    def reopen(self) -> None:
        """Begin anew in a forked child, whose devices have drawn nothing since its beginning."""
        self._unattributed_j = {}
