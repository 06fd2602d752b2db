"""What the two roads to RAPL, powercap and perf, have in common.

RAPL counts the energy of each CPU package, and on servers that of the memory behind it, in the processor.
The two roads show the same registers, so only one of them is ever used.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from aimeter.sensors.base import Channel, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PERIOD_S = 1e-3
"""Time between renewals of the registers. Source: Intel SDM vol. 3B, RAPL interfaces: about 1 ms."""

RELATIVE_ERROR: dict[Kind, float] = {"cpu": 0.1, "dram": 0.2}
"""The project's judgement, for no vendor states a tolerance. What is known: Khan et al., "RAPL in Action",
ACM TOMPECS 2018, for packages; Desrochers et al., MEMSYS 2016, for memory, which has a constant offset."""

MAX_POWER_W: dict[Kind, float] = {"cpu": 1000.0, "dram": 500.0}
"""Above any package sold (500 W) and its memory, with room for peaks: a counter claiming more was reset."""

NOTES: dict[Kind, str | None] = {"cpu": None, "dram": "memory behind the package, counted apart from it"}

ROUNDS = 5
PAUSE_S = 0.01
"""A probe reads `ROUNDS` times, `PAUSE_S` apart: 40 ms, in which a living register is renewed 40 times."""

MIRROR_TOLERANCE = 1
"""Counts by which the increments of mirrors may differ: the driver cuts each reading to whole counts."""

# Removed device, revoked right: asking again cannot help. Everything else (EIO, EINVAL, ENODATA …) may pass.
_FINAL = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES, errno.EPERM})


def channel(
    kind: Kind,
    number: int,
    *,
    name: str,
    device: str,
    source: str,
    quantum_j: float,
    wrap_j: float | None,
    remark: str | None = None,
    relative_error: float | None = None,
) -> Channel:
    """Describe one RAPL counter: the `number`-th package, or the memory behind it; `remark` is added to its note."""
    return Channel(
        id=f"{kind}:{number}",
        kind=kind,
        method="counter",
        quantity="energy",
        name=name,
        device=device,
        source=source,
        period_s=PERIOD_S,
        quantum_j=quantum_j,
        relative_error=RELATIVE_ERROR[kind] if relative_error is None else relative_error,
        wrap_j=wrap_j,
        max_power_w=MAX_POWER_W[kind],
        note="; ".join(part for part in (NOTES[kind], remark) if part) or None,
    )


def outcome_of(error: OSError) -> Outcome:
    """Tell a fault that may pass from one that will not."""
    return Outcome.GONE if error.errno in _FINAL else Outcome.AGAIN


class Trial:
    """A counter on trial: read a few times before it is trusted."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.series: list[int] = []
        self.error: OSError | ValueError | None = None
        self._read = read

    def sample(self) -> None:
        """Read the counter once more, unless it has failed before."""
        if self.error is None:
            try:
                self.series.append(self._read())
            except (OSError, ValueError) as error:
                self.error = error

    @property
    def alive(self) -> bool:
        """Whether the counter moved; one that did not is present but dead, as perf's psys in some guests."""
        return self.error is None and len(set(self.series)) > 1


def hold(trials: Sequence[Trial], sleep: Callable[[float], object]) -> None:
    """Read all counters `ROUNDS` times, `PAUSE_S` apart, those of a round close together."""
    for remaining in reversed(range(ROUNDS)):
        for trial in trials:
            trial.sample()
        if remaining:
            sleep(PAUSE_S)


def mirrors(first: Sequence[int], second: Sequence[int]) -> bool:
    """Tell whether two counters, read side by side, are one counter shown twice.

    Zen and Zen 2 Threadripper and EPYC show the counter of the socket once for each die
    (mlco2/codecarbon#1274, #1379). Two counters of their own do not move by exactly the same number of counts
    time after time; one shown twice does, unless it is renewed between its two readings. So equal increments
    in at least half of the steps decide.
    """
    steps = [
        (a1 - a0, b1 - b0)
        for a0, a1, b0, b1 in zip(first, first[1:], second, second[1:], strict=False)
        if a1 != a0 or b1 != b0
    ]
    equal = sum(abs(a - b) <= MIRROR_TOLERANCE for a, b in steps)
    return bool(steps) and 2 * equal >= len(steps)


def one_register(first: Sequence[int], second: Sequence[int]) -> bool:
    """Tell whether counters of different packages, read side by side, are one register.

    Other than dies, packages may well move by the same counts; but they do not hold the same count time after time,
    unless it is renewed between the two readings.
    """
    pairs = list(zip(first, second, strict=False))
    equal = sum(abs(a - b) <= MIRROR_TOLERANCE for a, b in pairs)
    return len(set(first)) > 1 and 2 * equal > len(pairs)


def originals(trials: Sequence[Trial]) -> list[int]:
    """Return the positions of the counters that mirror none before them."""
    kept: list[int] = []
    for position, trial in enumerate(trials):
        if not any(mirrors(trials[earlier].series, trial.series) for earlier in kept):
            kept.append(position)
    return kept
