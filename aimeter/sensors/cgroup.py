"""The CPU limit of the control group that this process lives in, and the CPU time which that group has used.

A container on a shared node sees all of the node's CPUs and their times; what it may use, and has used, only
its control group knows. Files: Linux ``Documentation/admin-guide/cgroup-v2.rst`` (``cpu.max``, ``cpu.stat``,
``cpuset.cpus.effective``); for version 1 ``Documentation/scheduler/sched-bwc.rst`` (``cpu.cfs_quota_us``) and
``Documentation/admin-guide/cgroup-v1/`` (``cpuacct.usage``, ``cpuset.effective_cpus``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aimeter._support.system import cpu_list, read_number, read_text

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """How many CPUs a control group may use, and the file that says how much it has used.

    Attributes:
        cpus: CPUs' worth of time it may use at once; a quota of half a CPU is 0.5.
        usage: ``cpu.stat`` (version 2) or ``cpuacct.usage`` (version 1).

    """

    cpus: float
    usage: Path

    @property
    def identity(self) -> str:
        """What tells the group from others of the machine: the number of its file, which no name space translates."""
        return f"group-{self.usage.stat().st_ino:x}"

    def used_s(self) -> float:
        """Return the CPU time used by the whole group so far, in seconds.

        Raises:
            OSError: The file cannot be read.
            ValueError: It holds no usage.

        """
        text = self.usage.read_text(encoding="ascii")
        if self.usage.name == "cpuacct.usage":
            return int(text) * 1e-9
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "usage_usec":
                return int(value) * 1e-6
        message = f"{self.usage} has no usage_usec"
        raise ValueError(message)


def cpu_limit(online: int, *, root: Path = ROOT, membership: Path = MEMBERSHIP) -> CpuLimit | None:
    """Return the tightest limit on this process's CPUs, of the outermost group that sets it.

    Args:
        online: CPUs of the machine; a limit that is no tighter is none.
        root: Where control groups are mounted.
        membership: Which groups this process is in.

    """
    paths = _paths(read_text(membership) or "")
    unified = (root / "cgroup.controllers").exists()
    limits = _unified(root, paths.get("", "/")) if unified else _by_controller(root, paths)
    usable = [limit for limit in limits if limit.cpus < online and limit.usage.exists()]
    return min(usable, key=lambda limit: limit.cpus, default=None)


def _paths(membership: str) -> dict[str, str]:
    """Return the path of this process's group by controllers: ``cpu,cpuacct``, or empty for version 2."""
    lines = (line.split(":", 2) for line in membership.splitlines())
    return {parts[1]: parts[2] for parts in lines if len(parts) == 3}  # noqa: PLR2004 - number:controllers:path


def _levels(mount: Path, path: str) -> list[Path]:
    """Return the groups from the outermost visible to the process's own.

    In a container the path may be the host's, which does not exist there; then the mount is the group.
    """
    levels = [mount]
    for part in path.split("/"):
        if part and part != ".." and (levels[-1] / part).is_dir():
            levels.append(levels[-1] / part)
    return levels


def _unified(root: Path, path: str) -> list[CpuLimit]:
    limits = []
    for group in _levels(root, path):
        quota, _, period = (read_text(group / "cpu.max") or "max").partition(" ")
        if quota != "max":
            limits.append(CpuLimit(int(quota) / int(period), group / "cpu.stat"))
        cpus = cpu_list(read_text(group / "cpuset.cpus.effective") or "")
        if cpus:
            limits.append(CpuLimit(len(cpus), group / "cpu.stat"))
    return limits


def _mount(root: Path, controllers: frozenset[str]) -> Path:
    """Return where a hierarchy of version 1 is mounted: its controllers are a set, whose folder names them in any order."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    named = [folder for folder in folders if controllers & frozenset(folder.name.split(","))]
    return next(
        (folder for folder in named if controllers == frozenset(folder.name.split(","))), (*named, root)[0]
    )


def _by_controller(root: Path, paths: dict[str, str]) -> list[CpuLimit]:
    groups: dict[str, list[Path]] = {}
    for controllers, path in paths.items():
        names = controllers.split(",")
        mount = _mount(root, frozenset(names))
        groups |= dict.fromkeys(names, _levels(mount, path))
    accounts = groups.get("cpuacct", [])
    limits = []
    for depth, group in enumerate(groups.get("cpu", [])):
        quota, period = read_number(group / "cpu.cfs_quota_us"), read_number(group / "cpu.cfs_period_us")
        if accounts and quota and period and quota > 0:
            limits.append(CpuLimit(quota / period, _usage(accounts, depth)))
    for depth, group in enumerate(groups.get("cpuset", [])):
        cpus = cpu_list(read_text(group / "cpuset.effective_cpus") or read_text(group / "cpuset.cpus") or "")
        if accounts and cpus:
            limits.append(CpuLimit(len(cpus), _usage(accounts, depth)))
    return limits


def _usage(accounts: list[Path], depth: int) -> Path:
    """Return the account of the group at `depth`: hierarchies of version 1 are separate, but built alike."""
    return accounts[min(depth, len(accounts) - 1)] / "cpuacct.usage"
