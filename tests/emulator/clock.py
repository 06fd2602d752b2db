"""One time for aimeter and the emulated NVML: a clock that moves when told, and while a reading takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimeter.testing import FakeClock

if TYPE_CHECKING:
    from .nvml import FakeNvml


class EmulatedClock(FakeClock):
    """The emulated library's time, moved by the test; readings move it by their latency."""

    def __init__(self, fake: FakeNvml, start_s: float = 1000.0) -> None:
        self._fake = fake
        super().__init__(start_s)

    @property
    def now_s(self) -> float:
        """Seconds on the library's clock."""
        return self._fake.time

    @now_s.setter
    def now_s(self, seconds: float) -> None:
        self._fake.time = seconds
