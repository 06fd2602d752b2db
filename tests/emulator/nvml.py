"""Control of the emulated NVML: GPUs whose physical power, sensors and faults a test decides.

    fake = FakeNvml()                                # or the fixture `nvml`
    gpu = fake.add("a100")                           # an idle A100
    gpu.set_power(300)                               # draws 300 W from now on
    gpu.true_energy_j(t0, t1)                        # exact integral of the physical power
    gpu.fault("nvmlDeviceGetTotalEnergyConsumption", GPU_IS_LOST, after_s=2)

Time is CLOCK_MONOTONIC (Python's `time.monotonic` and `time.perf_counter` on Linux) until `fake.time` is set;
from then on it stands still but for the latency of the calls, and the test moves it. In a subprocess the same
GPUs appear with ``subprocess.run(..., env=fake.environ(tmp_path))``.
"""

from __future__ import annotations

import ctypes
import math
import os
import uuid
from typing import TYPE_CHECKING

import pynvml

from .build import library

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
UNKNOWN = 999

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
POWER = "nvmlDeviceGetPowerUsage"
FIELD_AVERAGE = "POWER_AVERAGE"
"""Field 185, as far as faults and call counts are concerned."""
FIELD_INSTANT = "POWER_INSTANT"
"""Field 186 with the scope GPU."""
FIELD_MODULE = "POWER_INSTANT_MODULE"
"""Field 186 with the scope module."""


def _gpu(
    architecture: int, capability: str, limits: str, idle_w: float, instant_ms: str, **more: float
) -> dict[str, float]:
    major, minor = capability.split(".")
    low_w, high_w = limits.split("-")
    period_ms, window_ms = instant_ms.split("/")
    return {
        "architecture": architecture, "major": int(major), "minor": int(minor),
        "min_limit_w": float(low_w), "max_limit_w": float(high_w), "limit_w": float(high_w), "idle_w": idle_w,
        "instant_period_s": float(period_ms) / 1e3, "instant_window_s": float(window_ms) / 1e3,
        **more,
    }  # fmt: skip


# T and W of the instant power: "Part-time Power Measurements", arXiv 2312.02741. Limits: data sheets.
PRESETS: Mapping[str, Mapping[str, float]] = {
    "h100": _gpu(9, "9.0", "200-700", 70, "100/25", usage_is_average=1),
    "gh200": _gpu(9, "9.0", "100-900", 80, "100/20", usage_is_average=1, module_w=120),
    "a100": _gpu(7, "8.0", "100-400", 55, "100/25"),
    "rtx3090": _gpu(7, "8.6", "100-350", 25, "100/100", usage_is_average=1),
    "t4": _gpu(6, "7.5", "60-70", 10, "100/100"),
    "v100": _gpu(5, "7.0", "100-300", 40, "20/10"),
    "gtx1080": _gpu(4, "6.1", "90-216", 8, "20/10"),
}
NAMES = {
    "h100": "NVIDIA H100 80GB HBM3",
    "gh200": "NVIDIA GH200 480GB",
    "a100": "NVIDIA A100-SXM4-40GB",
    "rtx3090": "NVIDIA GeForce RTX 3090",
    "t4": "Tesla T4",
    "v100": "Tesla V100-SXM2-16GB",
    "gtx1080": "NVIDIA GeForce GTX 1080",
}
_EVERY_GPU = {
    "memory_bytes": 16 * 2**30,
    "quantum_w": 0.01,
    "taken_at": 0.5,
    "average_period_s": 0.1,
    "average_window_s": 1.0,
    "instant_phase_s": 0.031,
    "average_phase_s": 0.057,
    # Of an H100, by `benchmarks.hardware`.
    "counter_latency_s": 0.004,
    "instant_latency_s": 0.01,
    "average_latency_s": 0.01,
    "samples_period_s": 0.02,
    "samples_window_s": 0.02,
    "samples_phase_s": 0.011,
    "samples_latency_s": 0.002,
    "counter_period_s": 0.1,
    "counter_phase_s": 0.013,
    "counter_start_j": 123_456.789,
}


