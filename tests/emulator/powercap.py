"""A powercap tree in a folder, whose counters advance, with the exact energy of every zone as ground truth.

The layout is the kernel's (``Documentation/power/powercap/powercap.rst``): real folders below
``devices/virtual/powercap``, one symlink for each of them in ``class/powercap``, zone numbers in hexadecimal,
``energy_uj`` readable by its owner only. A counter is a 32-bit register that is renewed every millisecond;
the driver multiplies it by the energy unit, cut to whole nanojoules
(``drivers/powercap/intel_rapl_common.c``).

Two ways to let time pass::

    tree = PowercapTree(folder)
    package = tree.zone("package-0", watts=50)
    tree.zone("dram", parent=package, watts=5, unit_j=SERVER_DRAM_UNIT_J)

    tree.time = 12.3                      # by hand: the counters show what they would show at 12.3 s

    with tree.live():                     # in real time, on the clock of time.perf_counter()
        package.set_power(90)
        ...
    package.true_energy_j(t0, t1)         # exact, in closed form

As a process of its own, which prints ``ready ORIGIN`` once the tree stands (on the clock of
``time.perf_counter()``, which processes share on Linux), and runs until it is terminated::

    python -m tests.emulator.powercap FOLDER --zone package-0=20@0,80@1.5 --zone package-0/dram=3
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import tempfile
import threading
import time
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTEL_UNIT_J = 2.0**-14
AMD_UNIT_J = 2.0**-16
SERVER_DRAM_UNIT_J = 15.3e-6
SERVER_PSYS_UNIT_J = 1.0

_COUNTS = 2**32
_FIELD = 24
"""Width of the text in ``energy_uj``: one write always replaces the whole of the one before."""
_NOBODY = 65534


class PowerCurve:
    """A power that is constant between the moments at which it is set; its integral in closed form."""

    def __init__(self, start_s: float, watts: float) -> None:
        self._pieces: tuple[tuple[float, float, float], ...] = ((start_s, watts, 0.0),)

    def set(self, at_s: float, watts: float) -> None:
        """Draw `watts` from `at_s` on; replaces what was planned for later."""
        kept = tuple(piece for piece in self._pieces if piece[0] < at_s)
        self._pieces = (*kept, (at_s, watts, self.energy_j(at_s)))

    def energy_j(self, at_s: float) -> float:
        """Return the joules drawn from the start until `at_s`."""
        pieces = self._pieces
        begin_s, watts, before_j = pieces[max(bisect_right(pieces, at_s, key=lambda piece: piece[0]) - 1, 0)]
        return before_j + watts * max(at_s - begin_s, 0.0)


class Zone:
    """One zone: the files of its folder, the power behind them, and the faults it can have."""

    def __init__(
        self,
        tree: PowercapTree,
        folder: Path,
        name: str,
        curve: PowerCurve,
        *,
        unit_j: float,
        start_j: float,
        period_s: float,
        phase_s: float,
        max_energy_range_uj: int | None,
    ) -> None:
        self.tree = tree
        self.folder = folder
        self.name = name
        self.max_energy_range_uj = max_energy_range_uj
        self.children = 0
        self._curve = curve
        self._unit_j = unit_j
        self._unit_nj = math.floor(unit_j * 1e9 + 1e-6)
        self._start = round(start_j / unit_j)
        self._period_s = period_s
        self._phase_s = phase_s
        self._frozen_at: float | None = None
        self._fd = -1
        self._lock = threading.RLock()
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "enabled").write_text("1\n")
        if max_energy_range_uj is not None:
            (folder / "max_energy_range_uj").write_text(f"{max_energy_range_uj}\n")
        self._create()

    @property
    def energy_file(self) -> Path:
        """The counter's file, by its path below ``devices``."""
        return self.folder / "energy_uj"

    def set_power(self, watts: float, at: float | None = None) -> float:
        """Draw `watts` from now (or from `at`) on; return that moment on the tree's clock."""
        when = self.tree.time if at is None else at
        self._curve.set(when, watts)
        return when

    def true_energy_j(self, t0: float, t1: float) -> float:
        """Return the exact joules drawn from `t0` to `t1`."""
        return self._curve.energy_j(t1) - self._curve.energy_j(t0)

    def value_uj(self, at_s: float) -> int:
        """Return what ``energy_uj`` shows at `at_s`: the register as last renewed, wrapped."""
        at_s = at_s if self._frozen_at is None else min(at_s, self._frozen_at)
        # The small addend keeps a moment that is meant to be a renewal from falling just before it.
        renewals = math.floor((at_s - self._phase_s) / self._period_s + 1e-6)
        drawn_j = self._curve.energy_j(renewals * self._period_s + self._phase_s)
        register = (self._start + math.floor(drawn_j / self._unit_j)) % _COUNTS
        return register * self._unit_nj // 1000

    def publish(self) -> None:
        """Write the counter's present value into its file."""
        with self._lock:
            if self._fd >= 0:
                os.pwrite(self._fd, f"{self.value_uj(self.tree.time)}\n".encode().ljust(_FIELD), 0)

    def freeze(self) -> None:
        """Fault: from now on the counter is present but never advances."""
        self._frozen_at = self.tree.time

    def deny(self) -> None:
        """Fault: reading the counter is forbidden (for root only within `unprivileged`)."""
        self.heal()
        self.energy_file.chmod(0)

    def fail_reads(self) -> None:
        """Fault: the counter can be opened, but reading it gives EIO."""
        self._drop()
        # Address 0 of a process is mapped in none: the kernel answers EIO, as a failing device does.
        self.energy_file.symlink_to("/proc/self/mem")

    def vanish(self) -> None:
        """Fault: the zone disappears, as when its driver is unloaded."""
        self._drop()
        shutil.rmtree(self.folder)
        (self.tree.root / self.folder.name).unlink()

    def heal(self) -> None:
        """Undo `deny` and `fail_reads`."""
        self._drop()
        self._create()

    def close(self) -> None:
        """Stop publishing."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _create(self) -> None:
        with self._lock:
            self._fd = os.open(self.energy_file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o400)
            self.publish()

    def _drop(self) -> None:
        with self._lock:
            if self._fd >= 0:
                # Who holds the file open must notice: an empty file is the nearest to a dead device's ENODEV.
                os.ftruncate(self._fd, 0)
                self.close()
        self.energy_file.unlink(missing_ok=True)


class PowercapTree:
    """A tree: `root` is its ``/sys/class/powercap``, `devices` its ``/sys/devices/virtual/powercap``."""

    def __init__(self, folder: Path, *, time: float = 0.0) -> None:
        self.root = folder / "class" / "powercap"
        self.devices = folder / "devices" / "virtual" / "powercap"
        self.root.mkdir(parents=True)
        self.devices.mkdir(parents=True)
        self.zones: list[Zone] = []
        self._time = time
        self._live = False
        self._top_level: dict[str, int] = {}

    @property
    def time(self) -> float:
        """Present moment in seconds; setting it shows what the counters show then."""
        return time.perf_counter() if self._live else self._time

    @time.setter
    def time(self, moment: float) -> None:
        self._time = moment
        self.publish()

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once: a stand-in for ``time.sleep``."""
        self.time += seconds

    def clock(self) -> float:
        """Return the present moment: a stand-in for ``time.perf_counter``."""
        return self.time

    def control(self, name: str) -> Path:
        """Create a control type (``intel-rapl``, ``intel-rapl-mmio``) without zones; return its folder."""
        folder = self.devices / name
        if name not in self._top_level:
            self._top_level[name] = 0
            folder.mkdir()
            (folder / "enabled").write_text("1\n")
            self._link(folder)
        return folder

    def zone(
        self,
        name: str,
        *,
        watts: float = 0.0,
        parent: Zone | None = None,
        control: str = "intel-rapl",
        mirror_of: Zone | None = None,
        unit_j: float = INTEL_UNIT_J,
        start_j: float = 12_345.678,
        period_s: float = 1e-3,
        phase_s: float = 0.0,
        max_energy_range_uj: int | None = -1,
    ) -> Zone:
        """Add a zone that draws `watts` from now on.

        Args:
            name: What its ``name`` file says: ``package-0``, ``dram``, ``psys`` … may repeat.
            watts: Power until `Zone.set_power` changes it.
            parent: The zone it is a subzone of.
            control: Control type of a top-level zone.
            mirror_of: Zone whose register it shows a second time, from `start_j` on.
            unit_j: Energy of one count of the register.
            start_j: Reading at the start, to the nearest count.
            period_s: Time between renewals of the register.
            phase_s: Offset of the renewals from the clock's origin.
            max_energy_range_uj: Content of that file; -1 for the driver's own, None for no such file.
        """
        if parent is None:
            folder = self.control(control) / f"{control}:{self._top_level[control]:x}"
            self._top_level[control] += 1
        else:
            folder = parent.folder / f"{parent.folder.name}:{parent.children:x}"
            parent.children += 1
        if max_energy_range_uj == -1:
            max_energy_range_uj = (_COUNTS - 1) * math.floor(unit_j * 1e9 + 1e-6) // 1000
        curve = PowerCurve(self.time, watts) if mirror_of is None else mirror_of._curve
        zone = Zone(
            self,
            folder,
            name,
            curve,
            unit_j=unit_j,
            start_j=start_j,
            period_s=period_s,
            phase_s=phase_s,
            max_energy_range_uj=max_energy_range_uj,
        )
        self._link(folder)
        self.zones.append(zone)
        return zone

    def publish(self) -> None:
        """Write every counter's present value."""
        for zone in self.zones:
            zone.publish()

    def mask(self) -> None:
        """Fault: what container runtimes do: an empty folder lies over the devices, so every link dangles."""
        for zone in self.zones:
            zone.close()
        shutil.rmtree(self.devices)
        self.devices.mkdir()

    @contextlib.contextmanager
    def live(self, period_s: float = 1e-3) -> Iterator[PowercapTree]:
        """Let time pass by itself: a thread renews the files about every `period_s`."""
        shift = time.perf_counter() - self._time
        for curve in {id(zone._curve): zone._curve for zone in self.zones}.values():
            curve._pieces = tuple((at_s + shift, watts, joules) for at_s, watts, joules in curve._pieces)
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(period_s):
                self.publish()

        self._live = True
        writer = threading.Thread(target=renew, name="powercap-emulator", daemon=True)
        writer.start()
        try:
            yield self
        finally:
            stop.set()
            writer.join()
            self._time = time.perf_counter()
            self._live = False

    def _link(self, folder: Path) -> None:
        (self.root / folder.name).symlink_to(os.path.relpath(folder, self.root))


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """Make a temporary folder that any user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Take root's right to read everything from this process for a while; other users have none to lose."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _parse_zone(text: str) -> tuple[list[str], list[tuple[float, float]]]:
    """Read ``package-0/dram=20@0,80@1.5`` as a path of names and (seconds after the start, watts)."""
    path, _, powers = text.partition("=")
    steps = []
    for step in powers.split(","):
        watts, _, at_s = step.partition("@")
        steps.append((float(at_s or 0), float(watts)))
    return path.split("/"), sorted(steps)


def main() -> None:
    """Run a tree in real time until terminated, or for ``--seconds``: none outlives its test for long."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--zone", action="append", default=[], metavar="NAME[/NAME]=WATTS[@SECONDS],…")
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    origin = time.perf_counter()
    tree = PowercapTree(arguments.folder)
    by_path: dict[str, Zone] = {}
    plans: list[tuple[Zone, list[tuple[float, float]]]] = []
    for text in arguments.zone:
        names, steps = _parse_zone(text)
        parent = by_path["/".join(names[:-1])] if len(names) > 1 else None
        unit_j = SERVER_DRAM_UNIT_J if names[-1] == "dram" else INTEL_UNIT_J
        zone = tree.zone(names[-1], parent=parent, unit_j=unit_j)
        by_path["/".join(names)] = zone
        plans.append((zone, steps))
    with tree.live():
        for zone, steps in plans:
            for after_s, watts in steps:
                zone.set_power(watts, at=origin + after_s)
        print(f"ready {origin!r}", flush=True)  # noqa: T201 - the parent process waits for this line
        time.sleep(arguments.seconds)


if __name__ == "__main__":
    main()
