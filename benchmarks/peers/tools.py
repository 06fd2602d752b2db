"""The tools, each set up as its documentation says is best for calls, behind one face.

A tool is imported only in the environment in which it is installed. What each is configured to do is told in words by
`benchmarks.peers.tables.LABELS`.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

KWH_J = 3.6e6

Body = Callable[[], None]


class Reading(NamedTuple):
    """What a tool says of one call; None is what it does not say."""

    gpu_j: float | None = None
    cpu_j: float | None = None
    resolution_j: float | None = None


class Tool(ABC):
    """One tool in one configuration."""

    distribution: str

    @property
    def version(self) -> str:
        """Version installed."""
        return importlib.metadata.version(self.distribution)

    @abstractmethod
    def call(self, body: Body) -> Callable[[], Reading]:
        """Meter one call of `body`; return what gives its reading afterwards."""

    @abstractmethod
    def empty(self, times: int) -> None:
        """Meter this many calls of nothing, written as a user would."""

    def finish(self) -> None:  # noqa: B027 - most tools have nothing to wait for
        """Wait until all that was metered is known."""


class Aimeter(Tool):
    """The default meter with a CSV log; figures are settled in the background."""

    distribution = "aimeter-energy"

    def __init__(self) -> None:
        import aimeter

        log = Path(tempfile.mkdtemp()) / "calls.csv"
        aimeter.configure(log=log, region="FR")
        self._aimeter = aimeter

    def call(self, body: Body) -> Callable[[], Reading]:
        with self._aimeter.track("call") as call:
            body()
        return lambda: Reading(call.gpu_j, call.cpu_j, call.resolution_j)

    def empty(self, times: int) -> None:
        track = self._aimeter.track
        for _ in range(times):
            with track("empty"):
                pass

    def finish(self) -> None:
        self._aimeter.flush()


class Zeus(Tool):
    """One monitor; each call is a window with a name of its own."""

    distribution = "zeus"
    approximate = False

    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor

        self._monitor = ZeusMonitor(approx_instant_energy=self.approximate)
        self._names = map(str, count())

    def call(self, body: Body) -> Callable[[], Reading]:
        name = next(self._names)
        self._monitor.begin_window(name, sync_execution=False)
        body()
        measured = self._monitor.end_window(name, sync_execution=False)
        cpu = measured.cpu_energy
        reading = Reading(sum(measured.gpu_energy.values()), None if cpu is None else sum(cpu.values()))
        return lambda: reading

    def empty(self, times: int) -> None:
        monitor = self._monitor
        for _ in range(times):
            monitor.begin_window("empty", sync_execution=False)
            monitor.end_window("empty", sync_execution=False)


class ZeusApproximate(Zeus):
    """The same, with the approximation of windows in which the counter did not move."""

    approximate = True


class PyJoulesContext(Tool):
    """A context for each call."""

    distribution = "pyJoules"

    def __init__(self) -> None:
        from pyJoules.energy_meter import EnergyContext, measure_energy
        from pyJoules.handler import EnergyHandler

        self._context, self._measure, self._handler = EnergyContext, measure_energy, EnergyHandler

    def call(self, body: Body) -> Callable[[], Reading]:
        handler = self._handler()
        with self._context(handler=handler):
            body()
        return lambda: _of_trace(handler)

    def empty(self, times: int) -> None:
        handler = self._handler()
        for _ in range(times):
            with self._context(handler=handler):
                pass


class PyJoulesDecorator(PyJoulesContext):
    """A decorated function, whose meter is made once."""

    def __init__(self) -> None:
        super().__init__()
        self._traces = self._handler()

        @self._measure(handler=self._traces)
        def metered(body: Body) -> None:
            body()

        self._metered = metered

    def call(self, body: Body) -> Callable[[], Reading]:
        self._traces.traces.clear()
        self._metered(body)
        reading = _of_trace(self._traces)
        return lambda: reading

    def empty(self, times: int) -> None:
        @self._measure(handler=self._traces)
        def nothing() -> None:
            pass

        for _ in range(times):
            nothing()


def _of_trace(handler: Any) -> Reading:
    """Return a call's joules: pyJoules gives the units of the devices, mJ for GPUs and uJ for RAPL."""
    (trace,) = handler.traces
    (sample,) = trace
    energy: Mapping[str, float] = sample.energy
    cpu = [value for domain, value in energy.items() if domain.startswith("package")]
    gpu = [value for domain, value in energy.items() if domain.startswith("nvidia_gpu")]
    return Reading(sum(gpu) * 1e-3, sum(cpu) * 1e-6 if cpu else None)


class CodeCarbonTask(Tool):
    """One offline tracker; each call is a task."""

    distribution = "codecarbon"

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        self._tracker = OfflineEmissionsTracker(**CODECARBON)
        self._names = map(str, count())

    def call(self, body: Body) -> Callable[[], Reading]:
        name = next(self._names)
        self._tracker.start_task(name)
        body()
        data = self._tracker.stop_task(name)
        return lambda: _of_emissions(data)

    def empty(self, times: int) -> None:
        tracker = self._tracker
        for name, _ in zip(self._names, range(times), strict=False):
            tracker.start_task(name)
            tracker.stop_task(name)


class CodeCarbonDecorator(Tool):
    """A decorated function, which makes a tracker for each call."""

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

    def call(self, body: Body) -> Callable[[], Reading]:
        output = self._collect()

        @self._track(offline=True, output_handlers=[output], **CODECARBON)
        def metered() -> None:
            body()

        metered()
        return lambda: _of_emissions(output.data)

    def empty(self, times: int) -> None:
        @self._track(offline=True, output_handlers=[], **CODECARBON)
        def nothing() -> None:
            pass

        for _ in range(times):
            nothing()


# The measuring interval stays at its default: tasks do not use it, and with a decorator a shorter one was further from
# the truth, because what the last 50 ms before the end used is not measured if they hold a measurement.
CODECARBON: dict[str, Any] = {
    "country_iso_code": "FRA",
    "output_methods": [],
    "log_level": "critical",
}


def _of_emissions(data: Any) -> Reading:
    return Reading() if data is None else Reading(data.gpu_energy * KWH_J, data.cpu_energy * KWH_J)


TOOLS: Mapping[str, type[Tool]] = {
    "aimeter": Aimeter,
    "zeus": Zeus,
    "zeus-approximate": ZeusApproximate,
    "pyjoules-decorator": PyJoulesDecorator,
    "pyjoules-context": PyJoulesContext,
    "codecarbon-task": CodeCarbonTask,
    "codecarbon-decorator": CodeCarbonDecorator,
}
