"""What samplers, those that drive them and those who share them are to each other: types only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from aimeter._sampling.intake import Intake
    from aimeter._sampling.pace import Pace
    from aimeter._sampling.source import Question, Source
    from aimeter.sensors.base import Clock, Finding, Sensor
    from aimeter.settings import Settings


class Sought(Protocol):
    """The sensors of a sampler, as those that drive it look for them."""

    opened: bool
    """They have been read once, or were waited for in vain."""

    @property
    def patience_s(self) -> float:
        """How long a call waits for them."""

    @property
    def is_open(self) -> bool:
        """Whether they are found and read."""

    def open(self) -> None:
        """Find them and read them, once."""

    def refresh(self) -> None:
        """Read them, once they are found."""


class Served(Protocol):
    """What a worker works for, or a stepped clock: a sampler, as far as they are concerned."""

    unattended: bool
    """It reads its sensors itself, without a thread."""
    ready: bool
    """Calls that begin or end now will be noticed without ringing."""
    refreshed_s: float
    """When all sensors were last read because somebody had asked for it."""
    now: Clock
    """Monotonic seconds."""

    @property
    def intake(self) -> Intake:
        """Where calls come from."""

    @property
    def search(self) -> Sought:
        """Where sensors come from."""

    @property
    def pace(self) -> Pace:
        """How often there is something to do."""

    def be_ready(self) -> None:
        """Note that a thread works for it."""

    def resume(self) -> None:
        """Go on after a rest."""

    def tick(self) -> float:
        """Do what is due, and return in how many seconds something will be."""

    def try_stop(self) -> bool:
        """Return whether there is nothing left to do, and rest if so."""

    def settle(self) -> None:
        """Settle what is certain."""

    def round_here(self) -> None:
        """Read the sensors and settle in the thread that asks, as no other does."""

    def ensure_running(self) -> None:
        """Make sure that somebody reads the sensors."""

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""


class Driver(Protocol):
    """Who has the rounds of one sampler run, and sees to it that sensors are asked by one thread at a time."""

    guard_s: float
    """Events before this much time ago are in the queue."""
    wanted_s: float
    """When somebody last wanted all sensors to be read."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a round."""

    def begin(self) -> None:
        """Set up what belongs to this process and not to one that it may have been forked from."""

    def attach(self) -> None:
        """Drive the sampler, which is complete, from now on."""

    def ensure_running(self) -> None:
        """Make sure that somebody reads the sensors."""

    def wake(self) -> None:
        """Have the next round begin now."""

    def leave(self) -> None:
        """Drive the sampler no more."""

    def asking(self, question: Question, patience_s: float = ...) -> AbstractContextManager[bool]:
        """Claim a question while it is being asked; False if it is not this thread's turn."""

    def release(self, source: Source) -> None:
        """Close a sensor that nobody will ask any more."""

    def let_pass(self, stamp_s: float) -> None:
        """Wait until an event of this time is in the queue."""

    def refresh(self, timeout_s: float) -> bool:
        """Have every sensor read, waiting so long at most; return whether a round did it, which settles, too."""

    def wait_for(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done`, which is asked after every settling, for at most `timeout_s`; return whether it is."""

    def tell_waiters(self) -> None:
        """Have those go on who wait for what is done."""


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
