"""Machines to be validated on: what is in them, what their sensors are like, and what goes wrong."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aimeter
from aimeter.sensors import nvml as nvml_sensor
from aimeter.sensors import powercap as powercap_sensor
from tests.emulator.nvml import (
    ENERGY,
    FIELD_INSTANT,
    FIELD_MODULE,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    POWER,
    PRESETS,
    FakeDevice,
    FakeNvml,
)
from tests.emulator.powercap import AMD_UNIT_J, INTEL_UNIT_J, SERVER_DRAM_UNIT_J, PowercapTree

from .loads import IDLE_W, LIMIT_W, Load
from .waveform import Waveform
from .world import World

START_S = 1000.0

_RAPL_READ_S = 0.00015
_NVML_READ_S = 0.0003


@dataclass(frozen=True)
class Gpu:
    """One GPU: a preset of the emulator, changes to it, and what it cannot do or will not do for long.

    Attributes:
        preset: Family; its power limit scales the load.
        settings: Changes to the preset.
        unsupported: Functions that it does not offer.
        fault: Called with the device and the load's length when the load begins.
        gain: Of the meter that serves, so that what the sensor says can be told from what is made of it.
    """

    preset: str
    settings: Mapping[str, float] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()
    fault: Callable[[FakeDevice, float], object] | None = None
    gain: float = 1.0
    offset_w: float = 0.0


@dataclass(frozen=True)
class Cpu:
    """One package, with memory behind it if that is asked for; Intel renews its counters 1,024 times a second."""

    unit_j: float = INTEL_UNIT_J
    period_s: float = 1 / 1024
    start_j: float = 12_345.678
    read_s: float = _RAPL_READ_S
    dram: bool = False


@dataclass(frozen=True)
class Profile:
    """A machine. The sampler is `starved` in that part of its rounds."""

    gpus: tuple[Gpu, ...] = ()
    cpus: tuple[Cpu, ...] = ()
    starved: float = 0.0


COUNTER_ABSENT = (ENERGY,)
AVERAGE_ONLY = (ENERGY, FIELD_INSTANT, FIELD_MODULE)


def _freeze(function: str) -> Callable[[FakeDevice, float], object]:
    return lambda device, length_s: device.freeze(function, after_s=length_s / 2)


def _absurd(function: str, raw: float) -> Callable[[FakeDevice, float], object]:
    """Some readings are nonsense, now and then."""

    def fault(device: FakeDevice, length_s: float) -> None:
        device.force(function, raw, after_s=length_s / 3, calls=3)

    return fault


def _lose(device: FakeDevice, length_s: float) -> None:
    for function in (ENERGY, FIELD_INSTANT, FIELD_MODULE, POWER):
        device.fault(function, GPU_IS_LOST, after_s=length_s / 2)


def _counter(preset: str = "h100", period_s: float = 0.1, **settings: float) -> Profile:
    return Profile((Gpu(preset, {"counter_period_s": period_s, **settings}),))


def _gain(gain: float, *, counted: bool = True) -> Profile:
    if counted:
        return Profile((Gpu("h100", {"counter_gain": gain}, gain=gain),))
    return Profile((Gpu("rtx3090", {"gain": gain}, COUNTER_ABSENT, gain=gain),))


PROFILES: dict[str, Profile] = {
    "H100": _counter(),
    "H100, counter of 20 ms": _counter(period_s=0.02),
    "A100": _counter("a100"),
    "V100, counter of 20 ms": _counter("v100", period_s=0.02),
    "H100, readings of 0.01 ms": _counter(latency_s=1e-5),
    "H100, readings of 5 ms": _counter(latency_s=0.005),
    "H100, readings of 30 ms": _counter(latency_s=0.03),
    "H100, every tenth reading 30 ms": _counter(burst_s=0.03, burst_every=10),
    "H100, steps late by up to 5 ms": _counter(jitter_s=0.005),
    "H100, steps late by up to 40 ms": _counter(jitter_s=0.04),
    "H100, counter 15 ms late": _counter(counter_latency_s=0.015),
    "H100, sampler starved": Profile((Gpu("h100"),), starved=0.1),
    "H100, as measured": _counter(
        latency_s=0.002,
        latency_spread=0.5,
        burst_s=0.016,
        burst_every=50,
        power_latency_s=2.5e-5,
        instant_window_s=0.028,
    ),
    "H100, gain 0.955": _gain(0.955),
    "H100, gain 0.9": _gain(0.9),
    "H100, gain 1.06": _gain(1.06),
    "H100, no power beside": Profile((Gpu("h100", {}, (FIELD_INSTANT,)),)),
    "H100, power of another scale": Profile((Gpu("h100", {"gain": 0.9}),)),
    "H100, power beside 20 ms late": Profile((Gpu("h100", {"instant_latency_s": 0.02}),)),
    "H100, power sticks": Profile((Gpu("h100", fault=_freeze(FIELD_INSTANT)),)),
    "H100, no counter": Profile((Gpu("h100", {}, COUNTER_ABSENT),)),
    "A100, no counter, 104 ms": Profile((Gpu("a100", {"instant_period_s": 0.104}, COUNTER_ABSENT),)),
    "A100, no counter, window 18 ms": Profile((Gpu("a100", {"instant_window_s": 0.018}, COUNTER_ABSENT),)),
    "RTX 3090, no counter": Profile((Gpu("rtx3090", {}, COUNTER_ABSENT),)),
    "RTX 3090, no counter, late by up to 5 ms": Profile(
        (Gpu("rtx3090", {"jitter_s": 0.005}, COUNTER_ABSENT),)
    ),
    "RTX 3090, no counter, 50 ms": Profile((Gpu("rtx3090", {"instant_period_s": 0.05}, COUNTER_ABSENT),)),
    "V100, no counter": Profile((Gpu("v100", {}, COUNTER_ABSENT),)),
    "RTX 3090, 1 s average only": Profile((Gpu("rtx3090", {}, AVERAGE_ONLY),)),
    "RTX 3090, no counter, gain 0.956": _gain(0.956, counted=False),
    "H100, counter sticks": Profile((Gpu("h100", fault=_freeze(ENERGY)),)),
    "V100, no counter, power sticks": Profile((Gpu("v100", {}, COUNTER_ABSENT, _freeze(FIELD_INSTANT)),)),
    "H100, counter absurd for 3 readings": Profile((Gpu("h100", fault=_absurd(ENERGY, 1e17)),)),
    "V100, no counter, power absurd for 3 readings": Profile(
        (Gpu("v100", {}, COUNTER_ABSENT, _absurd(FIELD_INSTANT, 1.5e6)),)
    ),
    "H100, lost in mid-run": Profile((Gpu("h100", fault=_lose),)),
    "H100, counter reset in mid-run": Profile(
        (Gpu("h100", fault=lambda device, length_s: device.reset_counter(after_s=length_s / 2)),)
    ),
    "RAPL of Intel": Profile(cpus=(Cpu(),)),
    "RAPL of Intel, readings of 2 ms": Profile(cpus=(Cpu(read_s=0.002),)),
    "RAPL of AMD, wraps": Profile(cpus=(Cpu(AMD_UNIT_J, 1e-3, start_j=65_300.0),)),
    "H100 and RAPL of Intel with memory": Profile((Gpu("h100"),), (Cpu(dram=True),)),
    "Two A100, one without counter, RAPL of AMD": Profile(
        (Gpu("a100"), Gpu("a100", {}, COUNTER_ABSENT)), (Cpu(AMD_UNIT_J, 1e-3),)
    ),
}


@dataclass
class Machine:
    """A machine set up for one load.

    Attributes:
        world: Its time.
        meter: aimeter on it.
        devices: For each kind of device its true power, and what the sensor makes of it, in the machine's time.
    """

    world: World
    meter: aimeter.Meter
    devices: list[tuple[str, Waveform, Waveform]]


class _SlowFile:
    """A counter's file whose reading takes its time."""

    def __init__(
        self,
        counter: powercap_sensor.Counter,
        tree: PowercapTree,
        world: World,
        before_s: float,
        after_s: float,
    ) -> None:
        self._counter, self._tree, self._world = counter, tree, world
        self._before_s, self._after_s = before_s, after_s
        self.close = counter.close

    def read_uj(self) -> int:
        self._world.elapse(self._before_s)
        self._tree.time = self._world()
        value = self._counter.read_uj()
        self._world.elapse(self._after_s)
        return value


