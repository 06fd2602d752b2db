"""Zeus: one monitor; each call is a window with a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.peers.tools.face import Body, Later, Logged, Reading, Windows


class Zeus(Windows):
    """`begin_window` and `end_window`."""

    distribution = "zeus"
    approximate = False

    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor

        self._monitor = ZeusMonitor(approx_instant_energy=self.approximate)
        self._names = map(str, count())

    @contextmanager
    def window(self) -> Iterator[Later]:
        name = next(self._names)
        said: list[Reading] = []
        self._monitor.begin_window(name, sync_execution=False)
        yield lambda: said[0]
        measured = self._monitor.end_window(name, sync_execution=False)
        cpu = measured.cpu_energy
        said.append(Reading(sum(measured.gpu_energy.values()), None if cpu is None else sum(cpu.values())))

    def empty(self, times: int) -> None:
        monitor = self._monitor
        for _ in range(times):
            monitor.begin_window("empty", sync_execution=False)
            monitor.end_window("empty", sync_execution=False)

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        from zeus.monitor import ZeusMonitor

        monitor = ZeusMonitor(approx_instant_energy=cls.approximate, log_file=folder / "calls.csv")

        def call(body: Body) -> None:
            monitor.begin_window("call", sync_execution=False)
            body()
            monitor.end_window("call", sync_execution=False)

        return Logged(call, lambda: None)


class ZeusApproximate(Zeus):
    """The same, with the approximation of windows in which the counter did not move."""

    approximate = True
