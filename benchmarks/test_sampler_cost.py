"""What the background thread costs: 8 emulated GPUs through the real pynvml, and RAPL, at the default interval."""

from __future__ import annotations

import time
from collections.abc import Callable

import aimeter
from benchmarks.rig import Hardware, aimeter_threads, cpu_s_of
from benchmarks.verdict import Finding, slowness


def test_sampler(hardware: Hardware, note: Callable[[Finding], None], full: bool) -> None:
    """CPU time of aimeter's threads, by the kernel's scheduler, while a call is open and after the last one.

    The emulated driver runs in the same thread; what it takes by itself is measured apart and taken off.
    """
    seconds = 30.0 if full else 8.0
    with aimeter.Meter(sensors=hardware.sensors(8), region="FR") as meter:
        with meter.track("warm-up"):
            time.sleep(2.0)
        per_reading_s = hardware.driver_cpu_s()
        for label, pause_s in (("one call open throughout", seconds), ("a call every 0.5 s", 0.5)):
            threads, readings, began = aimeter_threads(), hardware.readings(), time.perf_counter()
            before_s = cpu_s_of(threads)
            while time.perf_counter() - began < seconds:
                with meter.track("call"):
                    time.sleep(pause_s * 0.9)
                time.sleep(pause_s * 0.1 if pause_s < seconds else 0.0)
            elapsed_s = time.perf_counter() - began
            spent_s = cpu_s_of(threads) - before_s
            driver_s = (hardware.readings() - readings) * per_reading_s
            percent, slow = 100 * (spent_s - driver_s) / elapsed_s, slowness()
            rate = f"{(hardware.readings() - readings) / elapsed_s:.0f} GPU readings a second"
            note(Finding(f"sampler, 8 GPUs and RAPL, {label}, here", percent, "% of a core", note=rate))
            scaled, factor = percent / slow, f"this one: 1/{slow:.1f}"
            note(
                Finding(
                    "the same at an ordinary machine's speed", scaled, "% of a core", at_most=1, note=factor
                )
            )
        time.sleep(4.0)
        note(Finding("aimeter's threads 4 s after the last call", len(aimeter_threads()), at_most=0))