@contextmanager
def machine(profile: Profile, load: Load, choose: random.Random) -> Iterator[Machine]:
    """Set up a machine on which a load begins at `START_S`."""
    nvml = FakeNvml()
    shifted = Waveform(p._replace(start_s=p.start_s + START_S) for p in load.waveform.pieces)
    with tempfile.TemporaryDirectory() as folder:
        try:
            world = World(choose, nvml if profile.gpus else None, START_S - 1, starved=profile.starved)
            devices: list[tuple[str, Waveform, Waveform]] = []
            sensors = []
            devices += [_plug_in(gpu, nvml, shifted, load, choose) for gpu in profile.gpus]
            if profile.gpus:
                sensors += nvml_sensor.probe({}, world)[0]
            if profile.cpus:
                tree = PowercapTree(Path(folder), time=world())
                devices += _packages(profile, tree, shifted)
                found, _ = powercap_sensor.probe(tree.root, world, tree.sleep)
                world.elapse(max(tree.time - world(), 0.0))
                read_s, taken_at = profile.cpus[0].read_s, choose.random()
                for sensor in found:
                    sensor._counters = [
                        _SlowFile(counter, tree, world, read_s * taken_at, read_s * (1 - taken_at))
                        for counter in sensor._counters
                    ]
                sensors += found
            meter = aimeter.Meter(
                sensors=sensors, clock=world, region="FR", log=None, memory_rows=1, calibration="off"
            )
            world.advance(max(START_S - world(), 0.0))
            yield Machine(world, meter, devices)
            meter.close()
        finally:
            nvml.unplug()


