"""pyJoules: a context for each call, or a decorated function, whose meter is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.tools.face import Body, Later, Logged, Reading, Tool, Windows


class PyJoulesContext(Windows):
    """`with EnergyContext(...)`."""

    distribution = "pyJoules"

    def __init__(self) -> None:
        from pyJoules.energy_meter import EnergyContext
        from pyJoules.handler import EnergyHandler

        self._context, self._handler = EnergyContext, EnergyHandler

    @contextmanager
    def window(self) -> Iterator[Later]:
        handler = self._handler()
        with self._context(handler=handler):
            yield lambda: _of_trace(handler)

    def empty(self, times: int) -> None:
        handler = self._handler()
        for _ in range(times):
            with self._context(handler=handler):
                pass

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        from pyJoules.energy_meter import EnergyContext
        from pyJoules.handler.csv_handler import CSVHandler

        handler = CSVHandler(str(folder / "calls.csv"))

        def call(body: Body) -> None:
            with EnergyContext(handler=handler):
                body()

        return Logged(call, handler.save_data)


class PyJoulesDecorator(Tool):
    """`@measure_energy`."""

    distribution = "pyJoules"

    def __init__(self) -> None:
        from pyJoules.energy_meter import measure_energy
        from pyJoules.handler import EnergyHandler

        self._measure, self._traces = measure_energy, EnergyHandler()

        @self._measure(handler=self._traces)
        def metered(body: Body) -> None:
            body()

        self._metered = metered

    def call(self, body: Body) -> Later:
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

    def decorated(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Later]:
        handler = type(self._traces)()
        return self._measure(handler=handler)(function), lambda: _of_trace(handler)

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        from pyJoules.energy_meter import measure_energy
        from pyJoules.handler.csv_handler import CSVHandler

        handler = CSVHandler(str(folder / "calls.csv"))

        @measure_energy(handler=handler)
        def call(body: Body) -> None:
            body()

        return Logged(call, handler.save_data)


def _of_trace(handler: Any) -> Reading:
    """Return a call's joules: pyJoules gives the units of the devices, mJ for GPUs and uJ for RAPL."""
    (trace,) = handler.traces
    (sample,) = trace
    energy: Mapping[str, float] = sample.energy
    cpu = [value for domain, value in energy.items() if domain.startswith("package")]
    gpu = [value for domain, value in energy.items() if domain.startswith("nvidia_gpu")]
    return Reading(sum(gpu) * 1e-3, sum(cpu) * 1e-6 if cpu else None)
