"""Attribution of energy to calls: from the queue of starts and ends to the figures of those that are settled.

Most calls have a part in every device, so there is one set of `Shares`. As soon as a call names the devices that
it uses, the devices fall into groups that are shared alike, each with shares of its own; what a call used of each
group is put together when it is settled.
"""

from __future__ import annotations

import gc
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aimeter._attribution.edges import UNIT
from aimeter._attribution.figures import Figures, together
from aimeter._attribution.shares import MOST_EDGES, Shares

if TYPE_CHECKING:
    from aimeter._calls.call import Call, Pause
    from aimeter._curve.trace import Trace
    from aimeter.sensors.base import Channel

_LOOKED_AT = 64
"""So many open calls are looked at when calls are settled."""

_LOOK_AFTER_S = 1.0
"""Who holds a call that a single reference keeps is looked for after this time, and again after twice as long each time."""


class _Open(NamedTuple):
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
    groups: list[_Group]


class _Group:
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


class Attribution:
    """See the module's description.

    Not thread-safe: its owner holds a lock. Calls reach it through `queue`, to which any thread may append.

    Attributes:
        queue: Calls, appended once when they open and once when they end, and `Pause`s.
        traces: The traced channels; may grow, never shrinks.
        settled_s: Up to when everything is settled.
        behind: There was more to settle than is taken in one go.
    """

    def __init__(self, traces: list[Trace], queue: deque[Call | Pause] | None = None) -> None:
        self.queue: deque[Call | Pause] = deque() if queue is None else queue
        self.traces = traces
        self.settled_s = -math.inf
        self.behind = False
        self._open: dict[int, _Open] = {}
        self._looks: dict[int, tuple[float, float]] = {}
        """When to look for a call's holder again, and how long to wait after that."""
        self._inside: dict[int, int] = {}
        """How many references open calls hold to a call around them, by its id."""
        self._holding: dict[int, list[int]] = {}
        """The ids of those calls, one for each reference, by the id of the one that holds them."""
        self._rota: list[int] = []
        self._horizon_s = -math.inf
        self._selections: list[frozenset[str]] = []
        self._groups = [_Group((), [], Shares([]))]
        self._placed = 0
        # Where calls go that name no device there is: they have their row, too.
        self._nowhere = _Group((), [], Shares([]))
        self._place_traces()

    @property
    def open_calls(self) -> int:
        """Number of calls open as far as the queue has been read."""
        return len(self._open)

    @property
    def backlog(self) -> int:
        """Events and edges waiting to be settled."""
        return len(self.queue) + max(group.shares.edges for group in self._all_groups())

    @property
    def newest_s(self) -> float:
        """When a call last began or ended, as far as the queue has been read; NaN if none did."""
        times_s = [group.shares.newest_s for group in self._all_groups()]
        return max((time_s for time_s in times_s if not math.isnan(time_s)), default=math.nan)

    @property
    def unattributed_j(self) -> list[float]:
        """Energy of each trace drawn while no call was open, up to the last edge."""
        joules = [0.0] * len(self.traces)
        for group in self._groups:
            for place, drawn in zip(group.places, group.shares.unattributed_j.tolist(), strict=False):
                joules[place] = drawn
        return joules

    def calls_open(self) -> list[Call]:
        """Return the calls that are open as far as the queue has been read."""
        return [one.call for one in self._open.values()]

    def settle(self, now_s: float, *, until_s: float | None = None) -> Figures | None:
        """Settle what has become certain and return the figures of the calls that ended in it, if any did.

        One call settles a bounded number of edges; `behind` says whether there are more.

        Args:
            now_s: Events up to this time are known to be in the queue.
            until_s: If given, settle up to this time whatever the curves say; traces that do not reach it
                are closed with a gap.
        """
        self._place_traces()
        self._end_forgotten(now_s)
        self._read_queue(now_s if until_s is None else max(now_s, until_s))
        groups = self._all_groups()
        if until_s is None:
            until = min(group.shares.certain_until(self._horizon_s) for group in groups)
        else:
            until = until_s
            for trace in self.traces:
                if trace.alive:
                    trace.settle_gap(until_s)
        most = max(MOST_EDGES // len(groups), 64)
        manageable = min(group.shares.manageable_until(until, most) for group in groups)
        self.behind = self.behind or manageable < until
        until = manageable
        # With devices shared apart, a gap between the calls of some is no time in which nothing runs.
        teaches = len(groups) == 1
        settled = [(group.places, group.shares.settle(until, teaches=teaches)) for group in groups]
        some = [(places, figures) for places, figures in settled if figures is not None]
        idle_since_s = self._idle_since_s(groups)
        for group in groups:
            group.shares.learn_idle(until, idle_since_s)
        self.settled_s = max(self.settled_s, min(until, self._horizon_s))
        return together(some, len(self.traces)) if some else None

    @staticmethod
    def _idle_since_s(groups: Sequence[_Group]) -> float | None:
        since = [group.shares.idle_since_s for group in groups if not math.isnan(group.shares.newest_s)]
        return None if not since or None in since else max(one for one in since if one is not None)

    def so_far(self, call: Call, now_s: float) -> tuple[list[float | None], list[float | None]] | None:
        """Return the joules of an open call up to now, and of its whole window, by trace; None if it is not open.

        None stands for a trace in which the call has no part.
        """
        known = self._open.get(id(call))
        if known is None:
            return None
        shares: list[float | None] = [None] * len(self.traces)
        windows: list[float | None] = [None] * len(self.traces)
        for group in known.groups:
            found = group.shares.so_far(call, now_s)
            if found is not None:
                for place, share, window in zip(group.places, *found, strict=False):
                    shares[place], windows[place] = share, window
        return shares, windows

    def _end_forgotten(self, now_s: float) -> None:
        """End calls whose end was not seen: nobody holds them but aimeter itself, and perhaps the context they began in.

        A ``with`` statement holds its call, and so does whoever is to end it. A few calls are looked at in turn.
        """
        if not self._rota:
            self._rota = list(self._open)
        for _ in range(min(len(self._rota), _LOOKED_AT)):
            one = self._open.get(self._rota.pop())
            if one is not None and self._is_forgotten(one, now_s):
                one.call.give_up()

    def _is_forgotten(self, one: _Open, now_s: float) -> bool:
        if one.call.by_hand:
            return False
        children = self._inside.get(id(one.call), 0)
        strangers = one.call.strangers() - children
        if strangers != 1 or children:  # the context of a call with children holds one of those
            return strangers < 1
        # The next call in that context would see at once. To look from here goes through all objects there are.
        look_s, pause_s = self._looks.get(id(one.call), (now_s + _LOOK_AFTER_S, _LOOK_AFTER_S))
        due = now_s >= look_s
        self._looks[id(one.call)] = (now_s + 2 * pause_s, 2 * pause_s) if due else (look_s, pause_s)
        return due and _is_held_by_a_context(one.call)

    # The queue

    def _read_queue(self, horizon_s: float) -> None:
        """Take note of the events up to `horizon_s`."""
        queue, known, settled_s = self.queue, self._open, self._horizon_s
        events: list[tuple[float, int, Call, bool | None]] = []
        begun: set[int] = set()
        while queue and len(events) < MOST_EDGES:
            event = queue.popleft()
            pause: bool | None = None
            if isinstance(event, tuple):
                call, time_s, pause = event
            else:
                call, key = event, id(event)
                time_s = call.end_s if key in known or key in begun else call.start_s
                begun.add(key)
            if time_s > horizon_s:
                queue.appendleft(event)
                break
            events.append((max(time_s, settled_s), len(events), call, pause))
        self.behind = len(events) == MOST_EDGES
        if self.behind:
            horizon_s = max(events)[0]
        events.sort()
        for time_s, _, call, pause in events:
            one = known.get(id(call))
            if one is None:
                if pause is None and not call.closed:
                    self._begin(call, time_s)
            elif pause is not None:
                for group in one.groups:
                    group.shares.pause(call, time_s, suspended=pause)
            else:
                call.mark_closed()
                del known[id(call)]
                self._looks.pop(id(call), None)
                self._inside.pop(id(call), None)
                for place in self._holding.pop(id(call), ()):
                    if place in self._inside:
                        self._inside[place] -= 1
                for group in one.groups:
                    group.shares.close(call, time_s)
        self._horizon_s = max(settled_s, horizon_s)

    def _begin(self, call: Call, time_s: float) -> None:
        """Open a call; what it does not say of devices and weight is as in the call around it."""
        parent = call.parent
        around = None if parent is None else self._open.get(id(parent))
        devices, own = (() if around is None else around.devices), call.devices
        if own is not None:
            devices = (*devices, own)
        given = call.weight
        if given is not None:
            weight = max(round(given * UNIT), 1)
        else:
            weight = UNIT if around is None else around.weight
        groups = self._groups_of(call, devices) if devices else [*self._groups]
        self._open[id(call)] = _Open(call, devices, weight, groups)
        for group in groups:
            group.shares.open(call, time_s, weight)
        call.hold(1 + len(groups))
        holding = [place for held in call.holds() if (place := id(held)) in self._open]
        if holding:
            self._holding[id(call)] = holding
            for place in holding:
                self._inside[place] = self._inside.get(place, 0) + 1

    # The groups

    def _all_groups(self) -> list[_Group]:
        return [*self._groups, self._nowhere] if self._selections else self._groups

    def _groups_of(self, call: Call, devices: tuple[frozenset[str], ...]) -> list[_Group]:
        """Return the groups of a call that, with those around it, names devices."""
        for selection in devices:
            if selection not in self._selections:
                self._divide(selection)
        numbers = [self._selections.index(selection) for selection in devices]
        groups = [group for group in self._groups if all(group.key[number] for number in numbers)]
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
                f"around it: {', '.join(absent)}. `aimeter doctor` lists those that are metered.",
            )
        return groups or [self._nowhere]

    def _divide(self, devices: frozenset[str]) -> None:
        """Divide every group of which only a part is selected, and those who have a part in it."""
        self._selections.append(devices)
        divided: dict[int, list[_Group]] = {}
        for group in self._groups:
            chosen = [selects(devices, self.traces[place].channel) for place in group.places]
            parts = [[k for k, yes in enumerate(chosen) if yes == wanted] for wanted in (True, False)]
            if all(parts):
                divided[id(group)] = [
                    _Group((*group.key, wanted), [group.places[k] for k in part], group.shares.part(part))
                    for wanted, part in zip((True, False), parts, strict=True)
                ]
            else:
                group.key = (*group.key, bool(parts[0]))
                divided[id(group)] = [group]
        self._groups = [part for group in self._groups for part in divided[id(group)]]
        for one in self._open.values():
            one.groups[:] = [part for group in one.groups for part in divided.get(id(group), [group])]
            one.call.hold(1 + len(one.groups))

    def _place_traces(self) -> None:
        """Give traces that were added since to the groups that they belong to."""
        for place in range(self._placed, len(self.traces)):
            trace = self.traces[place]
            key = tuple(selects(selection, trace.channel) for selection in self._selections)
            group = next((group for group in self._groups if group.key == key), None)
            if group is None:
                group = _Group(key, [], Shares([]))
                self._groups.append(group)
            group.places.append(place)
            group.shares.traces.append(trace)
        self._placed = len(self.traces)


def _is_held_by_a_context(call: Call) -> bool:
    """Return whether a context (contextvars) is among those who hold a call: by the nodes that one is made of."""
    return any(type(holder).__name__.startswith("hamt") for holder in gc.get_referrers(call))


def selects(devices: Iterable[str], channel: Channel) -> bool:
    """Return whether a channel is among devices named by kind (``gpu``), id (``gpu:0``) or head of the UUID."""
    return any(
        name in (channel.kind, channel.id)
        or (len(name) > len("GPU-") and channel.device.casefold().startswith(name.casefold()))
        for name in devices
    )
