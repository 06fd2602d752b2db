"""The perf ``power`` PMU in a folder, with an `open_event` whose counts follow a known power.

``PowerPmu.open_event`` stands for the system call. What it returns is a real file descriptor that gives an
8-byte count at each read, as the kernel's does. The file behind it holds the count many times over, because
reading a file moves on, and is wound back whenever time passes.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from tests.emulator.powercap import INTEL_UNIT_J, PowerCurve

if TYPE_CHECKING:
    from pathlib import Path

TYPE = 24
CODES = {"energy-cores": 1, "energy-pkg": 2, "energy-ram": 3, "energy-gpu": 4, "energy-psys": 5}
SCALE = "2.3283064365386962890625e-10"

_COPIES = 64


class _Open(NamedTuple):
    key: tuple[int, int]
    start_j: float
    fd: int


class PowerPmu:
    """A PMU with some events on some CPUs.

    Args:
        folder: Where its files are made; `root` and `topology` are below it.
        events: Watts of each event, by name and CPU.
        packages: Package of each CPU; unknown where it is missing.
        unit_j: Energy of one count of the register.
    """

    def __init__(
        self,
        folder: Path,
        events: dict[str, dict[int, float]],
        *,
        packages: dict[int, int] | None = None,
        unit_j: float = INTEL_UNIT_J,
    ) -> None:
        self.root = folder / "power"
        self.topology = folder / "cpu"
        self.curves: dict[tuple[int, int], PowerCurve] = {}
        self.denied = False
        self._unit_j = unit_j
        self._time = 0.0
        self._open: list[_Open] = []
        (self.root / "events").mkdir(parents=True)
        (self.root / "type").write_text(f"{TYPE}\n")
        cpus = sorted({cpu for by_cpu in events.values() for cpu in by_cpu})
        (self.root / "cpumask").write_text(",".join(map(str, cpus)) + "\n")
        for name, by_cpu in events.items():
            (self.root / "events" / name).write_text(f"event=0x{CODES[name]:02x}\n")
            (self.root / "events" / f"{name}.scale").write_text(f"{SCALE}\n")
            (self.root / "events" / f"{name}.unit").write_text("Joules\n")
            for cpu, watts in by_cpu.items():
                self.curves[CODES[name], cpu] = PowerCurve(0.0, watts)
        for cpu, package in (packages or {}).items():
            place = self.topology / f"cpu{cpu}" / "topology"
            place.mkdir(parents=True)
            (place / "physical_package_id").write_text(f"{package}\n")

    @property
    def time(self) -> float:
        """Present moment in seconds; setting it shows what the counts are then."""
        return self._time

    @time.setter
    def time(self, moment: float) -> None:
        self._time = moment
        for event in self._open:
            self._publish(event)

    def clock(self) -> float:
        """Return the present moment: a stand-in for ``time.perf_counter``."""
        return self._time

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once: a stand-in for ``time.sleep``."""
        self.time += seconds

    def true_energy_j(self, name: str, cpu: int, t0: float, t1: float) -> float:
        """Return the exact joules of an event from `t0` to `t1`."""
        curve = self.curves[CODES[name], cpu]
        return curve.energy_j(t1) - curve.energy_j(t0)

    def open_event(self, pmu: int, config: int, cpu: int) -> int:
        """Open an event as the kernel does: counting from now, for users only if it is not denied."""
        if self.denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if pmu != TYPE or (config, cpu) not in self.curves:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        key = config, cpu
        with tempfile.TemporaryFile() as file:
            event = _Open(key, self.curves[key].energy_j(self._time), os.dup(file.fileno()))
        self._open.append(event)
        self._publish(event)
        return os.dup(event.fd)

    def break_reads(self) -> None:
        """Fault: every event is in an error state, in which the kernel gives nothing to read."""
        for event in self._open:
            os.ftruncate(event.fd, 0)

    def close(self) -> None:
        """Let go of the files behind the events."""
        while self._open:
            os.close(self._open.pop().fd)

    def _publish(self, event: _Open) -> None:
        counts = int(self.curves[event.key].energy_j(self._time) / self._unit_j) - int(
            event.start_j / self._unit_j
        )
        os.pwrite(event.fd, struct.pack("=Q", round(counts * self._unit_j * 2**32)) * _COPIES, 0)
        os.lseek(event.fd, 0, os.SEEK_SET)
