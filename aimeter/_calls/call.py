"""A call: two timestamps, a place among the calls around it, and a handle that is valid for ever.

Entering and leaving take a monotonic timestamp, set a context variable and append to a queue. No sensor is
read, no lock is taken and nothing is written here: all else happens in the background, or when a figure is
asked for.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, NoReturn, ParamSpec, TypeVar

from aimeter._calls import cuda_sync
from aimeter._calls.arguments import check_devices, check_weight
from aimeter._calls.context import open_call
from aimeter._calls.figures import Figured
from aimeter._calls.holders import BY_HAND, LEFT, references_of
from aimeter._support.notes import class_name
from aimeter._support.public import public

if TYPE_CHECKING:
    from typing import Self

    from aimeter._calls.labels import Place
    from aimeter._calls.protocols import Host
    from aimeter.record import Record

P = ParamSpec("P")
R = TypeVar("R")

current: ContextVar[Call | None] = open_call
"""The innermost open call of this thread or task."""

# Looked up once: these run for every call.
_references = references_of
_get_current = current.get
_set_current = current.set
_reset_current = current.reset
_get_ident = threading.get_ident
_may_be_queued = cuda_sync.may_be_queued
# The public current_thread() would make a lasting dummy object for threads that Python did not start.
_thread_of: Callable[[int], threading.Thread | None] = getattr(threading, "_active", {}).get
_modules = sys.modules


class Pause(NamedTuple):
    """The consumer of a generator holds it suspended from `time_s` on, or resumes it."""

    call: Call
    time_s: float
    suspended: bool


@public
class Call(Figured):
    """One metered call, made by `track`. Use it as ``with`` or ``async with``, once.

    The figures can be read at any time: inside the block they say what has been used so far, after it they
    are final. Reading one before its call is settled waits for the sensors, at most for one update of the
    slowest; it never raises, and a figure that nobody could measure is None.
    """

    __slots__ = ("_parent", "_token")

    # These start out unset and are read with a default: creating a call stays cheap.
    _parent: Call | weakref.ref[Call] | None
    _token: Token[Call | None] | None

    def __init__(
        self,
        meter: Host,
        name: str | Place,
        counts: dict[str, float | None] | None = None,
        notes: dict[str, object] | None = None,
    ) -> None:
        self._name = name
        self._meter = meter
        self._start: float | None = None
        self._end: float | None = None
        if counts is not None:
            self._counts = counts
        if notes is not None:
            self._notes = notes

    # The hot path

    def __enter__(self) -> Self:
        if self._start is not None:
            message = f"the call {self.name!r} was entered before: make a new one with track() for each use"
            raise RuntimeError(message)
        try:
            around = _get_current()
            while around is not None and (
                around._end is not None or around.is_left()  # noqa: SLF001 - a property costs a call
            ):
                around = around.around
            if _references(self) <= BY_HAND:
                self._by_hand = True
            self._parent = around
            self._token = _set_current(self)
            self._thread = _thread_of(_get_ident())
            sampler = self._meter.sampler
            put = self._put = sampler.put
            self._start = sampler.now()
            put(self)
            if not sampler.ready:
                sampler.ensure_running()
        except BaseException as interruption:
            self._break_off(interruption)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is None:
            try:
                meter = self._meter
                sampler = meter.sampler
                if meter.synchronise and "torch" in _modules and _may_be_queued():
                    self._synchronise()
                if kind is not None:
                    self._error = class_name(kind)
                self._end = sampler.now()
                self._put(self)
                if not sampler.ready:
                    self._ensure_running()
            except BaseException as interruption:
                self._break_off(interruption)
                raise
        try:
            _reset_current(self._token)  # type: ignore[arg-type]
        except ValueError:
            # Entered in another context: an async generator that was begun in one task and ended in another.
            current.set(self.around)
        except (RuntimeError, TypeError):
            return  # left before, or settled since: whoever finds an ended call current goes on to those around it

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Meter every invocation of `function` as a call of its own, with this one's name, counts and notes."""
        from aimeter._calls.decorate import decorate, name_of  # noqa: PLC0415 - only decorators need it

        meter, counts, notes = self._meter.source, dict(self.counts), dict(self.notes)
        weight, devices = self.weight, self.devices
        name = name_of(function) if isinstance(self, UnnamedCall) else self.name
        if weight is None and devices is None:
            return decorate(function, lambda: meter().call(name, counts, notes))
        return decorate(function, lambda: meter().call(name, counts, notes).limit(weight, devices))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def finish(self, status: str, error: str | None) -> None:
        """Stamp the end of a generator's call. Later endings are ignored."""
        if self._end is not None:
            return
        try:
            sampler = self._meter.sampler
            if self._meter.synchronise and "torch" in _modules and _may_be_queued():
                self._synchronise()
            self._status = status
            self._error = error
            self._end = sampler.now()
            self._put(self)
            self._ensure_running()
        except BaseException as interruption:
            self._break_off(interruption)
            raise

    def _synchronise(self) -> None:
        fault = cuda_sync.wait_for_devices()
        if fault is not None:
            self.remark("sync", fault)

    def pause(self, *, suspended: bool) -> None:
        """Note that a generator's consumer holds it suspended from now on, or resumes it."""
        self._put(Pause(self, self._meter.sampler.now(), suspended))
        self._ensure_running()

    def _ensure_running(self) -> None:
        sampler = self._meter.sampler
        if not sampler.ready and not self.foreign:
            sampler.ensure_running()

    def _break_off(self, interruption: BaseException) -> None:
        """End the call now: a signal handler raised in the middle of `__enter__` or `__exit__`.

        Which events were queued before is unknown, so there may be too many now; attribution passes over those.
        """
        sampler = self._meter.sampler
        now = sampler.now()
        self._status, self._error = "error", class_name(type(interruption))
        if self._start is None:
            self._start = now
        if self._end is None:
            self._end = now
        put = getattr(self, "_put", sampler.put)
        put(self)
        put(self)

    # The calls around it

    @property
    def parent(self) -> Call | None:
        """The call that was open around this one when it began."""
        parent = self.around
        return None if parent is None or parent.foreign else parent

    @property
    def around(self) -> Call | None:
        """The same, were it another process's; None once nobody else keeps it."""
        parent: Call | weakref.ref[Call] | None = getattr(self, "_parent", None)
        return parent() if isinstance(parent, weakref.ref) else parent

    def holds(self) -> list[Call]:
        """Return the calls around it that this one holds, one as often as there are references."""
        token: Token[Call | None] | None = getattr(self, "_token", None)
        parent, before = getattr(self, "_parent", None), None if token is None else token.old_value
        return [one for one in (parent, before) if isinstance(one, Call)]

    def is_left(self) -> bool:
        """Return whether only the context in which it is current holds the call; it is ended then.

        To be called as ``around.is_left()`` on a variable.
        """
        if self._end is None and _references(self) <= LEFT + getattr(self, "_held", 1) and not self.by_hand:
            self.give_up()
        return self._end is not None

    def give_up(self) -> None:
        """End the call, which nobody holds any more and so nobody can end.

        Python runs signal handlers on the first instruction of `__exit__`, too. If one raises there, as Ctrl-C does,
        the end is not seen.
        """
        if self._end is None and not self.foreign:
            self.remark("end", "not seen: a signal handler raised just then")
            self._error = "Interrupted"
            self._end = self._meter.sampler.now()
            self._put(self)

    def settle(self, record: Record) -> None:
        """Make the call's row final; from now on the call keeps those around it alive no more."""
        self._record = record
        if self._end is not None:  # and so attribution has closed it
            self._token = None
            parent = getattr(self, "_parent", None)
            if isinstance(parent, Call):
                self._parent = weakref.ref(parent)

    @property
    def record(self) -> Record | None:
        """The row: final after the call, so far while it is open; None before it began."""
        settled = self.settled
        if settled is not None or self._start is None or self.foreign:
            return settled
        return self._meter.figures_of(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the call itself: it happens once, and there is one handle on it."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        message = "a call's handle belongs to its process: pickle its record, call.record"
        raise TypeError(message)

    def __repr__(self) -> str:
        record = self.record if self.ended else None
        if record is None:
            state = "not begun" if self._start is None else self.status
            return f"<aimeter call {self.name!r}, {state}>"
        return f"<aimeter call {record!r}>"


class UnnamedCall(Call):
    """A call that nobody named: it bears the place in the code, or the name of the function it decorates."""

    __slots__ = ()


class UnmeteredCall(Call):
    """The same handle where metering is switched off: it takes no time and knows no figure."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def finish(self, status: str, error: str | None) -> None:
        """Do nothing."""

    def pause(self, *, suspended: bool) -> None:
        """Do nothing."""


def limited(call: object, weight: object, devices: object) -> Call:
    """Return a call that `track` made, with its weight and devices checked and set.

    Raises:
        TypeError: If it is none but a decorated function, or one of the two has a wrong type.
        ValueError: If the weight is out of range, or no device has such a name.
    """
    if not isinstance(call, Call):
        message = "weight and devices go with a name: @track('name', weight=2.0)"
        raise TypeError(message)
    return call.limit(
        None if weight is None else check_weight(weight), None if devices is None else check_devices(devices)
    )


@public
def current_call() -> Call | None:
    """Return the innermost open call of this thread or task: for counts and notes inside a decorated function."""
    call = current.get()
    while call is not None and call.ended:
        call = call.parent
    return call
