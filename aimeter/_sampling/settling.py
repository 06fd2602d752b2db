"""Settling the calls whose time has become certain, and what attribution says of those that are open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimeter._attribution.attribution import Attribution
    from aimeter._attribution.figures import Figures, SoFar
    from aimeter._calls.call import Call
    from aimeter._sampling.intake import Intake
    from aimeter._sampling.readers import Readers
    from aimeter.sensors.base import Clock


class Settling:
    """Attribution, which is made when it is first needed. Whoever asks for more than a time is alone.

    Attributes:
        deliver: Takes the figures of calls that are settled.
        busy_s: When there last was something to settle.
        progress_s: When figures were delivered last.
    """

    def __init__(self, now: Clock, intake: Intake, readers: Readers, now_s: float) -> None:
        self._now, self._intake, self._readers = now, intake, readers
        self.deliver: Callable[[Figures], None]
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""
        self.busy_s = self.progress_s = now_s

    def attribution(self) -> Attribution:
        """Return what attributes energy to calls."""
        attribution = self._intake.attribution
        if attribution is None:
            from aimeter._attribution.attribution import Attribution  # noqa: PLC0415 - loads NumPy, which importing aimeter must not

            attribution = self._intake.attribution = Attribution(self._readers.traces, self._intake.queue)
        return attribution

    def settle(self, now_s: float, guard_s: float, until_s: float | None) -> float:
        """Settle and deliver some of what has become certain; return when a call last began or ended.

        Args:
            now_s: The time.
            guard_s: Events before this much time ago are in the queue.
            until_s: If given, settle up to this time whatever is uncertain.
        """
        attribution = self.attribution()
        self._intake.settled_at_s = now_s
        figures = attribution.settle(now_s - guard_s, until_s=until_s)
        if attribution.open_calls or attribution.backlog or figures is not None:
            self.busy_s = now_s
        if figures is not None:
            self.progress_s = now_s
            self.deliver(figures)
            self._intake.settled_at_s = self._now()
        return attribution.newest_s

    def has_settled_up_to(self, target_s: float) -> bool:
        """Return whether every call that ended by a time is settled; asked by anybody."""
        attribution = self._intake.attribution
        if attribution is None or attribution.settled_s < target_s:
            return False
        # On a coarse clock, or one that is told when to move, what is queued may be of that very moment.
        return attribution.settled_s > target_s or not attribution.queue

    def so_far(self, calls: list[Call]) -> list[SoFar | None]:
        """Return what open calls used so far; None for one that is not open."""
        attribution, now = self.attribution(), self._now()
        return [attribution.so_far(call, now) for call in calls]

    def unattributed_j(self) -> list[float]:
        """Return the energy of each trace that was drawn while no call was open."""
        attribution = self._intake.attribution
        lost = [trace.unclaimed_j for trace in self._readers.traces]
        drawn = [] if attribution is None else attribution.unattributed_j
        return [a + b for a, b in zip(lost, [*drawn, *[0.0] * (len(lost) - len(drawn))], strict=True)]
