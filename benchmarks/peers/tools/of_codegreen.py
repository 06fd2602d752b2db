"""codegreen: one session; each call is a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.tools.face import Body, Later, Logged, Reading, Windows


class CodeGreen(Windows):
    """`start_task` and `stop_task`, which is what `with session.task(...)` calls and gives what was measured."""

    distribution = "codegreen"

    def __init__(self) -> None:
        import codegreen

        self._codegreen = codegreen
        self._session = codegreen.Session("calls", output_format="none").start()

    @contextmanager
    def window(self) -> Iterator[Later]:
        said: list[Reading] = []
        self._session.start_task("call")
        yield lambda: said[0]
        said.append(_of_task(self._session.stop_task("call")))

    def empty(self, times: int) -> None:
        session = self._session
        for _ in range(times):
            with session.task("empty"):
                pass

    def decorated(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Later]:
        return self._codegreen.task("decorated")(function), lambda: _of_task(self._session.tasks[-1])

    @classmethod
    def logged(cls, folder: Path) -> Logged:
        import codegreen

        session = codegreen.Session("calls", output_file=str(folder / "calls.csv")).start()

        def call(body: Body) -> None:
            with session.task("call"):
                body()

        return Logged(call, session.stop)


def _of_task(task: Any) -> Reading:
    gpu = [joules for domain, joules in task.domains.items() if domain.startswith("gpu")]
    cpu = [joules for domain, joules in task.domains.items() if domain.startswith("package")]
    return Reading(sum(gpu) if gpu else None, sum(cpu) if cpu else None)
