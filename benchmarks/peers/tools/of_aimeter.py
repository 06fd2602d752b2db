"""aimeter: the default meter with a CSV log; figures are settled in the background."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.tools.face import Body, Later, Logged, Reading, Windows


class Aimeter(Windows):
    """`with aimeter.track(...)`."""

    distribution = "aimeter-energy"

    def __init__(self) -> None:
        import aimeter

        log = Path(tempfile.mkdtemp()) / "calls.csv"
        aimeter.configure(log=log, region="FR")
        self._aimeter = aimeter

    @contextmanager
    def window(self) -> Iterator[Later]:
        with self._aimeter.track("call") as call:
            yield lambda: Reading(call.gpu_j, call.cpu_j, call.resolution_j)

    def empty(self, times: int) -> None:
        track = self._aimeter.track
        for _ in range(times):
            with track("empty"):
                pass

    def finish(self) -> None:
        self._aimeter.flush()

    def decorated(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Later]:
        def later() -> Reading:
            self._aimeter.flush()
            record = self._aimeter.records()[-1]
            return Reading(record.gpu_j, record.cpu_j, record.resolution_j)

        return self._aimeter.track("decorated")(function), later

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        import aimeter

        aimeter.configure(log=folder / "calls.csv", region="FR")

        def call(body: Body) -> None:
            with aimeter.track("call"):
                body()

        return Logged(call, lambda: None)
