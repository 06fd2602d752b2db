"""Emulated hardware for the benchmarks, and the CPU time that aimeter's threads take.

As a program, ``python -m benchmarks.rig FOLDER``, a powercap tree of two packages with memory whose counters
advance: in a process of its own, so that only reading it counts.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.emulator.nvml import ENERGY, FakeNvml
from tests.emulator.powercap import SERVER_DRAM_UNIT_J, PowercapTree

if TYPE_CHECKING:
    from aimeter.sensors.base import Sensor

LATENCY_S = 1e-3
"""What a reading of an emulated GPU takes; most of it the driver sleeps, half before its value is taken."""

_RENEWED_EVERY_S = 0.01
_ROOT = Path(__file__).parents[1]


class Hardware:
    """Emulated GPUs behind the real pynvml, and an emulated powercap tree, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "powercap"
        self._nvml: FakeNvml | None = None
        self._publisher: subprocess.Popen[str] | None = None

    @property
    def powercap(self) -> Path:
        """The powercap tree, whose counters advance from the first use on."""
        if self._publisher is None:
            self._folder.mkdir()
            command = [sys.executable, "-m", "benchmarks.rig", str(self._folder)]
            self._publisher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
            assert self._publisher.stdout is not None
            self._publisher.stdout.readline()
        return self._folder / "class" / "powercap"

    def gpus(self, count: int) -> FakeNvml:
        """Have so many GPUs with an energy counter that is renewed every 100 ms, none at the same moment."""
        self._nvml = fake = FakeNvml()
        for number in range(count):
            device = fake.add("a100", latency_s=LATENCY_S, counter_phase_s=0.013 * number)
            device.set_power(200.0)
        if not count:
            fake.unplug()
        return fake

    def sensors(self, gpus: int) -> list[Sensor]:
        """Return the sensors of so many GPUs and of the powercap tree."""
        from aimeter.sensors import nvml, powercap

        self.gpus(gpus)
        found = nvml.probe()[0] if gpus else []
        return [*found, *powercap.probe(self.powercap)[0]]

    def driver_cpu_s(self, readings: int = 200) -> float:
        """Return the CPU time that one reading of a GPU costs inside the emulated driver, Python left out."""
        import ctypes

        import pynvml

        fake = self._nvml
        assert fake is not None
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        ask, value = fake.lib[ENERGY], ctypes.c_ulonglong()
        began_s = time.thread_time()
        for _ in range(readings):
            ask(handle, ctypes.byref(value))
        taken_s = time.thread_time() - began_s
        pynvml.nvmlShutdown()
        return taken_s / readings

    def readings(self) -> int:
        """Return how often the GPUs' counters have been read."""
        return 0 if self._nvml is None else self._nvml.calls(ENERGY)

    def remove(self) -> None:
        """Take the hardware away."""
        if self._nvml is not None:
            self._nvml.unplug()
        if self._publisher is not None:
            self._publisher.terminate()
            self._publisher.wait()
            assert self._publisher.stdout is not None
            self._publisher.stdout.close()


def aimeter_threads() -> list[int]:
    """Return the kernel's numbers of aimeter's threads in this process."""
    return [
        thread.native_id
        for thread in threading.enumerate()
        if thread.name.startswith("aimeter") and thread.native_id is not None
    ]


def cpu_s_of(threads: list[int]) -> float:
    """Return the CPU time that threads of this process have taken, by the kernel's scheduler, in seconds."""
    return sum(int(Path(f"/proc/self/task/{one}/schedstat").read_text().split()[0]) for one in threads) / 1e9


def main() -> None:
    """Publish a powercap tree until terminated."""
    tree = PowercapTree(Path(sys.argv[1]))
    for number in range(2):
        package = tree.zone(f"package-{number}", watts=50.0)
        tree.zone("dram", parent=package, watts=5.0, unit_j=SERVER_DRAM_UNIT_J)
    with tree.live(_RENEWED_EVERY_S):
        print("ready", flush=True)
        time.sleep(24 * 3600)  # or until terminated


if __name__ == "__main__":
    main()
