"""RAPL through the kernel's perf ``power`` PMU: energy since the event was opened, in 64 bits: no wrap.

Events, units and scale: Linux ``arch/x86/events/rapl.c``; the system call: perf_event_open(2). The PMU counts
system-wide only, on one CPU of each package or die (its ``cpumask``). What counts follows the rules that
`aimeter.sensors.powercap` states: ``energy-pkg``, dies that mirror each other once; ``energy-ram`` unless the
machine is a client (it has ``energy-gpu``); never ``energy-psys``, ``energy-cores`` and ``energy-gpu``.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import re
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._support.clocks import time
from aimeter._support.system import cpu_list, read_number, read_text
from aimeter.sensors import rapl
from aimeter.sensors.base import Channel, Clock, Finding, Kind, Outcome, Reading, Sensor, Status
from aimeter.sensors.estimate import microarchitecture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    OpenEvent = Callable[[int, int, int], int]

SOURCE = "perf"
ROOT = Path("/sys/bus/event_source/devices/power")
TOPOLOGY = Path("/sys/devices/system/cpu")

PERMIT = (
    "sudo sysctl kernel.perf_event_paranoid=0 (until the next boot; for good, put "
    "kernel.perf_event_paranoid=0 into /etc/sysctl.d/99-perf.conf); in a container also docker run "
    "--cap-add PERFMON …"
)

_PACKAGE, _MEMORY, _PLATFORM = "energy-pkg", "energy-ram", "energy-psys"
_EVENTS: dict[str, Kind] = {_PACKAGE: "cpu", _MEMORY: "dram"}
_QUANTUM_J = 2.0**-14
"""One count of the register on most Intel parts; AMD's is smaller. The event itself is scaled to 2**-32 J."""

# struct perf_event_attr as first published (PERF_ATTR_SIZE_VER0): type, size, config; all else zero.
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
_ANY_PROCESS = -1
_NO_GROUP = -1
_CLOSE_ON_EXEC = 8
_SYSTEM_CALL = {"x86_64": 298}
"""Number of perf_event_open (``arch/x86/entry/syscalls/syscall_64.tbl``); RAPL exists on x86 only."""


