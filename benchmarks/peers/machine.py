"""The emulated machine that every tool is run on: an H100 and a CPU with RAPL, which take as long to read as real ones.

A process sees it through its environment (the emulated libnvidia-ml and what it is told to be), through a private
mount namespace (the powercap tree where tools look for it) and through a preloaded library (the time a counter takes
to read). Where the kernel grants no mount namespace, there is no CPU, and only GPUs are compared.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.cpu import CONTROL
from tests.emulator.build import compiler
from tests.emulator.nvml import FakeNvml

ROOT = Path(__file__).parents[2]
GPU = "h100"
IDLE_W = 70.0
NVML_S = 0.3e-3
RAPL_S = 0.15e-3

# Shows a tree at the two places where the kernel has it. A place that this kernel does not have is made in an
# overlay, because nothing can be created in /sys.
_SHOW = """
set -e
tree=$1; shift
show() {
    if [ ! -d "$2" ]; then
        empty=$tree/missing$2
        mkdir -p "$empty"
        mount -t overlay overlay -o "lowerdir=$(dirname "$empty"):$(dirname "$2")" "$(dirname "$2")"
    fi
    mount --bind "$1" "$2"
}
show "$tree/class/powercap" /sys/class/powercap
show "$tree/devices/virtual/powercap" /sys/devices/virtual/powercap
if [ -n "$READING" ]; then export LD_PRELOAD=$READING; fi
exec "$@"
"""


class Machine(NamedTuple):
    """How to start a process on the emulated machine.

    Attributes:
        prefix: What goes before its command.
        environ: Its environment; temporary files go with the machine.
        control: Socket of the emulated CPU; None if there is none.
    """

    prefix: list[str]
    environ: dict[str, str]
    control: Path | None


@contextlib.contextmanager
def machine(*, period_s: float, late_s: float = 0.0, gpus: int = 1) -> Iterator[Machine]:
    """Set up a machine for one process.

    Args:
        period_s: How often the GPUs' energy counters are renewed.
        late_s: By up to how much each renewal is late.
        gpus: How many there are.
    """
    with tempfile.TemporaryDirectory(prefix="aimeter-peers-") as name:
        folder = Path(name)
        environ = _nvml(folder, period_s, late_s, gpus)
        if not namespaces():
            yield Machine([], environ, None)
            return
        tree = folder / "powercap"
        with _cpu(tree):
            counter = (tree / "class/powercap/intel-rapl:0/energy_uj").stat()
            environ |= {
                "READING": str(_slow_reads(folder)),
                "SLOW_FILES": f"{counter.st_dev}:{counter.st_ino}",
                "SLOW_S": str(RAPL_S),
            }
            yield Machine([*_unshare(), "sh", "-c", _SHOW, "sh", str(tree)], environ, tree / CONTROL)


_one_at_a_time = threading.Lock()
"""A process has one emulated NVML, which writes down what it was told."""


def _nvml(folder: Path, period_s: float, late_s: float, gpus: int) -> dict[str, str]:
    """Return the environment in which a process sees the GPUs."""
    # Not inherited: settings of the tools, and what the caller's shell says of its own devices and Python.
    own = ("AIMETER_", "CODECARBON_", "ZEUS", "CUDA_", "PYTHON")
    base = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    latency_s = max(NVML_S - 2 * _oversleep_s(), 0.0)
    with _one_at_a_time:
        fake = FakeNvml()
        for _ in range(gpus):
            fake.add(GPU, counter_period_s=period_s, jitter_s=late_s, latency_s=latency_s, idle_w=IDLE_W)
        environ = fake.environ(folder, base=base)
        fake.unplug()
    # The driver's tool: CodeCarbon looks for GPUs only where it runs.
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    # Nobody finds settings, calibrations or caches of the user's.
    environ |= dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(folder))
    environ["PATH"] = f"{tool.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    return environ


@cache
def _oversleep_s() -> float:
    """Return by how much a short sleep is longer than asked for; the emulated NVML sleeps twice a reading."""
    late = []
    for _ in range(200):
        start = time.perf_counter()
        time.sleep(NVML_S / 2)
        late.append(time.perf_counter() - start - NVML_S / 2)
    return statistics.median(late)


@contextlib.contextmanager
def _cpu(tree: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.peers.cpu", str(tree)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                message = "The emulated CPU did not start."
                raise RuntimeError(message)
            yield
        finally:
            process.terminate()


def _unshare() -> list[str]:
    """Return the command that gives a process mounts of its own; users other than root map themselves to it."""
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


@cache
def namespaces() -> bool:
    """Tell whether a process can be shown a powercap tree."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as name:
        for part in ("class/powercap", "devices/virtual/powercap"):
            (Path(name) / part).mkdir(parents=True)
        command = [*_unshare(), "sh", "-c", _SHOW, "sh", name, "true"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _slow_reads(folder: Path) -> Path:
    """Compile the library that makes reading a counter take its time."""
    target = folder / "slowread.so"
    source = Path(__file__).with_name("slowread.c")
    subprocess.run(
        [*compiler(), "-O1", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"], check=True
    )
    return target
