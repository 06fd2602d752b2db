"""The meters of a process: paced together, the same again when unpickled, begun anew by a fork, closed at exit."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from aimeter._meters import parting
from aimeter._meters.delivery import FLUSH_TIMEOUT_S
from aimeter._sampling.protocols import Sharer
from aimeter._sampling.sampler import Sampler, retire_all
from aimeter._sampling.shared import pace
from aimeter._support.clocks import time
from aimeter._support.lifetime import after_fork_in_child, at_exit, reach_children


class Member(Sharer, Protocol):
    """What a meter is to the others."""

    token: str
    """Names it in whatever process."""

    @property
    def sampler(self) -> Sampler:
        """What it reads the sensors with."""

    def close(self, timeout_s: float) -> None:
        """Write what has finished and release everything."""

    def after_fork(self) -> None:
        """Begin anew in a forked child."""


M = TypeVar("M", bound=Member)

_members: weakref.WeakSet[Member] = weakref.WeakSet()
_unpickled: list[Member] = []
_lock = threading.RLock()  # reentrant: a signal handler may make a meter while one is made


def enter(meter: Member) -> None:
    """Count a meter in, and have its sampler run as often as it asks for."""
    _members.add(meter)
    pace(meter.sampler, _members)
    reach_children()


def retire(meter: Member) -> None:
    """Have a meter ask no more for an interval; its sampler goes on at what the others ask for."""
    meter.retired = True
    pace(meter.sampler, _members)


def is_wanted(sampler: object) -> bool:
    """Return whether any meter still asks for a sampler's readings."""
    return any(one.sampler is sampler and not one.retired for one in list(_members))


def with_token(token: str, make: Callable[[], M]) -> M:
    """Return the meter of that token, made if this process has none; it is kept for good then."""
    with _lock:
        known = next((one for one in (*_unpickled, *_members) if one.token == token), None)
        if known is None:
            known = make()
            known.token = token
            _unpickled.append(known)
        return cast("M", known)


@at_exit
def close_all() -> None:
    """Close every meter: at a normal exit nothing that has finished is lost. Then show the table that was asked for."""
    end = time.monotonic() + FLUSH_TIMEOUT_S
    for meter in list(_members):
        meter.close(max(end - time.monotonic(), 0.0))
    retire_all()
    parting.show()


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
    parting.after_fork()
    for meter in list(_members):
        meter.after_fork()
    reach_children()
