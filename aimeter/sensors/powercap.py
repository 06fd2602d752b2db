"""RAPL through the kernel's powercap tree: cumulative microjoules in one file for each zone.

Layout and units: Linux ``Documentation/power/powercap/powercap.rst`` and
``drivers/powercap/intel_rapl_common.c``. The tree holds the same joules several times over, so what counts is
decided by name:

- ``package-N`` and ``package-N-die-D``: counted. Of several control types that show a package, one counts:
  ``intel-rapl``, else ``intel-rapl-mmio`` (mlco2/codecarbon PR 950). Zones of one package that mirror each
  other are counted once (see `aimeter.sensors.rapl.mirrors`).
- ``dram`` below a counted package: counted on servers, where it lies outside the package. A machine that has
  an ``uncore`` zone (built-in graphics) is a client: "gpu: client only; dram: servers only", in the words of
  the kernel's ``arch/x86/events/rapl.c``. There, memory is left out rather than counted twice.
- ``core``, ``uncore``: inside the package. ``psys``: contains the packages, and is wrong on some laptops.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support import files
from aimeter._support.clocks import time
from aimeter._support.system import read_number, read_text
from aimeter.sensors import rapl
from aimeter.sensors.base import Channel, Clock, Finding, Outcome, Reading, Sensor, Status
from aimeter.sensors.estimate import microarchitecture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SOURCE = "powercap"
ROOT = Path("/sys/class/powercap")

_SAPPHIRE_RAPIDS = "Sapphire Rapids"
_SERVER_DRAM_STEP_J, _STEP_J = 15.3e-6, 2.0**-14
"""Memory of Haswell servers and later counts by 15.3 uJ whatever the register of units says; that of Sapphire Rapids by
the unit of the package, 61 uJ. Linux before 6.1 took it for the former ("powercap: intel_rapl: Use standard Energy Unit
for SPR Dram RAPL domain"; RRZE-HPC/likwid#642)."""
_CORRECTED = "multiplied by 4, as the driver takes the wrong unit on this CPU"

_PACKAGE = re.compile(r"package-(\d+)(?:-die-(\d+))?")
_REGISTER_MAX = 2**32 - 1
_FIELD = 32
"""More bytes than the longest 64-bit number and its newline."""

PERMIT = (
    "sudo chmod a+r /sys/class/powercap/*:*/energy_uj (until the next boot; for good, put "
    'SUBSYSTEM=="powercap", ACTION=="add", KERNEL=="*:*", RUN+="/bin/chmod a+r /sys%p/energy_uj" '
    "into /etc/udev/rules.d/99-powercap.rules), or let users read the same counters through perf: "
    "sudo sysctl kernel.perf_event_paranoid=0"
)
UNMASK = (
    "docker run -v /sys/devices/virtual/powercap:/host/powercap:ro -e AIMETER_POWERCAP=/host/powercap …, "
    "as a user who may read it (root)"
)


class Counter:
    """One ``energy_uj`` file, held open because opening costs more than reading."""

    def __init__(self, zone: Path) -> None:
        self.path = zone / "energy_uj"
        self._fd: int | None = None

    def read_uj(self) -> int:
        """Return the counter in microjoules.

        Raises:
            OSError: It cannot be opened or read.
            ValueError: It holds no number.

        """
        if self._fd is not None:
            with contextlib.suppress(OSError, ValueError):
                return self._read(self._fd)
            # The driver may have been reloaded (ENODEV on the file held): the path has the last word.
            self.close()
        self._fd = os.open(self.path, files.READ)
        return self._read(self._fd)

    def close(self) -> None:
        """Close the file; it is opened again when next read."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def _read(fd: int) -> int:
        return int(files.read_at(fd, _FIELD, 0))


class Powercap:
    """The counted zones of a powercap tree, one channel each."""

    def __init__(
        self,
        counters: Sequence[tuple[Channel, Counter]],
        *,
        clock: Clock = time.perf_counter,
        factors: Sequence[float] | None = None,
    ) -> None:
        self.channels = tuple(channel for channel, _ in counters)
        self._counters = [counter for _, counter in counters]
        self._factors = [1.0] * len(self._counters) if factors is None else list(factors)
        self._clock = clock

    def read(self) -> list[Reading]:
        """Read every zone; a fault of one is that one's outcome."""
        return [self._reading(*each) for each in zip(self._counters, self._factors, strict=True)]

    def reopen(self) -> None:
        """Let go of the files; the next reading opens them."""
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        for counter in self._counters:
            counter.close()

    def _reading(self, counter: Counter, factor: float) -> Reading:
        before_s = self._clock()
        try:
            value_j = counter.read_uj() * 1e-6 * factor
        except OSError as error:
            return Reading(before_s, self._clock(), rapl.outcome_of(error), None, str(error))
        except ValueError as error:
            return Reading(before_s, self._clock(), Outcome.AGAIN, None, f"{counter.path}: {error}")
        return Reading(before_s, self._clock(), Outcome.OK, value_j)


@dataclass(slots=True)
class _Zone:
    """A package zone or a memory zone, and what the probe saw of it."""

    folder: Path
    name: str
    control: str
    package: int = 0
    die: int = 0
    parent: _Zone | None = None
    number: int | None = None
    """Which package it is among those that count; None where it does not count."""
    factor: float = 1.0
    """What the driver's joules are to be multiplied by."""
    counter: Counter = field(init=False)
    trial: rapl.Trial = field(init=False)

    def __post_init__(self) -> None:
        self.counter = Counter(self.folder)
        self.trial = rapl.Trial(self.counter.read_uj)

    @property
    def label(self) -> str:
        return self.name if self.parent is None else f"{self.parent.name}/{self.name}"

    def channel(self) -> Channel:
        # A range of 0 has been seen (powercap/powercap#3): then the wrap is unknown, and never assumed.
        range_uj = read_number(self.folder / "max_energy_range_uj") or 0
        return rapl.channel(
            "cpu" if self.parent is None else "dram",
            self.number or 0,
            name=self.label,
            device=str(self.folder.resolve()),
            source=SOURCE,
            quantum_j=self.factor * range_uj * 1e-6 / _REGISTER_MAX,
            wrap_j=self.factor * range_uj * 1e-6 or None,
            remark=_CORRECTED if self.factor != 1.0 else None,
        )

    def correct_unit(self) -> None:
        """Undo the driver's wrong unit of memory on Sapphire Rapids, told by the range of the counter."""
        step_j = (read_number(self.folder / "max_energy_range_uj") or 0) * 1e-6 / _REGISTER_MAX
        if math.isclose(step_j, _SERVER_DRAM_STEP_J, rel_tol=0.01):
            self.factor = _STEP_J / _SERVER_DRAM_STEP_J


@dataclass(slots=True)
class _Tree:
    """What a powercap tree holds, by name."""

    packages: list[_Zone] = field(default_factory=list)
    memories: list[_Zone] = field(default_factory=list)
    platform: bool = False
    client: bool = False


def probe(
    root: Path = ROOT,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    proc: Path = Path("/proc"),
) -> tuple[list[Sensor], list[Finding]]:
    """Look for zones that count energy; takes 40 ms of `sleep` where there are any.

    The counters are read several times before they are trusted, because neither a dead counter nor a mirrored
    one shows in a single reading. So the channels are right, and fixed, from the start.

    Args:
        root: The tree: ``/sys/class/powercap``, or a mount of ``/sys/devices/virtual/powercap``.
        clock: Stamps the sensor's readings.
        sleep: Waits between the readings of the probe.
        proc: Where ``cpuinfo`` is.

    Returns:
        At most one sensor, and what was found.

    """
    try:
        tree = _explore(root)
        masked = any(not entry.exists() for entry in root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return [], [_finding(str(root), "missing", "There is no powercap tree, as in most virtual machines.")]
    except OSError as error:
        return [], [_finding(str(root), "denied", f"The tree cannot be listed: {error}.", UNMASK)]
    zones = tree.packages + tree.memories
    if not zones and masked:
        detail = "Its links lead nowhere: the container runtime masks /sys/devices/virtual/powercap."
        return [], [_finding(str(root), "denied", detail, UNMASK)]
    if not zones:
        detail = "It holds no package: no RAPL, as in most virtual machines, or a container runtime masks it."
        return [], [_finding(str(root), "missing", detail, f"if in a container: {UNMASK}")]
    rapl.hold([zone.trial for zone in zones], sleep)
    if microarchitecture(read_text(proc / "cpuinfo") or "") == _SAPPHIRE_RAPIDS:
        for memory in tree.memories:
            memory.correct_unit()
    findings = _choose(tree)
    for zone in zones:
        zone.counter.close()
    counted = [zone for zone in zones if zone.number is not None]
    counters = [(zone.channel(), zone.counter) for zone in counted]
    factors = [zone.factor for zone in counted]
    return [Powercap(counters, clock=clock, factors=factors)] if counters else [], findings


def _explore(root: Path) -> _Tree:
    """Sort the zones by name, those of ``intel-rapl`` before those of ``intel-rapl-mmio``."""
    tree = _Tree()
    # Zones are looked for below their control types, where /sys/devices and /sys/class both have them.
    controls = [entry for entry in root.iterdir() if ":" not in entry.name]
    for control in sorted(controls, key=lambda entry: (entry.name.endswith("mmio"), entry.name)):
        for folder in sorted(control.glob("*:*")):
            name = read_text(folder / "name") or ""
            tree.platform |= name == "psys"
            match = _PACKAGE.fullmatch(name)
            if match is None:
                continue
            package, die = int(match[1]), int(match[2] or 0)
            zone = _Zone(folder, name, control.name, package=package, die=die)
            tree.packages.append(zone)
            for inner in sorted(folder.glob("*:*")):
                part = read_text(inner / "name")
                tree.client |= part == "uncore"
                if part == "dram":
                    tree.memories.append(_Zone(inner, part, control.name, parent=zone))
    tree.packages.sort(key=lambda zone: (zone.package, zone.die))
    return tree


def _choose(tree: _Tree) -> list[Finding]:
    """Give numbers to the zones that count, no joule twice, and say what became of each zone."""
    findings = _denials(tree.packages + tree.memories)
    kept: list[_Zone] = []
    for package in sorted({zone.package for zone in tree.packages}):
        once, unused = _without_doubles([zone for zone in tree.packages if zone.package == package])
        findings += unused
        kept += once
    # Guests of Xen show one register of the host for each socket that they are given (hubblo-org/scaphandre#134).
    for number, zone in enumerate(kept):
        zone.number = number
    _drop_mirrors(kept, findings)
    for number, zone in enumerate(zone for zone in kept if zone.number is not None):
        zone.number = number
    for memory in tree.memories:
        if not memory.trial.alive:
            findings += _fault(memory)
        elif tree.client:
            findings.append(_finding(memory.label, "unused", "A client's package may contain its memory."))
        elif memory.parent is not None:
            memory.number = memory.parent.number
    _drop_mirrors([memory for memory in tree.memories if memory.number is not None], findings)
    if tree.platform:
        findings.append(_finding("psys", "unused", "It is more than the CPU, and not on all machines right."))
    counted = [zone for zone in tree.packages + tree.memories if zone.number is not None]
    return [_used(zone) for zone in counted] + findings


def _used(zone: _Zone) -> Finding:
    corrected = f" Its joules are {_CORRECTED}." if zone.factor != 1.0 else ""
    return _finding(zone.label, "used", f"It counts {zone.channel().id}.{corrected}")


def _drop_mirrors(zones: list[_Zone], findings: list[Finding]) -> None:
    """Take the number from zones that show the register of one before them, and say so."""
    for position, zone in enumerate(zones):
        if any(rapl.one_register(earlier.trial.series, zone.trial.series) for earlier in zones[:position]):
            zone.number = None
            detail = "It shows the counter of another package once more."
            findings.append(_finding(zone.label, "unused", detail))


def _without_doubles(group: list[_Zone]) -> tuple[list[_Zone], list[Finding]]:
    """Return the zones of one package that count it once, and why its others do not."""
    control = next((zone.control for zone in group if zone.trial.alive), None)
    candidates = [zone for zone in group if zone.trial.alive and zone.control == control]
    kept = [candidates[position] for position in rapl.originals([zone.trial for zone in candidates])]
    findings: list[Finding] = []
    for zone in group:
        if not zone.trial.alive:
            findings += _fault(zone)
        elif zone.control != control:
            findings.append(_finding(zone.label, "unused", f"{zone.control} repeats what {control} shows."))
        elif zone not in kept:
            findings.append(_finding(zone.label, "unused", "It shows the counter of another die once more."))
    return kept, findings


def _denials(zones: list[_Zone]) -> list[Finding]:
    """Report all zones that may not be read as one finding, because one command mends them all."""
    denied = [zone.label for zone in zones if isinstance(zone.trial.error, PermissionError)]
    if not denied:
        return []
    return [
        _finding(
            ", ".join(denied),
            "denied",
            "This user may not read energy_uj, which only root may since Linux 5.10.",
            PERMIT,
        )
    ]


def _fault(zone: _Zone) -> list[Finding]:
    """Report why a zone that is present cannot be used; what `_denials` reports is left to it."""
    if isinstance(zone.trial.error, PermissionError):
        return []
    if zone.trial.error is not None:
        return [_finding(zone.label, "failed", f"{zone.counter.path} cannot be read: {zone.trial.error}.")]
    return [_finding(zone.label, "dead", f"{zone.counter.path} is present, but its value never changes.")]


def _finding(subject: str, status: Status, detail: str, remedy: str = "") -> Finding:
    return Finding(SOURCE, subject, status, detail, remedy)