def _plug_in(
    gpu: Gpu, nvml: FakeNvml, shifted: Waveform, load: Load, choose: random.Random
) -> tuple[str, Waveform, Waveform]:
    limit_w = PRESETS[gpu.preset]["max_limit_w"]
    phases = {f"{sensor}_phase_s": choose.uniform(0, 0.1) for sensor in ("instant", "average", "counter")}
    habit = {"latency_s": _NVML_READ_S, "taken_at": choose.random()}
    device = nvml.add(gpu.preset, **{**habit, **phases, **gpu.settings})
    waveform = shifted.scaled(limit_w / LIMIT_W)
    for piece in waveform.pieces:
        device.set_power(piece.watts, at=piece.start_s, tau_s=piece.tau_s)
    for function in gpu.unsupported:
        device.fault(function, NOT_SUPPORTED)
    if gpu.fault is not None:
        gpu.fault(device, load.end_s)
    return "gpu", waveform, waveform.scaled(gpu.gain, gpu.offset_w)


def _packages(
    profile: Profile, tree: PowercapTree, shifted: Waveform
) -> list[tuple[str, Waveform, Waveform]]:
    """Give each package a load of the same shape: 40 W when idle, a quarter of what the GPU draws above that."""
    devices = []
    for number, cpu in enumerate(profile.cpus):
        package = tree.zone(
            f"package-{number}", unit_j=cpu.unit_j, start_j=cpu.start_j, period_s=cpu.period_s
        )
        zones = [("cpu", package, shifted.scaled(0.25, 40 - 0.25 * IDLE_W))]
        if cpu.dram:
            dram = tree.zone("dram", parent=package, unit_j=SERVER_DRAM_UNIT_J, period_s=cpu.period_s)
            zones.append(("dram", dram, shifted.scaled(0.03, 5 - 0.03 * IDLE_W)))
        for kind, zone, waveform in zones:
            zone._curve = waveform  # a curve that can also fade
            devices.append((kind, waveform, waveform))
    return devices
