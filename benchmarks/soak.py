"""Whether anything grows with the number of calls: hours of calls of every kind on eight emulated GPUs.

Prints each minute what the process holds: resident memory, Python's blocks, threads, open files. A leak of the C
library's allocator, or of NumPy's buffers, shows in the first; one of objects in the second.

    python -m benchmarks.soak --minutes 60
"""

from __future__ import annotations

import argparse
import contextvars
import gc
import os
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aimeter
from benchmarks.rig import Hardware

_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Make calls for so many minutes; return 1 if memory still grows at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--gpus", type=int, default=8)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        hardware = Hardware(Path(folder))
        sensors = hardware.sensors(given.gpus)
        try:
            log = Path(folder) / "calls.csv"
            with aimeter.Meter(sensors=sensors, region="FR", log=log, memory_rows=1000) as meter:
                return watch(meter, 60.0 * given.minutes)
        finally:
            hardware.remove()


def watch(meter: aimeter.Meter, seconds: float) -> int:
    """Make calls, and print what the process holds each minute."""
    over = threading.Event()
    workers = [threading.Thread(target=work, args=(meter, over), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    print(
        f"{'minute':>6} {'calls':>9} {'resident kB':>12} {'blocks':>9} {'threads':>7} {'files':>5}",
        flush=True,
    )
    began_s, resident = time.monotonic(), []
    while time.monotonic() - began_s < seconds:
        time.sleep(min(60.0, max(seconds - (time.monotonic() - began_s), 0.1)))
        gc.collect()
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KB)
        minute = (time.monotonic() - began_s) / 60
        calls, files = meter.summary().total.calls, sum(1 for _ in Path("/proc/self/fd").iterdir())
        blocks, threads = sys.getallocatedblocks(), threading.active_count()
        print(f"{minute:6.0f} {calls:9} {resident[-1]:12} {blocks:9} {threads:7} {files:5}", flush=True)
    over.set()
    for worker in workers:
        worker.join()
    half, grown = len(resident) // 2, 0.0
    if half >= 4:
        grown = (sum(resident[-half // 2 :]) / len(resident[-half // 2 :])) / (
            sum(resident[half : half + half // 2]) / (half // 2)
        ) - 1
        print(f"the last quarter holds {grown:+.2%} of the third")
    return int(grown > 0.01)


def work(meter: aimeter.Meter, over: threading.Event) -> None:
    """Make calls of every kind until told to stop: short, long, nested, abandoned, outliving, failing."""
    held: deque[tuple[contextvars.Context, Any]] = deque()
    function = meter.track("function")(lambda: None)

    @meter.track("generator")
    def generator() -> Iterator[int]:
        yield from range(3)

    number = 0
    while not over.is_set():
        number += 1
        with meter.track("request", items=1) as call:
            call.note(number=number)
            with meter.track("inner"):
                function()
            child, context = meter.track("outliving"), contextvars.copy_context()
            context.run(child.__enter__)
            held.append((context, child))
        next(generator())
        if len(held) > 50:
            context, child = held.popleft()
            context.run(child.__exit__, None, None, None)
        try:
            with meter.track(f"name {number % 200}"):
                raise ValueError  # noqa: TRY301 - calls that fail are calls, too
        except ValueError:
            pass
        time.sleep(0.02 if number % 50 else 0.5)


if __name__ == "__main__":
    raise SystemExit(main())
