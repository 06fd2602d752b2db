"""CPU power where no meter works, as in most virtual machines: a model of watts per vCPU.

``P = N * (idle + (max - idle) * u)``: N vCPUs (hardware threads) with a busy share u, each taken as its part
of a whole server. This is the model of Cloud Carbon Footprint (CCF), which derives its watts from the
SPECpower_ssj2008 results of real servers, measured at the wall and divided by threads. So memory, fans, disks
and the losses of the power supply are inside, and no memory is ever added.

Coefficients: medians, with the 10th and 90th percentile, recomputed for aimeter from the raw SPECpower table
in cloud-carbon-footprint/ccf-coefficients at b0032d9 (Apache-2.0). Medians, because CCF's means suffer from
outliers among small machines. For an unknown CPU: CCF's average over the servers of AWS.

Error: among 184 servers of 2018 and later a straight line between true idle and maximum errs by -37 to +31 %
(5th to 95th percentile); the spread of the coefficients adds about -35 to +30 %. Together about 50 % (95 %).
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aimeter._support.clocks import time
from aimeter._support.system import read_text
from aimeter.sensors.base import Channel, Clock, Finding, Outcome, Reading, Sensor
from aimeter.sensors.cgroup import CpuLimit, cpu_limit

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = "estimate"
RELATIVE_ERROR = 0.5
_BUSY = ("user", "nice", "system", "irq", "softirq")
_OWN_ONLY = "of the work only this process's own is seen, as the machine's CPU times are all zero"
_OWN_ONLY_OF_GROUP = "of the work only this process's own is seen, as the control group's CPU time is zero"
TICK_S = 0.01
"""Step of the CPU times that the kernel publishes: USER_HZ is 100 (proc(5), ``/proc/stat``)."""


BURST_S = 0.1
"""CPU time may run ahead of the clock by so much on each CPU: a control group's quota is one of every 100 ms
(Linux, Documentation/scheduler/sched-bwc.rst), within which more CPUs than it allows may be busy."""


class Share(NamedTuple):
    """A vCPU's share of its server's power at the wall, in watts: medians and [10th, 90th percentile]."""

    idle_w: float
    max_w: float
    idle_range_w: tuple[float, float] | None = None
    max_range_w: tuple[float, float] | None = None


UNKNOWN = Share(0.74, 3.5)

SHARES = {
    "EPYC 1": Share(0.74, 2.32, (0.63, 1.03), (2.23, 2.98)),
    "EPYC 2": Share(0.44, 1.66, (0.32, 0.67), (1.53, 1.92)),
    "EPYC 3": Share(0.42, 1.92, (0.33, 0.62), (1.77, 2.22)),
    "EPYC 4": Share(0.38, 1.85, (0.32, 1.43), (1.64, 3.49)),
    "EPYC 5": Share(0.22, 1.18, (0.19, 0.37), (1.11, 1.98)),
    "Neoverse N1": Share(0.62, 1.92, (0.56, 1.04), (1.14, 2.01)),
    "Sandy Bridge": Share(1.76, 7.86, (1.53, 3.24), (6.19, 12.6)),
    "Ivy Bridge": Share(1.39, 5.46),
    "Haswell": Share(0.66, 3.83, (0.56, 0.90), (3.68, 4.30)),
    "Broadwell": Share(0.53, 3.09, (0.47, 1.19), (2.77, 5.43)),
    "Skylake": Share(0.53, 4.12, (0.40, 0.75), (3.23, 4.47)),
    "Cascade Lake": Share(0.60, 4.04, (0.43, 1.08), (3.18, 4.46)),
    "Coffee Lake": Share(1.05, 5.98, None, (3.46, 7.37)),
    "Ice Lake": Share(0.83, 4.06, (0.69, 1.04), (3.55, 4.17)),
    "Sapphire Rapids": Share(0.90, 3.99, (0.65, 1.64), (3.09, 4.84)),
    "Emerald Rapids": Share(0.82, 3.24, (0.59, 0.98), (2.46, 4.05)),
    "Granite Rapids": Share(0.60, 2.69, (0.44, 0.72), (1.87, 2.89)),
}

# Linux arch/x86/include/asm/intel-family.h; AMD Processor Programming References (family and model);
# Arm Neoverse N1 Technical Reference Manual (MIDR_EL1). Server parts only: what is not listed is unknown.
_INTEL_FAMILY_6 = {
    45: "Sandy Bridge",
    62: "Ivy Bridge",
    63: "Haswell",
    79: "Broadwell",
    86: "Broadwell",
    85: "Skylake",
    142: "Coffee Lake",
    158: "Coffee Lake",
    106: "Ice Lake",
    108: "Ice Lake",
    143: "Sapphire Rapids",
    207: "Emerald Rapids",
    173: "Granite Rapids",
    174: "Granite Rapids",
}
_CASCADE_LAKE_STEPPING = 5
"""Skylake and Cascade Lake servers share model 85; this stepping of it is the first Cascade Lake."""
_AMD = {
    (23, 1): "EPYC 1",
    (23, 49): "EPYC 2",
    (25, 1): "EPYC 3",
    (25, 17): "EPYC 4",
    (25, 160): "EPYC 4",
    (26, 2): "EPYC 5",
    (26, 17): "EPYC 5",
}
_ARM = {("0x41", "0xd0c"): "Neoverse N1"}


def microarchitecture(cpu: str) -> str | None:
    """Return the name in `SHARES` of a CPU, or None if it is none of them.

    Names of models are of no use here: guests hide them.

    Args:
        cpu: ``/proc/cpuinfo``, or the like of ``Intel64 Family 6 Model 143 Stepping 8, GenuineIntel``.

    """
    implementer, part = (_field(cpu, name, "0x[0-9a-f]+") for name in ("CPU implementer", "CPU part"))
    if implementer and part:
        return _ARM.get((implementer, part))
    family, model, stepping = (
        int(_field(cpu, name, r"\d+") or -1) for name in ("family", "model", "stepping")
    )
    if "AuthenticAMD" in cpu:
        return _AMD.get((family, model))
    if "GenuineIntel" not in cpu or family != 6:  # noqa: PLR2004 - the family of all of them, as documented
        return None
    name = _INTEL_FAMILY_6.get(model)
    return "Cascade Lake" if name == "Skylake" and stepping >= _CASCADE_LAKE_STEPPING else name


def _field(cpu: str, name: str, value: str) -> str | None:
    match = re.search(rf"\b{name}\s*:?\s*({value})", cpu, re.IGNORECASE)
    return match and match[1].lower()


def power_w(share: Share, cpus: float, utilisation: float) -> float:
    """Return the power of `cpus` vCPUs, of which the part `utilisation` (0 to 1) is busy."""
    return cpus * (share.idle_w + (share.max_w - share.idle_w) * utilisation)


def busy_s(times: object) -> float:
    """Return the seconds for which CPUs have been busy, given ``psutil.cpu_times()``.

    Left out: ``iowait``, in which a CPU is idle; ``steal``, in which others used it; ``guest`` and
    ``guest_nice``, which ``user`` and ``nice`` contain (proc(5)).
    """
    return float(sum(getattr(times, name, 0.0) for name in _BUSY))


class VcpuModel:
    """The integral of `power_w` over the time since its first reading, from cumulative busy seconds."""

    def __init__(
        self,
        channel: Channel,
        share: Share,
        cpus: float,
        used_s: Callable[[], float],
        *,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.channels: tuple[Channel, ...] = (channel,)
        self._share = share
        self._cpus = cpus
        self._used_s = used_s
        self._clock = clock
        self._joules = 0.0
        self._last_s: float | None = None
        self._believed = self._doubted = (0.0, 0.0)

    def read(self) -> list[Reading]:
        """Return the joules so far. What one reading misses is in the next one."""
        before_s = self._clock()
        try:
            used_s = self._used_s()
        except (OSError, ValueError, RuntimeError) as error:
            return [Reading(before_s, self._clock(), Outcome.AGAIN, None, str(error))]
        after_s = self._clock()
        self._advance((before_s + after_s) / 2, used_s)
        return [Reading(before_s, after_s, Outcome.OK, self._joules)]

    def reopen(self) -> None:
        """Do nothing: there is no handle to renew."""

    def close(self) -> None:
        """Do nothing: there is no handle to release."""

    def _advance(self, now_s: float, used_s: float) -> None:
        if self._last_s is None:
            self._believed = self._doubted = now_s, used_s
        else:
            idle_w, max_w = (power_w(self._share, self._cpus, part) for part in (0.0, 1.0))
            worked_s = self._worked_s(now_s, used_s)
            self._joules += idle_w * (now_s - self._last_s) + (max_w - idle_w) / self._cpus * worked_s
        self._last_s = now_s

    def _worked_s(self, now_s: float, used_s: float) -> float:
        """Return the CPU time used since the last one that could be.

        CPU times may fall (giampaolo/psutil#1210) or jump for one reading (lxc/lxcfs#554, systemd/systemd#749), and come
        back. No host works backwards or more than its CPUs can: a time that says so is doubted, and neither the jump
        nor the way back is work. Only if the next one agrees with it, it counts from there.
        """
        for since_s, before_s in (self._believed, self._doubted):
            worked_s = used_s - before_s
            if 0 <= worked_s <= self._cpus * (now_s - since_s + BURST_S):
                self._believed = self._doubted = now_s, used_s
                return worked_s
        self._doubted = now_s, used_s
        return 0.0


def probe(
    proc: Path = Path("/proc"),
    cgroup: Path = Path("/sys/fs/cgroup"),
    clock: Clock = time.perf_counter,
    cpu_times: Callable[[], object] | None = None,
    online: int | None = None,
) -> tuple[list[Sensor], list[Finding]]:
    """Set up the model for this machine, or for the part of it that the control group allows.

    Args:
        proc: Where ``cpuinfo`` and ``self/cgroup`` are.
        cgroup: Where control groups are mounted.
        clock: Stamps the readings.
        cpu_times: The machine's CPU times; by default ``psutil.cpu_times``.
        online: The machine's CPUs; by default those that are online, whatever ``PYTHON_CPU_COUNT`` says.

    Returns:
        One sensor, which always works, and what it assumes.

    """
    online = online or _online()
    name = microarchitecture(read_text(proc / "cpuinfo") or platform.processor())
    share = SHARES[name] if name else UNKNOWN
    limit = cpu_limit(online, root=cgroup, membership=proc / "self" / "cgroup")
    cpus = limit.cpus if limit else float(online)
    used = _clock_of_use(limit, cpu_times)
    channel = Channel(
        id="cpu:0",
        kind="cpu",
        method="estimate",
        quantity="energy",
        name=f"{cpus:g} vCPUs, {name or 'unknown CPU'}",
        device=limit.identity if limit else "vcpus",
        source=used.source,
        period_s=TICK_S,
        quantum_j=TICK_S * (share.max_w - share.idle_w),
        relative_error=RELATIVE_ERROR,
        note="; ".join(["share of a server's power at the wall, memory included", *used.notes]),
    )
    sensor = VcpuModel(channel, share, cpus, used.seconds, clock=clock)
    detail = _detail(share, cpus, limit, online)
    return [sensor], [Finding(SOURCE, channel.name, "used", " ".join([detail, *map(_sentence, used.notes)]))]


class _Use(NamedTuple):
    """Where CPU time is read, and what that leaves out."""

    source: str
    seconds: Callable[[], float]
    notes: tuple[str, ...] = ()


def _clock_of_use(limit: CpuLimit | None, cpu_times: Callable[[], object] | None) -> _Use:
    if limit and _has_counted(limit):
        return _Use("cgroup", limit.used_s)
    if limit:
        return _Use("process", time.process_time, (_OWN_ONLY_OF_GROUP,))
    if cpu_times is None:
        import psutil  # noqa: PLC0415 - not in the standard library, so loaded when first needed

        cpu_times = psutil.cpu_times
    if _all_zero(cpu_times):
        # gVisor, as in Cloud Run and Modal: /proc/stat is there and holds zeros (google/gvisor#9967).
        return _Use("process", time.process_time, (_OWN_ONLY,))
    return _Use("psutil", lambda: busy_s(cpu_times()))


def _has_counted(limit: CpuLimit) -> bool:
    """Return whether the group's CPU time is alive: this process is in it, and has used some."""
    try:
        return limit.used_s() > 0
    except (OSError, ValueError):
        return True  # readings will say why


def _all_zero(cpu_times: Callable[[], object]) -> bool:
    try:
        times = cpu_times()
    except (OSError, ValueError, RuntimeError):
        return False  # readings will say why
    return not any(getattr(times, name, 0.0) for name in (*_BUSY, "idle"))


def _online() -> int:
    """Return the number of the machine's CPUs; os.cpu_count() gives what PYTHON_CPU_COUNT says instead."""
    import psutil  # noqa: PLC0415 - not in the standard library, so loaded when first needed

    return psutil.cpu_count() or os.cpu_count() or 1


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _detail(share: Share, cpus: float, limit: CpuLimit | None, online: int) -> str:
    idle_w, max_w = power_w(share, cpus, 0), power_w(share, cpus, 1)
    spread = ""
    if share.max_range_w:
        low_w, high_w = (cpus * watts for watts in share.max_range_w)
        spread = f" (servers of its kind: {low_w:.1f} to {high_w:.1f} W)"
    part = f"{cpus:g} of {online} CPUs, as the control group allows" if limit else f"{online} CPUs"
    return f"The model puts {part} at {idle_w:.1f} W idle and {max_w:.1f} W busy{spread}, give or take half."
