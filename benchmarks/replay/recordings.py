"""Recordings of real boards, in two forms.

Of "Part-time Power Measurements" (arXiv 2312.02741; github.com/JimZeyuYang/GPU_Power_Benchmark, `plotting/data`): what
nvidia-smi printed every few milliseconds, begins and ends of kernels, and a shunt meter beside the board. Of
``python -m benchmarks.hardware --record``: what NVML published, and begins and ends of work; the energy counter is
the reference there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TICKS_A_SECOND, _WRAP_TICKS = 2.9335e6, 65536
_VOLTS, _AMPERES = 0.007568, 0.0488
_RECORD_WORDS = 9
_START_LATE_US = 50_000
_HALF_HOUR_S = 1800.0

_BOARDS = (
    (r"K40|K80", (3, 5)),
    (r"P100|1080", (6, 0)),
    (r"V100|TITAN ?V", (7, 0)),
    (r"T4|20[678]0", (7, 5)),
    (r"A100|A30", (8, 0)),
    (r"30[5-9]0|A5000|A6000|A10\b|A40\b", (8, 6)),
    (r"40[5-9]0|L4\b|L40", (8, 9)),
    (r"H100|H200|GH200", (9, 0)),
)
"""Compute capabilities by what is in a folder's name."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a board published and what it drew, in seconds since the recording began.

    Attributes:
        name: The board's, or the folder's.
        capability: Its compute capability, which tells how it publishes.
        published: By channel, `counter`, `usage` or `instant`: when a value was read, and what it was, in joules or watts.
        calls: Begin and end of each piece of work; shape (n, 2).
        times_s: Times at which the reference is known.
        joules: What it had counted by then.
        reference: What it is, in words.
        max_power_w: The greatest limit of the board; None if the recording does not tell.
    """

    name: str
    capability: tuple[int, int]
    published: Mapping[str, tuple[Array, Array]]
    calls: Array
    times_s: Array
    joules: Array
    reference: str
    max_power_w: float | None = None

    def drew_j(self, begin_s: float, end_s: float) -> float:
        """Return what the board drew from one time to another by the reference, in joules."""
        begin_j, end_j = np.interp([begin_s, end_s], self.times_s, self.joules)
        return float(end_j - begin_j)


def load(folder: Path, capability: tuple[int, int] | None = None) -> Recording:
    """Return the recording in a folder of either form.

    Args:
        folder: Where it is.
        capability: Compute capability of the board; by default as the recording or the folder's name tells.

    Raises:
        ValueError: If neither tells.
        OSError: If a file is missing.
    """
    if (folder / "readings.csv").exists():
        return _own(folder)
    if capability is None:
        name = str(folder.resolve())
        capability = next((known for board, known in _BOARDS if re.search(board, name, re.IGNORECASE)), None)
    if capability is None:
        message = f"{folder} does not tell the board by its name: say --capability, as 8.6"
        raise ValueError(message)
    return _shunt(folder, capability)


def _own(folder: Path) -> Recording:
    device = json.loads((folder / "device.json").read_text("utf-8"))
    rows = [line.split(",") for line in (folder / "readings.csv").read_text("utf-8").splitlines()[1:]]
    published = {}
    for channel in sorted({row[1] for row in rows}):
        # A new value is there at the end of the first reading that gave it.
        seen = [(float(after), float(value)) for _, one, value, _, after in rows if one == channel]
        times, values = np.array(seen).T
        published["usage" if channel == "average" else channel] = (times, values)
    times, joules = published["counter"]
    calls = np.loadtxt(folder / "calls.csv", delimiter=",", skiprows=1, ndmin=2)
    major, minor = device["capability"]
    return Recording(
        device["name"],
        (major, minor),
        published,
        calls,
        times,
        joules,
        "its own energy counter",
        device["limits_w"][1],
    )


def _shunt(folder: Path, capability: tuple[int, int]) -> Recording:
    times_s, watts = shunt_meter(folder)
    read_s, columns = _nvidia_smi(folder / "gpudata.csv")
    # nvidia-smi prints local time; zones differ by half hours.
    read_s -= round((float(read_s[0]) - float(times_s[0])) / _HALF_HOUR_S) * _HALF_HOUR_S
    names = {"power.draw [W]": "usage", "power.draw.instant [W]": "instant"}
    edges = np.loadtxt(folder / "timestamps.csv", skiprows=1, ndmin=1)[::2] * 1e-6
    edges = edges[: edges.size // 2 * 2]
    zero_s = float(times_s[0])
    joules = np.concatenate([[0.0], np.cumsum(np.diff(times_s) * (watts[1:] + watts[:-1]) / 2)])
    return Recording(
        folder.name,
        capability,
        {names[column]: (read_s - zero_s, values) for column, values in columns.items() if column in names},
        edges.reshape(-1, 2) - zero_s,
        times_s - zero_s,
        joules,
        "a shunt meter",
    )


def shunt_meter(folder: Path) -> tuple[Array, Array]:
    """Return the times [s since 1970] and powers [W] of the shunt meter: the board's three cables and its slot."""
    words = np.fromfile(folder / "PMD_data.bin", dtype="<u2")
    records = words[: words.size // _RECORD_WORDS * _RECORD_WORDS].reshape(-1, _RECORD_WORDS)
    ticks = np.unwrap(records[:, 0].astype(float), period=_WRAP_TICKS)
    levels = (records[:, 1:] >> 4).astype(float)
    levels[levels >= 1 << 11] = 0.0  # below zero, in two's complement
    watts = (levels[:, ::2] * _VOLTS * levels[:, 1::2] * _AMPERES).sum(axis=1)
    start_us = int((folder / "PMD_start_ts.txt").read_text("utf-8").split()[0]) - _START_LATE_US
    return start_us * 1e-6 + (ticks - ticks[0]) / _TICKS_A_SECOND, watts


def _nvidia_smi(path: Path) -> tuple[Array, dict[str, Array]]:
    """Return the times of a log of nvidia-smi, and its columns of power."""
    head, *rows = [line.split(", ") for line in path.read_text("utf-8").splitlines() if line.strip()]
    rows = [row for row in rows if len(row) == len(head)]
    times = [
        datetime.strptime(row[0], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp() for row in rows
    ]
    columns = {}
    for place, name in enumerate(head):
        if name.startswith("power.draw"):
            columns[name] = np.array([_number(row[place]) for row in rows])
    return np.array(times), {name: values for name, values in columns.items() if np.isfinite(values).all()}


def _number(text: str) -> float:
    try:
        return float(text.removesuffix(" W"))
    except ValueError:  # "[N/A]"
        return float("nan")
