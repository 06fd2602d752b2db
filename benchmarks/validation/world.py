"""One time for the load, the emulated sensors and aimeter: what happens next, happens next.

Calls begin and end exactly when their load says so, also while a sensor is being read, as other threads'
calls do. The sampler wakes a little late, and rests when it has nothing to do, as its thread does.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimeter._sampling.protocols import Served
    from tests.emulator.nvml import FakeNvml


class World:
    """A stepped clock (see `aimeter.testing.FakeClock`) with a calendar.

    Args:
        choose: Decides how late the sampler wakes.
        nvml: An emulated library whose readings take time on their own clock.
        start_s: The time it begins with.
        late_s: Mean lateness of the sampler's thread.
        starved: How often the sampler is kept from running, up to 60 ms, in place of that.
    """

    def __init__(
        self,
        choose: random.Random,
        nvml: FakeNvml | None = None,
        start_s: float = 1000.0,
        *,
        late_s: float = 1e-4,
        starved: float = 0.0,
    ) -> None:
        self._now_s = start_s
        self._choose, self._late_s, self._starved = choose, late_s, starved
        self._nvml = nvml
        self._calendar: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._samplers: list[Served] = []
        self._wake_s: dict[Served, float] = {}
        self._catching_up = self._advancing = False
        if nvml is not None:
            nvml.time = start_s

    def __call__(self) -> float:
        """Return the time, after what has happened while the library took its time."""
        if self._nvml is not None and not self._catching_up:
            time_s = self._nvml.time
            if time_s > self._now_s:
                self.pass_until(time_s)
        return self._now_s

    def attach(self, sampler: Served) -> None:
        self._samplers.append(sampler)

    def wake(self, sampler: Served) -> None:
        """Have a sampler's next round begin as soon as its thread runs."""
        if sampler in self._wake_s:
            self._wake_s[sampler] = min(self._wake_s[sampler], self._now_s + self._lateness_s())

    def at(self, time_s: float, act: Callable[[], object]) -> None:
        """Enter something into the calendar."""
        heapq.heappush(self._calendar, (time_s, next(self._order), act))

    def elapse(self, seconds: float) -> None:
        """Let time pass within a reading."""
        self.pass_until(self._now_s + seconds)

    def pass_until(self, time_s: float) -> None:
        """Move on and do what is in the calendar, but leave the sampler alone."""
        was, self._catching_up = self._catching_up, True
        try:
            while self._calendar and self._calendar[0][0] <= time_s:
                due_s, _, act = heapq.heappop(self._calendar)
                self._now_s = max(self._now_s, due_s)
                act()
            self._now_s = max(self._now_s, time_s)
            if self._nvml is not None and self._nvml.time < self._now_s:
                self._nvml.time = self._now_s
        finally:
            self._catching_up = was

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, with everything that falls due."""
        end_s = self() + seconds
        if self._advancing:
            self.pass_until(end_s)
            return
        self._advancing = True
        try:
            while True:
                sampler, wake_s = min(
                    self._wake_s.items(), key=lambda item: item[1], default=(None, math.inf)
                )
                next_s = self._calendar[0][0] if self._calendar else math.inf
                if min(wake_s, next_s) > end_s:
                    break
                if sampler is None or next_s <= wake_s:
                    self.pass_until(max(next_s, self._now_s))
                    self._attend()
                else:
                    self.pass_until(max(wake_s, self._now_s))
                    self._round(sampler)
            self.pass_until(end_s)
        finally:
            self._advancing = False

    def _attend(self) -> None:
        """Wake the samplers that a call has made ready."""
        for sampler in self._samplers:
            if sampler.ready and sampler not in self._wake_s:
                sampler.resume()
                self._wake_s[sampler] = self._now_s + self._lateness_s()

    def _round(self, sampler: Served) -> None:
        self._wake_s[sampler] = math.inf
        wait_s = sampler.tick()
        if sampler.try_stop():
            del self._wake_s[sampler]
            self._attend()
        else:
            due_s = self() + wait_s + self._lateness_s()
            self._wake_s[sampler] = min(self._wake_s[sampler], due_s)  # woken while it was at work

    def _lateness_s(self) -> float:
        if self._starved and self._choose.random() < self._starved:
            return self._choose.uniform(0.002, 0.06)
        return self._choose.expovariate(1 / self._late_s)
