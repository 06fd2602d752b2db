"""The queue of what happens to calls, and the pace to which calls are slowed while it grows faster than it is read."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from aimeter._support.clocks import time
from aimeter._support.notes import raised

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimeter._attribution.attribution import Attribution
    from aimeter._calls.call import Call, Pause
    from aimeter.sensors.base import Clock

MOST_BACKLOG = 20_000
"""Unsettled events beyond which callers are slowed to the pace of settling."""

MOST_QUEUED = 500_000
"""Unsettled events beyond which new calls are not metered, if settling makes no progress."""

_BREATH_S, _REST_S = 0.001, 0.02
"""How long a call sleeps that finds a backlog, and one that finds it twice as long: with many threads."""

_NEWEST = 4
"""So many of the newest events are looked at by a call that wants to know whether its own is among them."""

_STALLED_S = 10.0
"""Callers are slowed for so long while nothing is settled: with threads that never pause, a round may take seconds."""

_ALERT_S = 1.0
"""For so long after calls came too fast each of them looks at the backlog, so that they do not come in bursts."""


class Gate(Protocol):
    """What calls pass on their way into the queue: a sampler, as they see it."""

    put: Callable[[Call | Pause], None]
    enqueue: Callable[[Call | Pause], None]
    ready: bool

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""


class Intake:
    """See the module's description.

    Attributes:
        queue: Calls, appended once when they begin and once when they end, and pauses; any thread may append.
        attribution: Reads the queue; None until something is settled.
        settled_at_s: When it was last had settle, were it nothing.
        lost_calls: Calls that were not metered, as they came too fast.
    """

    def __init__(self, gate: Gate, now: Clock, now_s: float) -> None:
        self._gate, self._now = gate, now
        self._told: tuple[Callable[[Call], None], ...] = ()
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""
        self.queue: deque[Call | Pause] = deque()
        self.attribution: Attribution | None = None
        self.settled_at_s = now_s
        self.lost_calls = 0
        self._flooded_s = -math.inf
        self._gate.put = self._gate.enqueue = self._way_in()

    def tell_of_begins(self, tell: Callable[[Call], None]) -> None:
        """Tell somebody of each call as it begins, in its thread and context; others cost calls nothing."""
        self._told = (*self._told, tell)
        self._gate.put = self._gate.enqueue = self._way_in()

    def go_on_from(self, before: Intake) -> None:
        """Tell those of begins whom another one told."""
        for tell in before._told if before is not self else ():
            self.tell_of_begins(tell)

    def _way_in(self) -> Callable[[Call | Pause], None]:
        append, told = self.queue.append, self._told
        if not told:
            return append

        def enqueue(event: Call | Pause) -> None:
            append(event)
            if not isinstance(event, tuple) and not event.ended:
                for tell in told:
                    try:
                        tell(event)
                    except Exception as error:  # noqa: BLE001 - the call is somebody else's
                        self._gate.warn_once(
                            "begins", f"a call's begin could not be told of: {raised(error)}."
                        )

        return enqueue

    @property
    def backlog(self) -> int:
        """Events that are not settled yet."""
        return len(self.queue) if self.attribution is None else self.attribution.backlog

    @property
    def is_plenty(self) -> bool:
        """Whether the backlog is long enough to be settled without waiting for the time to do so."""
        return self.backlog > MOST_BACKLOG // 4

    @property
    def is_behind(self) -> bool:
        """Whether more was certain than was settled in one go."""
        return self.attribution is not None and self.attribution.behind

    @property
    def open_calls(self) -> int:
        """Number of calls open as far as the queue has been read."""
        return 0 if self.attribution is None else self.attribution.open_calls

    def has_ended(self) -> bool:
        """Return whether the end of a call is in the queue."""
        return any(not isinstance(event, tuple) and event.ended for event in list(self.queue))

    def wants_gpus(self, *, newest: bool) -> bool:
        """Return whether a queued call may use GPUs, among all or a few of the newest."""
        queue = self.queue
        with suppress(IndexError):  # the queue is being emptied
            events = [queue[-1 - k] for k in range(min(_NEWEST, len(queue)))] if newest else list(queue)
            return any(map(_may_use_gpus, events))
        return False

    def keeps_up(self) -> bool:
        """Return whether calls come no faster than they are settled, and did not a moment ago."""
        now, backlog = self._now(), self.backlog
        if backlog >= MOST_BACKLOG:
            self._flooded_s = now
        return now - self._flooded_s > _ALERT_S

    def watch(self) -> None:
        """Slow callers down if there is a backlog, also while the thread that settles it is kept from that."""
        backlog = self.backlog
        if backlog >= MOST_BACKLOG:
            self._gate.ready = False
        if backlog <= MOST_QUEUED // 2:
            self._gate.put = self._gate.enqueue

    def slow_down(self) -> None:
        """Let the thread that settles calls catch up if there is a backlog, but do not wait for a disk that hangs."""
        backlog = self.backlog
        if self._now() - self.settled_at_s < _STALLED_S:
            if backlog > MOST_BACKLOG:
                time.sleep(_BREATH_S if backlog < 2 * MOST_BACKLOG else _REST_S)
        elif backlog > MOST_QUEUED:
            self._gate.put = self._refuse

    def _refuse(self, event: Call | Pause) -> None:
        """Take the place of the queue: memory is bounded, whatever keeps calls from being settled."""
        if not isinstance(event, tuple) and not event.ended:
            self.lost_calls += 1
            self._gate.warn_once("lost", "calls come faster than they can be settled: some are not metered.")


def _may_use_gpus(event: Call | Pause) -> bool:
    """Return whether a call may use GPUs: it names none, or more than the CPU and its memory."""
    if isinstance(event, tuple):
        return False
    devices = event.devices
    return devices is None or any(not name.startswith(("cpu", "dram")) for name in devices)
