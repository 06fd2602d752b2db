"""Groups of devices that are shared alike: by all calls at first, and apart as soon as a call names those that it uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from aimeter._attribution.shares import Shares

if TYPE_CHECKING:
    from aimeter._calls.call import Call
    from aimeter._curve.trace import Trace
    from aimeter.sensors.base import Channel


class Open(NamedTuple):
    """An open call.

    Attributes:
        call: The call.
        devices: What it and the calls around it name: its devices are among each of these.
        weight: In multiples of 1 / UNIT.
        groups: Where it has a part.
    """

    call: Call
    devices: tuple[frozenset[str], ...]
    weight: int
    groups: list[Group]


class Group:
    """Devices that are shared alike.

    Attributes:
        key: For each selection of devices seen so far, whether these devices are among it.
        places: Where their traces are among all traces.
        shares: Their shares.
    """

    def __init__(self, key: tuple[bool, ...], places: list[int], shares: Shares) -> None:
        self.key = key
        self.places = places
        self.shares = shares


class Groups:
    """All devices, each in one group.

    Attributes:
        known: The groups.
        traces: The traced channels; may grow, never shrinks.
    """

    def __init__(self, traces: list[Trace]) -> None:
        self.traces = traces
        self.known = [Group((), [], Shares([]))]
        self._selections: list[frozenset[str]] = []
        self._placed = 0
        # Where calls go that name no device there is: they have their row, too.
        self._nowhere = Group((), [], Shares([]))
        self.place_traces()

    def all(self) -> list[Group]:
        """Return the groups, and that of calls which have a part in none."""
        return [*self.known, self._nowhere] if self._selections else self.known

    def of(self, call: Call, devices: tuple[frozenset[str], ...], others_open: Iterable[Open]) -> list[Group]:
        """Return the groups of a call.

        Args:
            call: The call.
            devices: What it and the calls around it name.
            others_open: The calls that are open; what is divided for this one, they have a part in each of.
        """
        if not devices:
            return [*self.known]
        for selection in devices:
            if selection not in self._selections:
                self._divide(selection, others_open)
        numbers = [self._selections.index(selection) for selection in devices]
        groups = [group for group in self.known if all(group.key[number] for number in numbers)]
        channels = [trace.channel for trace in self.traces]
        absent = sorted(
            {
                name
                for name in call.devices or ()
                if not any(
                    selects({name}, channel) and all(selects(others, channel) for others in devices)
                    for channel in channels
                )
            }
        )
        if absent:
            call.remark("no such device", absent)
            call.meter.warn_once(
                "absent devices",
                f"a call named {call.name!r} names devices that are not metered, or not among those of the call "
                f"around it: {', '.join(absent)}. These are metered: "
                f"{', '.join(dict.fromkeys(channel.id for channel in channels)) or 'none'}.",
            )
        return groups or [self._nowhere]

    def _divide(self, devices: frozenset[str], calls: Iterable[Open]) -> None:
        """Divide every group of which only a part is selected, and those who have a part in it."""
        self._selections.append(devices)
        divided: dict[int, list[Group]] = {}
        for group in self.known:
            chosen = [selects(devices, self.traces[place].channel) for place in group.places]
            parts = [[k for k, yes in enumerate(chosen) if yes == wanted] for wanted in (True, False)]
            if all(parts):
                divided[id(group)] = [
                    Group((*group.key, wanted), [group.places[k] for k in part], group.shares.part(part))
                    for wanted, part in zip((True, False), parts, strict=True)
                ]
            else:
                group.key = (*group.key, bool(parts[0]))
                divided[id(group)] = [group]
        self.known = [part for group in self.known for part in divided[id(group)]]
        for one in calls:
            one.groups[:] = [part for group in one.groups for part in divided.get(id(group), [group])]
            one.call.hold(1 + len(one.groups))

    def place_traces(self) -> None:
        """Give traces that were added since to the groups that they belong to."""
        for place in range(self._placed, len(self.traces)):
            trace = self.traces[place]
            key = tuple(selects(selection, trace.channel) for selection in self._selections)
            group = next((group for group in self.known if group.key == key), None)
            if group is None:
                group = Group(key, [], Shares([]))
                self.known.append(group)
            group.places.append(place)
            group.shares.traces.append(trace)
        self._placed = len(self.traces)


def selects(devices: Iterable[str], channel: Channel) -> bool:
    """Return whether a channel is among devices named by kind (``gpu``), id (``gpu:0``) or head of the UUID."""
    return any(
        name in (channel.kind, channel.id)
        or (len(name) > len("GPU-") and channel.device.casefold().startswith(name.casefold()))
        for name in devices
    )