def open_event(pmu: int, config: int, cpu: int) -> int:
    """Open a counting event for all processes on `cpu`; return its file descriptor.

    Raises:
        OSError: The kernel refuses (EACCES, EPERM) or does not know the event (ENOENT, ENODEV, ENOSYS …).

    """
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    attributes = _ATTRIBUTES.pack(pmu, _ATTRIBUTES.size, config, 0, 0, 0, 0, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(number, attributes, _ANY_PROCESS, cpu, _NO_GROUP, _CLOSE_ON_EXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


_MENDED = (6, 1)
"""Linux commit 80275ca9e525, "perf/x86/rapl: Use standard Energy Unit for SPR Dram RAPL domain"."""

_DOUBT, _DOUBT_ERROR = (
    "may be a quarter of the truth, as Linux before 6.1 takes the wrong unit on this CPU",
    3.0,
)


class Event:
    """One event on one CPU; opened when first read, and counting from then on."""

    def __init__(self, open_it: Callable[[], int]) -> None:
        self._open = open_it
        self._fd: int | None = None

    def read_count(self) -> int:
        """Return the count since the event was opened.

        Raises:
            OSError: It cannot be opened or read.
            ValueError: The kernel gave no count: the event is in an error state.

        """
        if self._fd is None:
            self._fd = self._open()
        data = os.read(self._fd, 8)
        if len(data) != 8:  # noqa: PLR2004 - the size of the count, as read and as checked
            message = f"the kernel gave {len(data)} bytes for a count of 8"
            raise ValueError(message)
        return int.from_bytes(data, sys.byteorder)

    def close(self) -> None:
        """Close the event; the next reading opens it again and counts from 0."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class PerfPower:
    """The counted events of the ``power`` PMU, one channel each."""

    def __init__(
        self, events: Sequence[tuple[Channel, Event, float]], *, clock: Clock = time.perf_counter
    ) -> None:
        self.channels = tuple(channel for channel, _, _ in events)
        self._events = [(event, scale_j) for _, event, scale_j in events]
        self._clock = clock

    def read(self) -> list[Reading]:
        """Read every event; a fault of one is that one's outcome."""
        return [self._reading(event, scale_j) for event, scale_j in self._events]

    def reopen(self) -> None:
        """Let go of the events; the next reading opens them and starts from 0."""
        self.close()

    def close(self) -> None:
        """Let go of the events."""
        for event, _ in self._events:
            event.close()

    def _reading(self, event: Event, scale_j: float) -> Reading:
        before_s = self._clock()
        try:
            value_j = event.read_count() * scale_j
        except OSError as error:
            return Reading(before_s, self._clock(), rapl.outcome_of(error), None, str(error))
        except ValueError as error:
            return Reading(before_s, self._clock(), Outcome.AGAIN, None, str(error))
        return Reading(before_s, self._clock(), Outcome.OK, value_j)


@dataclass(slots=True, eq=False)
class _Candidate:
    """An event on one CPU, and what the probe saw of it."""

    name: str
    cpu: int
    package: int
    scale_j: float
    event: Event
    number: int | None = None
    """Which package it is among those that count; None where it does not count."""
    doubted: bool = False
    """Whether its unit may be wrong."""
    trial: rapl.Trial = field(init=False)

    def __post_init__(self) -> None:
        self.trial = rapl.Trial(self.event.read_count)

    @property
    def label(self) -> str:
        return f"{self.name} on CPU {self.cpu}"

    def channel(self) -> Channel:
        return rapl.channel(
            _EVENTS[self.name],
            self.number or 0,
            name=self.label,
            device=f"power/{self.name}/cpu{self.cpu}",
            source=SOURCE,
            quantum_j=_QUANTUM_J,
            wrap_j=None,
            remark=_DOUBT if self.doubted else None,
            relative_error=_DOUBT_ERROR if self.doubted else None,
        )


def probe(
    root: Path = ROOT,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    open_event: OpenEvent = open_event,
    topology: Path = TOPOLOGY,
    proc: Path = Path("/proc"),
) -> tuple[list[Sensor], list[Finding]]:
    """Look for events that count energy; takes 40 ms of `sleep` where there are any.

    Args:
        root: The PMU's folder in ``/sys/bus/event_source/devices``.
        clock: Stamps the sensor's readings.
        sleep: Waits between the readings of the probe.
        open_event: Opens an event, given the PMU's type, the event's code and the CPU.
        topology: Folder that tells which package a CPU belongs to.
        proc: Where ``cpuinfo`` and ``sys/kernel/osrelease`` are.

    Returns:
        At most one sensor, and what was found.

    """
    pmu = read_number(root / "type")
    if pmu is None:
        return [], [
            _finding(str(root), "missing", "The kernel has no power PMU, as in most virtual machines.")
        ]
    candidates = _candidates(root, pmu, topology, open_event)
    if not candidates:
        return [], [_finding(str(root), "missing", f"The power PMU has no event {_PACKAGE}.")]
    rapl.hold([candidate.trial for candidate in candidates], sleep)
    if _takes_wrong_unit(proc):
        for candidate in candidates:
            candidate.doubted = candidate.name == _MEMORY
    findings = _choose(candidates, client=(root / "events" / "energy-gpu").exists())
    counted = [candidate for candidate in candidates if candidate.number is not None]
    for candidate in candidates:
        if candidate not in counted:
            candidate.event.close()
    events = [(candidate.channel(), candidate.event, candidate.scale_j) for candidate in counted]
    return [PerfPower(events, clock=clock)] if events else [], findings


def _takes_wrong_unit(proc: Path) -> bool:
    """Return whether the kernel may take the unit of Haswell's memory for that of Sapphire Rapids."""
    if microarchitecture(read_text(proc / "cpuinfo") or "") != "Sapphire Rapids":
        return False
    release = re.match(r"(\d+)\.(\d+)", read_text(proc / "sys" / "kernel" / "osrelease") or "")
    return release is not None and (int(release[1]), int(release[2])) < _MENDED


def _candidates(root: Path, pmu: int, topology: Path, open_event: OpenEvent) -> list[_Candidate]:
    """List the events worth a trial: those that may count, else ``energy-psys``, to tell that it is all."""
    names = [name for name in _EVENTS if (root / "events" / name).exists()] or [_PLATFORM]
    candidates = []
    for name in names:
        code = re.fullmatch(r"event=(0x[0-9a-f]+)", read_text(root / "events" / name) or "")
        scale = read_text(root / "events" / f"{name}.scale")
        if code is None or scale is None:
            continue
        for cpu in cpu_list(read_text(root / "cpumask") or ""):
            package = read_number(topology / f"cpu{cpu}" / "topology" / "physical_package_id")
            event = Event(functools.partial(open_event, pmu, int(code[1], 16), cpu))
            # Without a known package a CPU is taken for one of its own.
            owner = -1 - cpu if package is None else package
            candidates.append(_Candidate(name, cpu, owner, float(scale), event))
    return sorted(candidates, key=lambda candidate: (candidate.package, candidate.cpu))


def _choose(candidates: list[_Candidate], *, client: bool) -> list[Finding]:
    """Give numbers to the events that count, no joule twice, and say what became of each event."""
    findings = _denials(candidates)
    packages = [each for each in candidates if each.name == _PACKAGE and each.trial.alive]
    originals: list[_Candidate] = []
    for package in dict.fromkeys(each.package for each in packages):
        group = [each for each in packages if each.package == package]
        originals += [group[position] for position in rapl.originals([each.trial for each in group])]
    # Guests that are given a socket for each CPU see one register of the host many times.
    originals = [originals[position] for position in rapl.originals([each.trial for each in originals])]
    number_of = {original.cpu: number for number, original in enumerate(originals)}
    for each in candidates:
        if not each.trial.alive:
            findings += _fault(each)
        elif each.name == _PLATFORM:
            findings.append(
                _finding(each.label, "unused", "It is more than the CPU, and not on all machines right.")
            )
        elif each.name == _MEMORY and client:
            findings.append(_finding(each.label, "unused", "A client's package may contain its memory."))
        elif each.cpu in number_of:
            each.number = number_of[each.cpu]
            findings.append(_finding(each.label, "used", f"It counts {each.channel().id}."))
        else:
            findings.append(_finding(each.label, "unused", "It shows the counter of another one once more."))
    return findings


def _denials(candidates: list[_Candidate]) -> list[Finding]:
    """Report all events that may not be opened as one finding, because one command mends them all."""
    denied = [each.label for each in candidates if isinstance(each.trial.error, PermissionError)]
    if not denied:
        return []
    detail = "This user may not count for the whole system (kernel.perf_event_paranoid above 0)."
    return [_finding(", ".join(denied), "denied", detail, PERMIT)]


def _fault(candidate: _Candidate) -> list[Finding]:
    """Report why an event that exists cannot be used; what `_denials` reports is left to it."""
    error = candidate.trial.error
    if isinstance(error, PermissionError):
        return []
    if error is not None:
        return [_finding(candidate.label, "failed", f"It cannot be opened or read: {error}.")]
    return [_finding(candidate.label, "dead", "It can be opened, but its count never changes.")]


def _finding(subject: str, status: Status, detail: str, remedy: str = "") -> Finding:
    return Finding(SOURCE, subject, status, detail, remedy)
