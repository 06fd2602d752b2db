"""One NVIDIA GPU, read through NVML.

It is read, in this order of preference, through

1. the energy counter (``nvmlDeviceGetTotalEnergyConsumption``, Volta and newer),
2. the instant power (field 186),
3. ``nvmlDeviceGetPowerUsage``, which is a mean over 1 s on GA10x, Ada, Hopper and newer,
4. the instant power of the whole module, which on Grace Hopper contains the CPU.

On a superchip the counter is the module's as well.

NVML's millijoules and milliwatts become joules and watts here and nowhere else. Sources: NVIDIA NVML API
Reference; update periods and windows from Yang, Adamek, Armour, "Part-time Power Measurements", SC'24,
arXiv 2312.02741.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from aimeter._support.clocks import time
from aimeter.sensors.base import MOST_POWER_W, Channel, Outcome, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aimeter.sensors.base import Clock, Method, Quantity
    from aimeter.sensors.visible import Gpu

_RELATIVE_ERROR = 0.13
"""95 % half-width of the gain. "Part-time Power Measurements" (arXiv 2312.02741) calls the error about 5 % of the
reading, and gives the gains of ten boards (reported over shunt: .946 1.001 .965 .97 .999 1.064 .954 .992 .89 1.044).
True over reported of the next board then lies within 12.9 % of 1 with 95 % probability: Student's t for mean 1.020,
standard deviation 0.052, nine degrees of freedom."""

_COUNTER_PERIOD_S = 0.1
"""No vendor figure. 20 to 100 ms in PETSc's manual of its NVML log, about 100 ms in Zeus' documentation."""

_COUNTER_LATENCY, _POWER_LATENCY = (0.004, 0.003), (0.01, 0.008)
"""How late a value is, and the 95 % half-width of that, in seconds. `benchmarks.hardware` on an H100: counter 4 +- 1.2,
instant power 10 +- 5.3, mean over 1 s 16 +- 16 ms. In the step responses of "Part-time Power Measurements" the instant
power of an RTX 3090 is 10 to 17 ms late, an A100's less than 34 ms; nothing is known of the others."""

_AVERAGE_PERIOD_S = 0.1
_AVERAGE_WINDOW_S = 1.0

_GRACE_HOPPER = re.compile(r"\bGH\d+\b")
_HOPPER = (9, 0)
"""Grace Hopper is told by its name, or, as a name may be garbled, by an answer for the module, which an H100 refuses."""

_MODULE = "the whole module, CPU included"

_FIELD_INSTANT = 186
_SCOPE_GPU, _SCOPE_MODULE = 0, 1
_TRIES = 3

_UNINITIALIZED = 1

_GONE = frozenset({1, 2, 3, 4, 6, 9, 12, 13, 14, 15, 16, 17, 18, 28})
"""Return codes after which asking again is useless: UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED,
NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, CORRUPTED_INFOROM,
GPU_IS_LOST, RESET_REQUIRED, OPERATING_SYSTEM, LIB_RM_VERSION_MISMATCH, GPU_NOT_FOUND. All others may pass:
TIMEOUT, IN_USE, NO_DATA, NOT_READY, and UNKNOWN, which is also what a container gets for ever after
``systemctl daemon-reload``; that the readings have stopped is for the sampler to notice."""


class Timing(NamedTuple):
    """How a family of GPUs publishes its power, in seconds."""

    instant_period_s: float
    instant_window_s: float
    usage_is_average: bool
    """Whether ``nvmlDeviceGetPowerUsage`` is a mean over 1 s."""


_TIMINGS: tuple[tuple[tuple[int, int], Timing], ...] = (
    ((9, 0), Timing(0.1, 0.025, usage_is_average=True)),  # Hopper; newer ones unmeasured, taken to be like it
    ((8, 1), Timing(0.1, 0.1, usage_is_average=True)),  # GA10x, Ada
    ((8, 0), Timing(0.1, 0.025, usage_is_average=False)),  # GA100
    ((7, 5), Timing(0.1, 0.1, usage_is_average=False)),  # Turing
    ((6, 0), Timing(0.02, 0.01, usage_is_average=False)),  # Pascal, Volta
    ((0, 0), Timing(0.1, 0.1, usage_is_average=False)),  # Kepler, Maxwell: a first-order lag
)


