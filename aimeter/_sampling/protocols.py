"""What a sampler is to those that drive it, and what it needs of a clock and of the GPUs: types only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aimeter.sensors.base import Finding, Sensor
    from aimeter.settings import Settings


class Served(Protocol):
    """What a worker works for, or a stepped clock: a sampler, as far as they are concerned."""

    unattended: bool
    """It reads its sensors itself, without a thread."""

    @property
    def ready(self) -> bool:
        """Calls that begin or end now will be noticed without ringing."""

    def be_ready(self) -> None:
        """Note that a thread works for it."""

    def resume(self) -> None:
        """Go on after a rest."""

    def tick(self) -> float:
        """Do what is due, and return in how many seconds something will be."""

    def linger_over(self) -> bool:
        """Return whether there is nothing left to do, and rest if so."""

    def watch_pace(self) -> None:
        """Look whether rounds come in time; called by the thread that watches."""

    def complain(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""


class SteppedClock(Protocol):
    """A clock that only moves when told to, as in tests; it drives its samplers and no thread is started."""

    def __call__(self) -> float:
        """Return the time in seconds."""
        ...

    def advance(self, seconds: float) -> None:
        """Move on, running what falls due on the way."""
        ...

    def attach(self, sampler: Served) -> None:
        """Drive this sampler from now on."""
        ...

    def wake(self, sampler: Served) -> None:
        """Have this sampler's next round begin now."""
        ...


class Selection(Protocol):
    """Sensors that are found when they are first needed, and again when what selects them has changed."""

    def find(self) -> tuple[list[Sensor], list[Finding]]:
        """Return the sensors and what was found while looking for them."""
        ...

    def state(self) -> object:
        """Return what they depend on, such as an environment variable; asked often."""
        ...


class Sharer(Protocol):
    """Who shares a sampler: a meter."""

    settings: Settings
    retired: bool
    """It asks for nothing any more."""

    @property
    def sampler(self) -> object:
        """The sampler."""
