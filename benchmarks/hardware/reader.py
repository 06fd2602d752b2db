"""A fast reader of one GPU's meters, in a process of its own: what it sees owes nothing to aimeter.

As a program, ``python -m benchmarks.hardware.reader UUID FILE``: reads until its standard input closes, then writes
what it saw into FILE as JSON. Times are `time.perf_counter`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_ROOT = Path(__file__).parents[2]
_AVERAGE, _INSTANT = 185, 186
_PAUSE_S = 2e-4


class Change(NamedTuple):
    """One publication: the value appeared between two readings.

    Attributes:
        before_s: Begin of the last reading that gave the value before.
        after_s: End of the first reading that gave this one.
        value: Joules or watts.
    """

    before_s: float
    after_s: float
    value: float

    @property
    def at_s(self) -> float:
        """When it was published, halfway between."""
        return (self.before_s + self.after_s) / 2


class Seen(NamedTuple):
    """What a reader saw of one meter.

    Attributes:
        changes: Its publications in order; the first is the first reading.
        cost_s: How long each reading took.
        last_s: End of the last reading.
    """

    changes: list[Change]
    cost_s: list[float]
    last_s: float


def ways(nv: Any, handle: Any) -> dict[str, Callable[[], float]]:
    """Return the meters that give a value, by name: joules of the counter, watts of the others."""

    def field(number: int) -> Callable[[], float]:
        def ask() -> float:
            answer = nv.nvmlDeviceGetFieldValues(handle, [(number, 0)])[0]
            if answer.nvmlReturn:
                raise nv.NVMLError(answer.nvmlReturn)
            return answer.value.uiVal / 1e3

        return ask

    every: Mapping[str, Callable[[], float]] = {
        "counter": lambda: nv.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3,
        "instant": field(_INSTANT),
        "average": field(_AVERAGE),
        "usage": lambda: nv.nvmlDeviceGetPowerUsage(handle) / 1e3,
    }
    working = {}
    for name, ask in every.items():
        try:
            ask()
        except nv.NVMLError:
            continue
        working[name] = ask
    return working


def watch(uuid: str, done: Callable[[], bool], pause_s: float = _PAUSE_S) -> dict[str, Seen]:
    """Read all meters of a GPU in turn until `done`."""
    import pynvml as nv

    nv.nvmlInit()
    try:
        meters = ways(nv, nv.nvmlDeviceGetHandleByUUID(uuid))
        seen: dict[str, Seen] = {name: Seen([], [], 0.0) for name in meters}
        began: dict[str, float] = {}
        while not done():
            for name, ask in meters.items():
                before_s = time.perf_counter()
                try:
                    value = ask()
                except nv.NVMLError:
                    continue
                after_s = time.perf_counter()
                one = seen[name]
                one.cost_s.append(after_s - before_s)
                if not one.changes or one.changes[-1].value != value:
                    one.changes.append(Change(began.get(name, before_s), after_s, value))
                began[name] = before_s
                seen[name] = one._replace(last_s=after_s)
            time.sleep(pause_s)
    finally:
        nv.nvmlShutdown()
    return seen


class Recording:
    """What a reader saw, filled when its block ends."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def energy_j(self, begin_s: float, end_s: float, latency_s: float = 0.0) -> float:
        """Return the joules between two times by the counter, its steps joined by straight lines."""
        import numpy as np

        changes = self.seen["counter"].changes[1:]
        times = [one.at_s - latency_s for one in changes]
        joules = [one.value for one in changes]
        begin_j, end_j = np.interp([begin_s, end_s], times, joules)
        return float(end_j - begin_j)

    def integral_j(self, name: str, begin_s: float, end_s: float, shift_s: float = 0.0) -> float:
        """Return the joules between two times by a published power, each value held until the next."""
        import numpy as np

        changes = self.seen[name].changes
        times = np.array([one.at_s - shift_s for one in changes])
        watts = np.array([one.value for one in changes])
        edges = np.concatenate([[begin_s], times[(times > begin_s) & (times < end_s)], [end_s]])
        held = watts[np.maximum(np.searchsorted(times, edges[:-1], side="right") - 1, 0)]
        return float(np.sum(held * np.diff(edges)))


class Reader(Protocol):
    """Something that watches a GPU while its block runs."""

    def __call__(self, uuid: str) -> Any:
        """Return the context manager that gives a `Recording`."""
        ...


@contextmanager
def in_a_process(uuid: str) -> Iterator[Recording]:
    """Watch a GPU from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "seen.json"
        command = [sys.executable, "-m", "benchmarks.hardware.reader", uuid, str(target)]
        recording = Recording()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield recording
            finally:
                process.communicate()
        raw = json.loads(target.read_text("utf-8"))
    recording.seen = {
        name: Seen([Change(*one) for one in changes], cost, last)
        for name, (changes, cost, last) in raw.items()
    }


@contextmanager
def in_a_thread(uuid: str) -> Iterator[Recording]:
    """Watch a GPU from a thread: an emulated one lives in this process alone."""
    recording, over = Recording(), threading.Event()

    def run() -> None:
        recording.seen = watch(uuid, over.is_set, 1e-3)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield recording
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Read until standard input closes."""
    uuid, target = sys.argv[1:]
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    print("reading", flush=True)
    Path(target).write_text(json.dumps(watch(uuid, over.is_set)), "utf-8")


if __name__ == "__main__":
    main()
