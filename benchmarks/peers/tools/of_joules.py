"""joules (landauer-gap): one session; each call is a phase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.tools.face import Body, Later, Logged, Reading, Windows


class Joules(Windows):
    """`with session.phase(...)`."""

    distribution = "landauer-gap"

    def __init__(self) -> None:
        import joules

        self._session = joules.Session()
        self._kinds = {device["name"]: device["kind"] for device in self._session.devices}

    @contextmanager
    def window(self) -> Iterator[Later]:
        with self._session.phase("call") as phase:
            yield lambda: self._reading(phase)

    def _reading(self, phase: Any) -> Reading:
        sums: dict[str, float] = {}
        for name, joules in phase.devices.items():
            sums[self._kinds[name]] = sums.get(self._kinds[name], 0.0) + joules
        return Reading(sums.get("gpu"), sums.get("cpu"))

    def empty(self, times: int) -> None:
        session = self._session
        for _ in range(times):
            with session.phase("empty"):
                pass

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        import joules

        session = joules.Session()

        def call(body: Body) -> None:
            with session.phase("call"):
                body()

        def end() -> None:
            session.close()
            session.save(str(folder / "phases.json"))

        return Logged(call, end)