class FakeDevice:
    """One emulated GPU."""

    def __init__(self, fake: FakeNvml, index: int, preset: str) -> None:
        self._fake = fake
        self.index = index
        self.name = NAMES[preset]
        self.uuid = f"GPU-{uuid.UUID(int=(index + 1) * 0x11111111_1111_1111_1111_111111111111)}"
        self.bus_id = f"00000000:{index + 1:02X}:00.0"
        self.mig_uuids: list[str] = []

    def set(
        self, *, idle_w: float | None = None, name: str = "", uuid: str = "", **numbers: float
    ) -> FakeDevice:
        """Change the sensors or the identity; the keys of the numbers are listed in gpu.h."""
        if idle_w is not None:
            self._fake.command(f"power {self.index} 0 {idle_w!r} 0")
        for key, text in (("name", name), ("uuid", uuid)):
            if text:
                setattr(self, key, text)
                self._fake.command(f"{key} {self.index} {text}")
        for key, number in numbers.items():
            self._fake.command(f"set {self.index} {key} {float(number)!r}")
        return self

    def set_power(self, watts: float, *, at: float | None = None, tau_s: float = 0.0) -> None:
        """Draw `watts` from the time `at` (default now) on, approached with time constant `tau_s`."""
        start = self._fake.time if at is None else at
        self._fake.command(f"power {self.index} {start!r} {float(watts)!r} {tau_s!r}")

    def play(self, pieces: Iterable[tuple[float, float]], *, start: float | None = None) -> float:
        """Draw a waveform of (seconds, watts) pieces, the last of which stays; return when it ends."""
        at = self._fake.time if start is None else start
        for seconds, watts in pieces:
            self.set_power(watts, at=at)
            at += seconds
        return at

    def true_energy_j(self, t0: float, t1: float) -> float:
        """Return the exact integral of the physical power from t0 to t1, in joules."""
        return float(self._fake.lib.emu_true_energy(self.index, t0, t1))

    def true_power_w(self, t: float) -> float:
        """Return the physical power at time t, in watts."""
        return float(self._fake.lib.emu_true_power(self.index, t))

    def fault(
        self, function: str, code: int, *, after_s: float | None = None, calls: int | None = None
    ) -> None:
        """Make a function return `code`, `after_s` seconds from now on, for that many calls (default all)."""
        self._fake.command(f"fault {self.index} {function} {code} {self._fake.schedule(after_s, calls)}")

    def force(
        self, function: str, raw: float, *, after_s: float | None = None, calls: int | None = None
    ) -> None:
        """Make a meter give this raw value (mW or mJ) in place of the true one."""
        self._fake.command(
            f"force {self.index} {function} {float(raw)!r} {self._fake.schedule(after_s, calls)}"
        )

    def freeze(self, function: str, *, after_s: float = 0.0) -> None:
        """Make a meter repeat for ever what it says `after_s` seconds from now."""
        self._fake.command(f"freeze {self.index} {function} {self._fake.time + after_s!r}")

    def heal(self, function: str) -> None:
        """Undo `fault`, `force` and `freeze`."""
        self._fake.command(f"heal {self.index} {function}")
        self._fake.command(f"freeze {self.index} {function} inf")

    def reset_counter(self, *, after_s: float = 0.0) -> None:
        """Start the energy counter again from 0, as a driver reload does."""
        self.set(counter_reset_s=self._fake.time + after_s)

    def add_mig(self, *, uuid: str = "", gpu_instance: int | None = None, compute_instance: int = 0) -> str:
        """Switch MIG on and add one instance; return its UUID."""
        number = len(self.mig_uuids)
        instance = uuid or "MIG-" + self.uuid.removeprefix("GPU-")[:-1] + "abcdef0"[number]
        gi = number + 1 if gpu_instance is None else gpu_instance
        self._fake.command(f"mig {self.index} {instance} {gi} {compute_instance}")
        self.mig_uuids.append(instance)
        return instance

    def calls(self, function: str) -> int:
        """Return how often a function was called on this device."""
        return self._fake.calls(function, self.index)


