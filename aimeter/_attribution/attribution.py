"""Attribution of energy to calls: from the queue of starts and ends to the figures of those that are settled.

Most calls have a part in every device, so there is one set of `Shares`. As soon as a call names the devices that
it uses, the devices fall into groups that are shared alike, each with shares of its own; what a call used of each
group is put together when it is settled.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aimeter._attribution.edges import UNIT
from aimeter._attribution.figures import Figures, SoFar, joined
from aimeter._attribution.forgotten import Forgotten
from aimeter._attribution.groups import Group, Groups, Open
from aimeter._attribution.shares import MOST_EDGES

if TYPE_CHECKING:
    from aimeter._calls.call import Call, Pause
    from aimeter._curve.trace import Trace


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
        self._open: dict[int, Open] = {}
        self._forgotten = Forgotten(self._open)
        self._horizon_s = -math.inf
        self._groups = Groups(traces)

    @property
    def open_calls(self) -> int:
        """Number of calls open as far as the queue has been read."""
        return len(self._open)

    @property
    def backlog(self) -> int:
        """Events and edges waiting to be settled."""
        return len(self.queue) + max(group.shares.edges for group in self._groups.all())

    @property
    def newest_s(self) -> float:
        """When a call last began or ended, as far as the queue has been read; NaN if none did."""
        times_s = [group.shares.newest_s for group in self._groups.all()]
        return max((time_s for time_s in times_s if not math.isnan(time_s)), default=math.nan)

    @property
    def unattributed_j(self) -> list[float]:
        """Energy of each trace drawn while no call was open, up to the last edge."""
        joules = [0.0] * len(self.traces)
        for group in self._groups.known:
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
        self._groups.place_traces()
        self._forgotten.give_up(now_s)
        self._read_queue(now_s if until_s is None else max(now_s, until_s))
        groups = self._groups.all()
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
        return joined(some, len(self.traces)) if some else None

    @staticmethod
    def _idle_since_s(groups: Sequence[Group]) -> float | None:
        since = [group.shares.idle_since_s for group in groups if not math.isnan(group.shares.newest_s)]
        return None if not since or None in since else max(one for one in since if one is not None)

    def so_far(self, call: Call, now_s: float) -> SoFar | None:
        """Return the joules of an open call up to now; None if it is not open."""
        known = self._open.get(id(call))
        if known is None:
            return None
        count = len(self.traces)
        so_far = SoFar([None] * count, [None] * count, [None] * count)
        for group in known.groups:
            found = group.shares.so_far(call, now_s)
            if found is not None:
                for joules, own in zip(so_far, found.tolist(), strict=True):
                    for place, joule in zip(group.places, own, strict=True):
                        joules[place] = joule
        return so_far

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
                self._forgotten.end(call)
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
        groups = self._groups.of(call, devices, self._open.values())
        self._open[id(call)] = Open(call, devices, weight, groups)
        for group in groups:
            group.shares.open(call, time_s, weight)
        call.hold(1 + len(groups))
        self._forgotten.begin(call)
