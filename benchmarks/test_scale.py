"""Many calls: settling and writing keep up, memory and threads stay, and many open at once cost no more each."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import aimeter
from aimeter.testing import FakeClock, FakeSensor
from benchmarks.verdict import Finding, slowness


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_many_calls(tmp_path: Path, note: Callable[[Finding], None], full: bool) -> None:
    """Calls as fast as they come, each settled and written to CSV."""
    calls = 1_000_000 if full else 100_000
    log = tmp_path / "calls.csv"
    sensors = [
        FakeSensor(time.perf_counter, 100.0, period_s=0.1),
        FakeSensor(time.perf_counter, 40.0, id="cpu:0"),
    ]
    with aimeter.Meter(sensors=sensors, log=log, region="FR", memory_rows=100) as meter:

        def make(number: int) -> None:
            for _ in range(number):
                with meter.track("call"):
                    pass
            meter.flush(60.0)

        make(calls // 2)
        memory, threads = resident_bytes(), threading.active_count()
        began_s, cpu_s = time.perf_counter(), time.process_time()
        make(calls)
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        grown = (resident_bytes() - memory) / 1e6
        slow = slowness()
        rate, scaled = calls / took_s, calls / took_s * slow
        note(
            Finding(
                "calls a second, made, settled and written, here",
                rate,
                note=f"{calls / cpu_s:,.0f} of CPU time",
            )
        )
        note(
            Finding(
                "the same at an ordinary machine's speed",
                scaled,
                at_least=20_000,
                note=f"this one: 1/{slow:.1f}",
            )
        )
        note(Finding(f"memory after {calls:,} calls more", grown, "MB more", at_most=20))
        note(Finding("threads more", threading.active_count() - threads, at_most=0))
    with log.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    note(Finding("calls whose row is missing", calls + calls // 2 - rows, at_most=0))


@pytest.mark.parametrize("shape", ["beside one another", "inside one another"])
def test_many_open_calls(note: Callable[[Finding], None], full: bool, shape: str) -> None:
    """Settling a call costs the same whether 250 or 2,000 are open at once."""

    def per_call_s(count: int) -> float:
        clock = FakeClock()
        meter = aimeter.Meter(sensors=[FakeSensor(clock, 100.0)], clock=clock, region="FR", memory_rows=0)
        calls = [meter.track("open") for _ in range(count)]
        for call in calls:
            call.__enter__()
            if shape == "beside one another":
                call._parent = None
            clock.now_s += 1e-4
        for call in reversed(calls):
            call.finish("ok", None)
            clock.now_s += 1e-4
        began = time.perf_counter()
        meter.flush()
        return (time.perf_counter() - began) / count

    per_call_s(250)
    rounds = range(9 if full else 3)
    few, many = (min(per_call_s(count) for _ in rounds) for count in (250, 2000))
    note(Finding(f"settling 2,000 calls open {shape}, a call, over 250", many / few, at_most=1.5))
