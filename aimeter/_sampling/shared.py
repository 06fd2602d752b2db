"""The sampler of this machine's sensors, which all meters of a process share."""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aimeter._sampling.sampler import Sampler
from aimeter._support.lifetime import after_fork_in_child

if TYPE_CHECKING:
    from aimeter._sampling.protocols import Sharer, SteppedClock
    from aimeter.sensors.base import Clock, Finding, Sensor
    from aimeter.settings import Settings


_samplers: dict[tuple[Path, Path | str, int], Sampler] = {}
_sampler_ids: weakref.WeakKeyDictionary[Sampler, tuple[int, str]] = weakref.WeakKeyDictionary()
_lock = threading.RLock()  # reentrant: a signal handler may make a meter while one is made


class _Gpus:
    """The machine's GPUs, opened once a call may use them."""

    def find(self) -> tuple[list[Sensor], list[Finding]]:
        from aimeter.sensors.discover import discover_gpus  # noqa: PLC0415 - loads pynvml, which importing must not

        return discover_gpus()

    def state(self) -> object:
        from aimeter.sensors.discover import selection_of_gpus  # noqa: PLC0415 - the same

        return selection_of_gpus()


def shared_sampler(settings: Settings, clock: Clock | SteppedClock) -> Sampler:
    """Return the sampler of this machine's sensors, which all meters share; it runs at the shortest interval."""

    def find() -> tuple[list[Sensor], list[Finding]]:
        from aimeter.sensors.discover import Discovery, discover_cpu  # noqa: PLC0415 - loads psutil, as importing must not

        found = discover_cpu(Discovery(), powercap=settings.powercap)
        return found.sensors, found.findings

    with _lock:
        key = (settings.powercap, settings.calibration, id(clock))
        sampler = _samplers.get(key)
        if sampler is None:
            sampler = _samplers[key] = Sampler(
                find,
                gpus=_Gpus(),
                calibration=settings.calibration,
                clock=clock,
                interval_s=settings.interval_s,
            )
        return sampler


def sampler_id(sampler: Sampler) -> str:
    """Return an identifier of the sampler in this process."""
    with _lock:
        known = _sampler_ids.get(sampler)
        if known is None or known[0] != os.getpid():  # a forked child divides by itself
            known = _sampler_ids[sampler] = os.getpid(), uuid.uuid4().hex[:8]
        return known[1]


def pace(sampler: Sampler, sharers: Iterable[Sharer]) -> None:
    """Have the sampler run at the shortest interval that any of those who share it asks for."""
    own = [one for one in list(sharers) if one.sampler is sampler and not one.retired]
    intervals = [one.settings.interval_s for one in own]
    if intervals:
        sampler.readers.set_interval(min(intervals))


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
