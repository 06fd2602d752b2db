"""CodeCarbon: one offline tracker whose tasks are calls, or a decorated function, which makes a tracker for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.peers.tools.face import Body, Later, Logged, Reading, Tool, Windows

KWH_J = 3.6e6

# The measuring interval stays at its default: tasks do not use it, and with a decorator a shorter one was further from
# the truth, because what the last 50 ms before the end used is not measured if they hold a measurement.
PLACE: dict[str, Any] = {"country_iso_code": "FRA", "log_level": "critical"}
QUIET: dict[str, Any] = {**PLACE, "output_methods": []}


class CodeCarbonTask(Windows):
    """`start_task` and `stop_task`."""

    distribution = "codecarbon"

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        self._tracker = OfflineEmissionsTracker(**QUIET)
        self._names = map(str, count())

    @contextmanager
    def window(self) -> Iterator[Later]:
        name = next(self._names)
        said: list[Reading] = []
        self._tracker.start_task(name)
        # A task that another one ended says nothing.
        yield lambda: said[0] if said else Reading()
        said.append(_of_emissions(self._tracker.stop_task(name)))

    def empty(self, times: int) -> None:
        tracker = self._tracker
        for name, _ in zip(self._names, range(times), strict=False):
            tracker.start_task(name)
            tracker.stop_task(name)

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(**PLACE, output_dir=str(folder))
        names = map(str, count())

        def call(body: Body) -> None:
            name = next(names)
            tracker.start_task(name)
            body()
            tracker.stop_task(name)

        return Logged(call, tracker.stop)


class CodeCarbonDecorator(Tool):
    """`@track_emissions`."""

    distribution = "codecarbon"

    def __init__(self) -> None:
        from codecarbon import track_emissions
        from codecarbon.output import BaseOutput

        class Collect(BaseOutput):
            def __init__(self) -> None:
                self.data: Any = None

            def out(self, total: Any, delta: Any) -> None:
                self.data = total

        self._track, self._collect = track_emissions, Collect

    def call(self, body: Body) -> Later:
        metered, later = self.decorated(body)
        metered()
        return later

    def empty(self, times: int) -> None:
        @self._track(offline=True, output_handlers=[], **QUIET)
        def nothing() -> None:
            pass

        for _ in range(times):
            nothing()

    def decorated(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Later]:
        output = self._collect()
        metered = self._track(offline=True, output_handlers=[output], **QUIET)(function)
        return metered, lambda: _of_emissions(output.data)

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        from codecarbon import track_emissions

        @track_emissions(offline=True, output_dir=str(folder), **PLACE)
        def call(body: Body) -> None:
            body()

        return Logged(call, lambda: None)


def _of_emissions(data: Any) -> Reading:
    return Reading() if data is None else Reading(data.gpu_energy * KWH_J, data.cpu_energy * KWH_J)