class FakeNvml:
    """The emulated NVML library of this process, which pynvml then finds in place of the driver's.

    There is one per process, and its state is the library's: making a second FakeNvml starts it afresh.
    """

    def __init__(self) -> None:
        # Loaded first, by path, it is what the loader gives pynvml for its DT_SONAME.
        self.lib = ctypes.CDLL(str(library()))
        if pynvml.nvmlLib is not None and pynvml.nvmlLib._handle != self.lib._handle:
            pynvml.nvmlLib = self.lib  # a driver's library had been loaded before
        pynvml._nvmlGetFunctionPointer_cache.clear()
        self.lib.emu_set_time.argtypes = [ctypes.c_double]
        self.lib.emu_now.restype = ctypes.c_double
        self.lib.emu_true_energy.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_double]
        self.lib.emu_true_energy.restype = ctypes.c_double
        self.lib.emu_true_power.argtypes = [ctypes.c_int, ctypes.c_double]
        self.lib.emu_true_power.restype = ctypes.c_double
        self.lib.emu_calls.restype = ctypes.c_long
        self.reset()

    def reset(self) -> None:
        """Start afresh: no device, the real clock, no fault, not initialised."""
        self._journal: list[str] = []
        self.devices: list[FakeDevice] = []
        self.real_time()
        self._restart()

    def unplug(self) -> None:
        """Look like a machine without an NVIDIA driver: what a test leaves behind."""
        self.reset()
        self.init_error(LIBRARY_NOT_FOUND)

    def command(self, line: str) -> None:
        """Give the library one command and remember it for `environ`; see nvml.c for the language."""
        if self.lib.emu_command(line.encode()) != 0:
            message = f"The emulated NVML does not understand {line!r}."
            raise ValueError(message)
        self._journal.append(line)

    def add(self, preset: str = "a100", **settings: float | str) -> FakeDevice:
        """Add one GPU, idle, with the sensors of its family; `settings` as in `FakeDevice.set`."""
        device = FakeDevice(self, len(self.devices), preset)
        self.devices.append(device)
        self.command(f"add {device.index}")
        self.command(f"bus {device.index} {device.bus_id}")
        numbers = {**_EVERY_GPU, **PRESETS[preset]}
        device.set(name=device.name, uuid=device.uuid, **numbers)
        if preset == "gtx1080":
            device.fault(ENERGY, NOT_SUPPORTED)  # no counter before Volta
        if not numbers.get("usage_is_average"):
            device.fault(FIELD_AVERAGE, NOT_SUPPORTED)
        return device.set(**settings)  # type: ignore[arg-type]

    def device(self, index: int) -> FakeDevice:
        """Return a GPU by its NVML index."""
        return self.devices[index]

    @property
    def time(self) -> float:
        """Seconds on the library's clock; setting it stops the clock there."""
        return float(self.lib.emu_now())

    @time.setter
    def time(self, seconds: float) -> None:
        self.lib.emu_set_time(float(seconds))

    def real_time(self) -> None:
        """Go back to CLOCK_MONOTONIC."""
        self.lib.emu_set_time(math.nan)

    def init_error(self, code: int) -> None:
        """Make nvmlInit return `code` (0 heals it)."""
        self.command(f"init {code}")

    def fault(
        self, function: str, code: int, *, after_s: float | None = None, calls: int | None = None
    ) -> None:
        """Make a function fail for every device; see `FakeDevice.fault`."""
        self.command(f"fault L {function} {code} {self.schedule(after_s, calls)}")

    def schedule(self, after_s: float | None, calls: int | None) -> str:
        """Return the two words of a command that say from when on and how often."""
        start = -math.inf if after_s is None else self.time + after_s
        return f"{start!r} {-1 if calls is None else calls}"

    def calls(self, function: str, device: int | None = None) -> int:
        """Return how often a function was called, in all or on one device."""
        count = int(self.lib.emu_calls(-1 if device is None else device, function.encode()))
        if count < 0:
            message = f"The emulated NVML has no function {function!r}."
            raise ValueError(message)
        return count

    @property
    def references(self) -> int:
        """How many more times nvmlInit succeeded than nvmlShutdown in this process."""
        return int(self.lib.emu_references())

    def environ(
        self, folder: Path, *, omit: tuple[str, ...] = (), base: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Write the present state as a file and return the environment that gives it to a new process.

        The new process has the real clock. Power that is set here later does not reach it; `play` it first.

        Args:
            folder: Where the file goes.
            omit: Functions that the library must not export there.
            base: Environment to extend; default this process's.
        """
        script = folder / "emulated-nvml.txt"
        script.write_text("\n".join(self._journal) + "\n")
        environment = dict(os.environ if base is None else base)
        environment["AIMETER_TEST_NVML"] = str(script)
        environment["LD_LIBRARY_PATH"] = str(library(omit).parent)
        return environment

    def _restart(self) -> None:
        self.command("restart")
