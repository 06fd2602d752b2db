"""The load: calls that cause it themselves, the same ones for every tool, and the energy that they really use."""

from __future__ import annotations

import ctypes
import math
import random
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.cpu import IDLE_W, Cpu

SHORTEST_S, LONGEST_S = 0.01, 3.0
GAPS_S = 0.02, 0.3
SPIKE_W = 450.0, 690.0
SPIKE_S = 0.05
PLATEAU_W = 200.0, 400.0
NOISE = 0.03
PIECE_S = 0.02
GLOW_W, REST_W, TAU_S = 110.0, 70.0, 0.4
CPU_W = 60.0, 120.0

COUNTERS = {"100 ms": (0.1, 0.0), "20 ms": (0.02, 0.0), "100 ms, late": (0.1, 0.01)}
"""How the GPU's energy counter is renewed: every so many seconds, and each time up to so many late."""


class Plan(NamedTuple):
    """One call: how long it lasts, what it draws, and how long nothing is done after it."""

    length_s: float
    spike_w: float
    plateau_w: tuple[float, ...]
    cpu_w: float
    gap_s: float


class Span(NamedTuple):
    """When a call was really open, on the clock of time.perf_counter()."""

    start_s: float
    end_s: float


class Truth(NamedTuple):
    """What the devices drew in a span; None for a CPU that is not there."""

    gpu_j: float
    cpu_j: float | None


def plans(count: int, seed: int = 1) -> list[Plan]:
    """Return `count` calls, their lengths spread evenly over the logarithm and shuffled."""
    choose = random.Random(seed)
    lengths = [SHORTEST_S * (LONGEST_S / SHORTEST_S) ** ((place + 0.5) / count) for place in range(count)]
    choose.shuffle(lengths)
    return [
        Plan(
            length,
            choose.uniform(*SPIKE_W),
            _noisy(choose, choose.uniform(*PLATEAU_W), length),
            choose.uniform(*CPU_W),
            choose.uniform(*GAPS_S),
        )
        for length in lengths
    ]


def _noisy(choose: random.Random, watts: float, length_s: float) -> tuple[float, ...]:
    # A call may last longer than planned on a busy machine, so there is more of the plateau than needed.
    return tuple(watts * choose.gauss(1, NOISE) for _ in range(math.ceil(length_s / PIECE_S) + 10))


class Devices:
    """The emulated GPU and CPU, as the process that makes the calls drives them."""

    def __init__(self, control: Path | None) -> None:
        # The library that the tool's own binding has loaded or will load.
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        self._nvml.emu_true_energy.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_double]
        self._nvml.emu_true_energy.restype = ctypes.c_double
        self.cpu = None if control is None else Cpu(control)

    def set_gpu(self, watts: float, at_s: float, tau_s: float = 0.0) -> None:
        """Draw `watts` from `at_s` on, approached with a time constant; what was planned for later is dropped."""
        if self._nvml.emu_command(f"power 0 {at_s!r} {watts!r} {tau_s!r}".encode()) != 0:
            message = "This process does not see the emulated GPU."
            raise RuntimeError(message)

    def set_cpu(self, watts: float) -> None:
        """Draw `watts` from now on."""
        if self.cpu is not None:
            self.cpu.set_power(watts)

    def cool(self, at_s: float) -> None:
        """Leave the GPU to its afterglow."""
        self.set_gpu(GLOW_W, at_s)
        self.set_gpu(REST_W, at_s + 1e-6, TAU_S)

    def truth(self, span: Span) -> Truth:
        """Return the exact energy of a span."""
        cpu_j = None if self.cpu is None else self.cpu.true_energy_j(*span)
        return Truth(self._nvml.emu_true_energy(0, *span), cpu_j)

    def work(self, plan: Plan) -> Span:
        """Do what a call does: draw a spike, a plateau with noise, and leave an afterglow."""
        start = time.perf_counter()
        self.set_gpu(plan.spike_w, start)
        self.set_cpu(plan.cpu_w)
        at = start + min(0.1 * plan.length_s, SPIKE_S)
        for watts in plan.plateau_w:
            self.set_gpu(watts, at)
            at += PIECE_S
        time.sleep(max(start + plan.length_s - time.perf_counter(), 0.0))
        end = time.perf_counter()
        self.cool(end)
        self.set_cpu(IDLE_W)
        return Span(start, end)