def timing(capability: tuple[int, int] | None) -> Timing:
    """Return how GPUs of this compute capability publish power; the most cautious row if it is unknown.

    The compute capability tells GA100 (8.0) from GA10x (8.6), which NVML's architecture does not.
    """
    if capability is None:
        return _TIMINGS[0][1]
    return next(row for least, row in _TIMINGS if capability >= least)


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of asking a GPU: a call that returns joules or watts, or raises NVMLError."""

    what: str
    method: Method
    quantity: Quantity
    period_s: float
    window_s: float
    ask: Callable[[Any], float]
    latency: tuple[float, float] = _POWER_LATENCY
    quantum_j: float = 0.0
    of_module: bool = False


def _ways(nv: Any, capability: tuple[int, int] | None) -> list[_Way]:  # noqa: ANN401  pynvml has no types
    family = timing(capability)

    def energy_j(handle: object) -> float:
        return nv.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3  # type: ignore[no-any-return]

    def usage_w(handle: object) -> float:
        return nv.nvmlDeviceGetPowerUsage(handle) / 1e3  # type: ignore[no-any-return]

    def instant_w(scope: int) -> Callable[[object], float]:
        def ask(handle: object) -> float:
            answer = nv.nvmlDeviceGetFieldValues(handle, [(_FIELD_INSTANT, scope)])[0]
            # The call succeeds although a field failed; each has a return code of its own.
            if answer.nvmlReturn:
                raise nv.NVMLError(answer.nvmlReturn)
            return answer.value.uiVal / 1e3  # type: ignore[no-any-return]

        return ask

    instant = (family.instant_period_s, family.instant_window_s)
    usage = (_AVERAGE_PERIOD_S, _AVERAGE_WINDOW_S) if family.usage_is_average else instant
    usage_name = "power averaged over 1 s" if family.usage_is_average else "power"
    return [
        _Way(
            "energy counter",
            "counter",
            "energy",
            _COUNTER_PERIOD_S,
            0.0,
            energy_j,
            _COUNTER_LATENCY,
            quantum_j=1e-3,
        ),
        _Way("instant power", "power", "power", *instant, instant_w(_SCOPE_GPU)),
        _Way(usage_name, "power", "power", *usage, usage_w),
        _Way("power of the module", "power", "power", *instant, instant_w(_SCOPE_MODULE), of_module=True),
    ]


class NvmlGpu:
    """One GPU. Reading it costs one NVML call.

    Args:
        nv: The module ``pynvml``.
        gpu: The device, as `probe` found it.
        clock: Monotonic clock that stamps the readings.
        ways: Which ways of reading to try, in this order; all by default.

    Raises:
        pynvml.NVMLError: If NVML or the device cannot be opened.
    """

    def __init__(
        self,
        nv: Any,  # noqa: ANN401  pynvml has no types
        gpu: Gpu,
        *,
        clock: Clock = time.perf_counter,
        ways: Sequence[_Way] | None = None,
    ) -> None:
        self.channels: tuple[Channel, ...] = ()
        self.faults: list[str] = []
        """Why ways that are better than the one in use do not serve."""
        self._nv = nv
        self._gpu = gpu
        self._clock = clock
        self._label = f"gpu:{gpu.index} ({gpu.name})"
        self._last: tuple[float, float] | None = None
        nv.nvmlInit()
        self._pid: int | None = os.getpid()
        try:
            self._handle = self._find()
        except BaseException:
            self.close()
            raise
        self._all_ways = list(_ways(nv, gpu.capability) if ways is None else ways)
        self._ways = self._all_ways[:]
        self._superchip = _GRACE_HOPPER.search(gpu.name) is not None or (
            ways is None and gpu.capability == _HOPPER and not self._trial(self._ways[-1])
        )
        # A counter is held against a power of the same devices.
        self._instant_ways = [
            way
            for way in self._ways
            if 0 < way.window_s < _AVERAGE_WINDOW_S and way.of_module == self._superchip
        ]
        self._way: _Way
        self._ask: Callable[[Any], float]
        self.fall_back()

    @property
    def in_use(self) -> str:
        """What the GPU is read through, in words."""
        return self._way.what

    def read(self) -> list[Reading]:
        """Read the GPU once. A fault of the device and an implausible value are outcomes, not exceptions."""
        if not self.channels:
            return []
        before_s = self._clock()
        try:
            try:
                value = self._ask(self._handle)
            except self._nv.NVMLError as fault:
                if fault.value != _UNINITIALIZED or self._pid != os.getpid():
                    raise
                self.reopen()
                value = self._ask(self._handle)
        except Exception as fault:  # noqa: BLE001 - the binding raises what it likes
            outcome = Outcome.GONE if getattr(fault, "value", None) in _GONE else Outcome.AGAIN
            return [
                Reading(before_s, self._clock(), outcome, None, f"{self._label}: {self._way.what}: {fault}")
            ]
        after_s = self._clock()
        doubt = self._doubt(self._way, value, after_s)
        if doubt:
            reason = f"{self._label}: {self._way.what} {doubt}"
            return [Reading(before_s, after_s, Outcome.AGAIN, None, reason)]
        self._last = (after_s, value)
        return [Reading(before_s, after_s, Outcome.OK, value)]

    def fall_back(self) -> bool:
        """Change to the next way of reading that gives a value, `channels` with it; False if none does."""
        while self._ways:
            way = self._ways.pop(0)
            fault = self._trial(way)
            if fault:
                self.faults.append(f"{way.what}: {fault}")
                continue
            if self.channels:
                self.faults.append(f"{self._way.what}: given up")
            self._way, self._ask = way, way.ask
            self.channels = (self._channel(way),)
            return True
        return False

    def retake(self) -> bool:
        """Try all ways of reading again, the best first, as after a reset of the driver; False if none gives a value."""
        self._ways, self._last = self._all_ways[:], None
        del self.faults[:]
        return self.fall_back()

    def beside(self) -> NvmlGpu | None:
        """Return a sensor of the instant power, which tells more of a counter's steps; None if there is none."""
        if self._way.quantity != "energy":
            return None
        for way in self._instant_ways:
            with contextlib.suppress(self._nv.NVMLError):
                other = NvmlGpu(self._nv, self._gpu, clock=self._clock, ways=[way])
                if other.channels:
                    return other
                other.close()
        return None

    def reopen(self) -> None:
        """Initialise NVML in a forked child, where the parent's handles are dead.

        The parent's nvmlInit does not count in the child (NVIDIA/cuCascade PR 138), so nothing is shut down
        there: that could take NVML away from whoever has initialised it in the child already.
        """
        held = self._pid == os.getpid() and self._is_initialised()
        self._handle = None  # NVML refuses a null handle; a stale one it may follow
        try:
            self._nv.nvmlInit()
        except self._nv.NVMLError:
            return  # the next reading says why
        if held:
            self._release()
        self._pid = os.getpid()
        try:
            self._handle = self._find()
        except self._nv.NVMLError:
            return

    def close(self) -> None:
        """Give back this sensor's hold on NVML; harmless in a child that never reopened it."""
        if self._pid == os.getpid():
            self._release()
        self._pid = None

    def _is_initialised(self) -> bool:
        """Return whether NVML is: somebody else may have shut it down once too often, this sensor's hold with it."""
        try:
            self._nv.nvmlDeviceGetCount()
        except self._nv.NVMLError as fault:
            return bool(fault.value != _UNINITIALIZED)
        return True

    def _find(self) -> Any:  # noqa: ANN401  a ctypes pointer
        if self._gpu.uuid:
            return self._nv.nvmlDeviceGetHandleByUUID(self._gpu.uuid)
        return self._nv.nvmlDeviceGetHandleByIndex(self._gpu.index)

    def _release(self) -> None:
        # Someone else may have shut it down once too often.
        with contextlib.suppress(self._nv.NVMLError):
            self._nv.nvmlShutdown()

    def _trial(self, way: _Way) -> str:
        """Return why this way gives no value now, or an empty string."""
        fault = ""
        for _ in range(_TRIES):
            try:
                fault = self._doubt(way, way.ask(self._handle), self._clock())
            except Exception as error:  # noqa: BLE001 - the binding raises what it likes; other ways may work
                fault = str(error)
                if getattr(error, "value", None) in _GONE:
                    break
            if not fault:
                break
        return fault

    def _doubt(self, way: _Way, value: float, now_s: float) -> str:
        """Return why a value cannot be true, or an empty string.

        A device that is on draws more than nothing: 0 is what NVML gives when it is asked too fast, and what
        counters that do not work give. The greatest limit is doubled, as short peaks do exceed it.
        """
        if value <= 0:
            return "reads 0"
        limit_w = self._gpu.max_power_w
        most_w = MOST_POWER_W if limit_w is None else 2 * limit_w
        if way.quantity == "power":
            return f"reads {value:.0f} W, which it cannot draw" if value > most_w else ""
        if self._last is not None:
            last_s, last_j = self._last
            gain_j = value - last_j
            if gain_j > most_w * (now_s - last_s + way.period_s):
                return f"jumped by {gain_j:.3g} J in {now_s - last_s:.3g} s, which it cannot draw"
        return ""

    def _covers_module(self, way: _Way) -> bool:
        """Return whether a way of reading counts the CPU beside the GPU, as the counter of Grace Hopper does.

        Source: ml-energy/zeus PR 172.
        """
        return way.of_module or (way.quantity == "energy" and self._superchip)

    def _channel(self, way: _Way) -> Channel:
        of_module = self._covers_module(way)
        notes = [_MODULE] if of_module else []
        if self._gpu.mig_enabled:
            notes.append("whole device, upper bound")
        return Channel(
            id=f"gpu:{self._gpu.index}",
            kind="gpu",
            method=way.method,
            quantity=way.quantity,
            name=self._gpu.name,
            device=self._gpu.uuid or self._gpu.pci_bus_id or f"NVML index {self._gpu.index}",
            source="nvml",
            period_s=way.period_s,
            window_s=way.window_s,
            latency_s=way.latency[0],
            latency_error_s=way.latency[1],
            quantum_j=way.quantum_j,
            relative_error=_RELATIVE_ERROR,
            max_power_w=self._gpu.max_power_w,
            shared=self._gpu.mig_enabled,
            covers=("cpu", "dram") if of_module else (),
            note="; ".join(notes) or None,
        )
