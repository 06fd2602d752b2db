"""A sensor: the power of a whole board, as its hwmon chip publishes it (the INA3221 of a Jetson, for one)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from aimeter.sensors.base import Channel, Outcome, Reading


class BoardPower:
    """Reads the microwatts in a file such as ``/sys/class/hwmon/hwmon0/power1_input``; stamps are of the meter's clock."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self._file, self._clock = file, clock
        self.channels = (
            Channel(
                id="other:0",
                kind="other",  # the column of the row: gpu_j, cpu_j, dram_j or other_j
                method="power",
                quantity="power",
                name="board",
                device=str(file),
                source="hwmon",
                period_s=0.05,  # a new value is published so often,
                window_s=0.05,  # the mean of so long,
                relative_error=0.02,  # and it may be off by 2 %
            ),
        )

    def read(self) -> list[Reading]:
        """Return one reading a channel; a fault is an outcome with its reason, and no exception."""
        before_s = self._clock()
        try:
            watts = int(self._file.read_text("ascii")) / 1e6
        except FileNotFoundError as error:
            return [Reading(before_s, self._clock(), Outcome.GONE, None, str(error))]
        except (OSError, ValueError) as error:
            return [Reading(before_s, self._clock(), Outcome.AGAIN, None, str(error))]
        return [Reading(before_s, self._clock(), Outcome.OK, watts)]

    def reopen(self) -> None:
        """Do nothing in a forked child: the file is opened for each reading."""

    def close(self) -> None:
        """Do nothing: nothing is held open."""
