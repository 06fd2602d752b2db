"""One experiment with one tool, in the tool's own environment and on the emulated machine; writes what it saw as JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.peers.abilities import abilities, settle
from benchmarks.peers.load import Devices, Plan, Span, plans
from benchmarks.peers.shown import shown
from benchmarks.peers.tools import TOOLS
from benchmarks.peers.tools.face import Reading, Tool

WARM_UP = Plan(0.5, 500.0, (300.0,) * 40, 80.0, 3.0)
"""Every tool sees one call and a pause before those that count."""

OVERLAP_S = 1.0
BATCHES = 15
BATCH_S = 0.02


def errors(make: Callable[[], Tool], devices: Devices, options: argparse.Namespace) -> dict[str, Any]:
    """Meter calls one after the other; give each one's length, true joules and reading."""
    tool = make()
    made = [_meter(tool, devices, plan) for plan in [WARM_UP, *plans(options.calls)]]
    tool.finish()
    rows = []
    for span, reading in made[1:]:
        truth, said = devices.truth(span), reading()
        rows.append(_rounded([span.end_s - span.start_s, *truth, *said]))
    return {"version": tool.version, "calls": rows}


def _meter(tool: Tool, devices: Devices, plan: Plan) -> tuple[Span, Callable[[], Reading]]:
    """Make one call and the pause after it; return when it was and what gives its reading."""
    spans: list[Span] = []
    reading = tool.call(lambda: spans.append(devices.work(plan)))
    time.sleep(plan.gap_s)
    return spans[0], reading


def _rounded(row: list[float | None]) -> list[float | None]:
    return [None if value is None else float(f"{value:.6g}") for value in row]


def cost(make: Callable[[], Tool], _devices: Devices, options: argparse.Namespace) -> dict[str, Any]:
    """Measure what an empty call costs, on its own and with the number of calls made before."""
    memory, start = _memory_mib(), time.perf_counter()
    tool = make()
    tool.empty(1)
    first_s = time.perf_counter() - start
    beside: dict[str, int] = {}
    tool.call(lambda: beside.update(_beside()))()
    once_s = _least_s(tool.empty)
    cpu, begin = time.process_time(), time.perf_counter()
    blocks, done = [], 0
    for reach in (10, 100, 1000, 10_000, 100_000):
        if (reach - done) * once_s > options.seconds:
            break
        start = time.perf_counter()
        tool.empty(reach - done)
        blocks.append([reach, (time.perf_counter() - start) / (reach - done)])
        done = reach
    tool.finish()
    return {
        "version": tool.version,
        "first_s": first_s,
        "call_s": once_s,
        "floor_s": _least_s(_bare),
        "cpu_s": (time.process_time() - cpu) / done if done else None,
        "lasted_s": time.perf_counter() - begin,
        "memory_mib": _memory_mib() - memory,
        "blocks": blocks,
        **beside,
    }


def _least_s(act: Callable[[int], None]) -> float:
    """Return the seconds of one of many, as the least of batches: whatever else the machine does can only add."""
    start = time.perf_counter()
    act(1)
    once = time.perf_counter() - start
    size = max(1, int(BATCH_S / once))
    taken = []
    for _ in range(BATCHES):
        start = time.perf_counter()
        act(size)
        taken.append((time.perf_counter() - start) / size)
    return min(taken)


class _Bare:
    """The least that a call can be: a context manager that takes two timestamps."""

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.end = time.perf_counter()


def _bare(times: int) -> None:
    for _ in range(times):
        with _Bare():
            pass


def _beside() -> dict[str, int]:
    """Count what runs beside the program while a call is open."""
    children = [(task / "children").read_text().split() for task in Path("/proc/self/task").iterdir()]
    return {"threads": threading.active_count() - 1, "processes": sum(map(len, children))}


def _memory_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def overlap(make: Callable[[], Tool], devices: Devices, options: argparse.Namespace) -> dict[str, Any]:
    """Have calls open at the same time; compare the sum of their joules with what the GPU drew."""
    tool = make()
    _meter(tool, devices, WARM_UP)
    settle(devices)
    rows = [_overlap(tool, devices, number) for number in options.together]
    return {"version": tool.version, "together": rows}


def _overlap(tool: Tool, devices: Devices, number: int) -> dict[str, Any]:
    spans: list[Span] = []
    readings: list[Callable[[], Reading]] = []
    faults: set[str] = set()

    def body() -> None:
        start = time.perf_counter()
        time.sleep(OVERLAP_S)
        spans.append(Span(start, time.perf_counter()))

    def make_one() -> None:
        try:
            readings.append(tool.call(body))
        except Exception as error:  # noqa: BLE001 - a tool that was not made for this may raise anything
            faults.add(type(error).__name__)

    threads = [threading.Thread(target=make_one, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    time.sleep(0.5)
    tool.finish()
    joules = [joules for reading in readings if (joules := reading().gpu_j)]
    drawn = devices.truth(Span(min(span.start_s for span in spans), max(span.end_s for span in spans))).gpu_j
    return {"number": number, "ratio": sum(joules) / drawn, "known": len(joules), "faults": sorted(faults)}


def sensors(_make: object, devices: Devices, _options: argparse.Namespace) -> dict[str, Any]:
    """Measure how long readings of the emulated sensors take in this run."""
    import pynvml

    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    taken = {"nvml_s": _each_s(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu))}
    if devices.cpu is not None:
        counter = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
        taken["rapl_s"] = _each_s(counter.read_text)
    return taken


def _each_s(act: Callable[[], object]) -> float:
    def timed() -> Iterator[float]:
        for _ in range(200):
            start = time.perf_counter()
            act()
            yield time.perf_counter() - start

    return statistics.median(timed())


EXPERIMENTS = {
    "errors": errors,
    "cost": cost,
    "overlap": overlap,
    "abilities": abilities,
    "shown": shown,
    "sensors": sensors,
}


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("result", type=Path)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--calls", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--together", type=int, nargs="*", default=[])
    options = parser.parse_args()
    devices = Devices(options.control)
    found = EXPERIMENTS[options.experiment](TOOLS[options.tool], devices, options)
    options.result.write_text(json.dumps(found))


if __name__ == "__main__":
    # Zeus starts processes that import this module again.
    main()
