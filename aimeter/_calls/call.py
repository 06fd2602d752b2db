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
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, NamedTuple, NoReturn, ParamSpec, TypeVar

from aimeter._calls import cuda_sync as asynchronous
from aimeter._calls.arguments import check_count, check_devices, check_weight
from aimeter._support.notes import plain
from aimeter.errors import did_you_mean
from aimeter.record import COUNTS, Record

if TYPE_CHECKING:
    from typing import Self

    from aimeter.meter import Meter

P = ParamSpec("P")
R = TypeVar("R")

current: ContextVar[Call | None] = ContextVar("aimeter_call", default=None)
"""The innermost open call of this thread or task."""

class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
"""Returns a class's name, whatever its metaclass makes of that."""

# Looked up once: these run for every call.
_get_current = current.get
_set_current = current.set
_reset_current = current.reset
_get_ident = threading.get_ident
_may_be_queued = asynchronous.may_be_queued
# The public current_thread() would make a lasting dummy object for threads that Python did not start.
_thread_of: Callable[[int], threading.Thread | None] = getattr(threading, "_active", {}).get
_modules = sys.modules


_references: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: 1_000_000)
if not getattr(sys, "_is_gil_enabled", lambda: True)():  # each thread counts by itself
    _references = lambda _: 1_000_000  # noqa: E731


class _Forgotten:
    """Stands for a call that only the books hold."""

    def references(self) -> int:
        return _references(self)

    def __enter__(self) -> Self:
        self.seen = _references(self)
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Books:
    call = _Forgotten()


_FORGOTTEN = _Books.call.references() - 1
"""What `Call.strangers` sees of a call that nobody holds, beside what the books do."""


def _left() -> int:
    """Return what `Call.is_left` sees of a call that a variable holds and the context, beside what the books do."""
    around = _Forgotten()
    return around.references() + 1


_LEFT = _left()
_BY_HAND = _Forgotten().__enter__().seen
"""What `Call.__enter__` sees of a call that no ``with`` statement holds, nor anybody else."""


class Pause(NamedTuple):
    """The consumer of a generator holds it suspended from `time_s` on, or resumes it."""

    call: Call
    time_s: float
    suspended: bool


Place = tuple[CodeType, int]
"""A place in the code: code object and index of the instruction, which take no time to find out."""

_MOST_PLACES = 1000
_places: dict[tuple[int, int], tuple[CodeType, str]] = {}


def _name_of(place: Place) -> str:
    """Return file and line of a place in the code."""
    code, instruction = place
    known = _places.get((id(code), instruction))
    if known is None:
        if len(_places) >= _MOST_PLACES:
            _places.clear()
        lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
        known = code, f"block at {Path(code.co_filename).name}:{next(lines, None) or code.co_firstlineno}"
        _places[id(code), instruction] = known  # which keeps the code, and so its id from being used again
    return known[1]


class Call:
    """One metered call, made by `track`. Use it as ``with`` or ``async with``, once.

    The figures can be read at any time: inside the block they say what has been used so far, after it they
    are final. Reading one before its call is settled waits for the sensors, at most for one update of the
    slowest; it never raises, and a figure that nobody could measure is None.
    """

    __slots__ = (
        "__weakref__",
        "_booked",
        "_by_hand",
        "_counts",
        "_devices",
        "_end",
        "_error",
        "_held",
        "_id",
        "_meter",
        "_name",
        "_notes",
        "_parent",
        "_put",
        "_record",
        "_remarks",
        "_start",
        "_status",
        "_thread",
        "_token",
        "_weight",
    )  # fmt: skip

    # These start out unset and are read with a default: creating a call stays cheap.
    _booked: bool
    _by_hand: bool
    _counts: dict[str, float | None]
    _devices: frozenset[str] | None
    _error: str | None
    _held: int
    """How many references aimeter itself holds while the call is open: that of the queue, until the books have it."""
    _id: str
    _notes: dict[str, object]
    _parent: Call | weakref.ref[Call] | None
    _put: Callable[[Call | Pause], None]
    _record: Record
    _remarks: dict[str, object]
    _status: str
    _thread: threading.Thread | None
    _token: Token[Call | None] | None
    _weight: float | None

    def __init__(
        self,
        meter: Meter,
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
            if _references(self) <= _BY_HAND:
                self._by_hand = True
            self._parent = around
            self._token = _set_current(self)
            self._thread = _thread_of(_get_ident())
            sampler = self._meter.sampler
            put = self._put = sampler.put
            self._start = sampler.now()
            put(self)
            if not sampler.ready:
                sampler.attend()
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
                    self._attend()
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
            self._attend()
        except BaseException as interruption:
            self._break_off(interruption)
            raise

    def _synchronise(self) -> None:
        fault = asynchronous.wait_for_devices()
        if fault is not None:
            self.remark("sync", fault)

    def pause(self, *, suspended: bool) -> None:
        """Note that a generator's consumer holds it suspended from now on, or resumes it."""
        self._put(Pause(self, self._meter.sampler.now(), suspended))
        self._attend()

    def _attend(self) -> None:
        sampler = self._meter.sampler
        if not sampler.ready and not self.foreign:
            sampler.attend()

    def _break_off(self, interruption: BaseException) -> None:
        """End the call now: a signal handler raised in the middle of `__enter__` or `__exit__`.

        Which events were queued before is unknown, so there may be too many now; the ledger passes over those.
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

    def strangers(self) -> int:
        """Return how many references to the call there are beside those of the books; to be called as ``one.call.…``."""
        return _references(self) - _FORGOTTEN - self._held

    def holds(self) -> list[Call]:
        """Return the calls around it that this one holds, one as often as there are references."""
        token: Token[Call | None] | None = getattr(self, "_token", None)
        held = getattr(self, "_parent", None), None if token is None else token.old_value
        return [one for one in held if isinstance(one, Call)]

    def is_left(self) -> bool:
        """Return whether only the context in which it is current holds the call; it is ended then.

        To be called as ``around.is_left()`` on a variable.
        """
        if self._end is None and _references(self) <= _LEFT + getattr(self, "_held", 1) and not self.by_hand:
            self.give_up()
        return self._end is not None

    @property
    def by_hand(self) -> bool:
        """Whether nobody held the call when it began: it is to be ended by way of `current_call`."""
        return getattr(self, "_by_hand", False)

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

    def hold(self, references: int) -> None:
        """Note how many references to the call the books hold."""
        self._held = references

    @property
    def foreign(self) -> bool:
        """Whether the call is not for this process to settle: the one that it was forked from began it."""
        return getattr(self, "_put", None) is not self._meter.sampler.enqueue

    @property
    def booked(self) -> bool:
        """Whether the ledger has closed the call; later events of it mean nothing."""
        return getattr(self, "_booked", False)

    def book(self) -> None:
        """Note that the ledger has closed the call."""
        self._booked = True

    # What the caller adds

    def count(
        self,
        *,
        items: float | None = None,
        images: float | None = None,
        tokens_in: float | None = None,
        tokens_out: float | None = None,
        steps: float | None = None,
        audio_s: float | None = None,
    ) -> None:
        """Add to the call's counts, in as many steps as it takes; each is 0 or more.

        Raises:
            TypeError: If a count is not a number.
            ValueError: If it is negative or not finite.
        """
        if self._late("count"):
            return
        given = (items, images, tokens_in, tokens_out, steps, audio_s)
        counts = self._counts = self.counts
        for key, value in zip(COUNTS, given, strict=True):
            if value is not None:
                counts[key] = (counts.get(key) or 0) + check_count(key, value)

    def note(self, **notes: object) -> None:
        """Attach facts to the row: ``model`` has a column, everything else goes into ``meta``.

        They are copied as plain values, at most 1,000 in a note, 20 levels deep and 10,000 characters long: what JSON
        lacks becomes text.
        """
        if not self._late("note"):
            self._notes = {**self.notes, **{key: plain(value) for key, value in notes.items()}}

    def remark(self, key: str, value: object) -> None:
        """Add a remark of aimeter's own to ``meta["aimeter"]``."""
        self._remarks = {**self.remarks, key: value}

    def _late(self, what: str) -> bool:
        if self.settled is None:
            return False
        self._meter.warn_once(
            f"late-{what}",
            f"{what}() came after the row of a call named {self.name!r} had been written and was ignored: "
            "call it inside the block.",
        )
        return True

    def per(self, unit: str) -> float | None:
        """Return joules per unit of one of the counts, e.g. ``per("images")``; None if either is unknown.

        Raises:
            ValueError: If there is no such count.
        """
        if unit not in COUNTS:
            message = (
                f"unknown count {unit!r}: choose one of {', '.join(COUNTS)}.{did_you_mean(unit, COUNTS)}"
            )
            raise ValueError(message)
        count, energy = self.counts.get(unit), self.energy_j
        return energy / count if count and energy is not None else None

    def limit(self, weight: float | None, devices: frozenset[str] | None) -> Self:
        """Set the call's weight and devices, before it begins, and return it."""
        self._weight, self._devices = weight, devices
        return self

    # What the call knows of itself

    @property
    def name(self) -> str:
        """What the call is called in the log."""
        name = self._name
        return name if isinstance(name, str) else _name_of(name)

    @property
    def meter(self) -> Meter:
        """The meter that the call belongs to."""
        return self._meter

    @property
    def counts(self) -> dict[str, float | None]:
        """What has been counted so far, by name."""
        return getattr(self, "_counts", None) or {}

    @property
    def notes(self) -> dict[str, object]:
        """What the caller noted so far."""
        return getattr(self, "_notes", None) or {}

    @property
    def remarks(self) -> dict[str, object]:
        """Remarks of aimeter's own on the call."""
        return getattr(self, "_remarks", None) or {}

    @property
    def weight(self) -> float | None:
        """Weight among the calls that share a device; None if it is as that of the call around, else 1."""
        return getattr(self, "_weight", None)

    @property
    def devices(self) -> frozenset[str] | None:
        """Devices that the call says it uses; None if they are as those of the call around, else all."""
        return getattr(self, "_devices", None)

    @property
    def thread(self) -> str:
        """Name of the thread that began the call; empty if Python does not know the thread."""
        thread: threading.Thread | None = getattr(self, "_thread", None)
        return "" if thread is None else thread.name

    @property
    def ended(self) -> bool:
        """Whether the end has been stamped."""
        return self._end is not None

    @property
    def settled(self) -> Record | None:
        """The final row, if it is there yet; never waits."""
        return getattr(self, "_record", None)

    def settle(self, record: Record) -> None:
        """Make the call's row final; from now on the call keeps those around it alive no more."""
        self._record = record
        if self._end is not None:  # and so the books have closed it
            self._token = None
            parent = getattr(self, "_parent", None)
            if isinstance(parent, Call):
                self._parent = weakref.ref(parent)

    @property
    def call_id(self) -> str:
        """Unique identifier of the call, as in its row."""
        try:
            return self._id
        except AttributeError:
            fresh = self._meter.next_id()
        try:
            return self._id  # of another thread, or a signal handler, that asked meanwhile
        except AttributeError:
            self._id = fresh
        return fresh

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

    @property
    def status(self) -> str:
        """``open``, ``ok``, ``error`` or ``closed``."""
        given: str | None = getattr(self, "_status", None)
        if given is not None:
            return given
        if self._end is None:
            return "open"
        return "ok" if self.error_type is None else "error"

    @property
    def error_type(self) -> str | None:
        """Name of the exception that ended the call."""
        return getattr(self, "_error", None)

    @property
    def start_s(self) -> float:
        """Start on the sampler's monotonic clock; minus infinity before the call began."""
        return -float("inf") if self._start is None else self._start

    @property
    def end_s(self) -> float:
        """End on the sampler's monotonic clock; infinity while the call is open."""
        return float("inf") if self._end is None else self._end

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, or until now."""
        if self._start is None:
            return 0.0
        return (self._meter.sampler.now() if self._end is None else self._end) - self._start

    @property
    def record(self) -> Record | None:
        """The row: final after the call, so far while it is open; None before it began."""
        settled = self.settled
        if settled is not None or self._start is None or self.foreign:
            return settled
        return self._meter.figures_of(self)

    def _figure(self, name: str) -> float | None:
        record = self.record
        value: float | None = None if record is None else getattr(record, name)
        return value

    @property
    def energy_j(self) -> float | None:
        """The call's share of the energy of all metered devices, in joules, its children's included."""
        return self._figure("energy_j")

    @property
    def error_j(self) -> float | None:
        """95 % half-width of `energy_j`: resolution and calibration together."""
        return self._figure("error_j")

    @property
    def resolution_j(self) -> float | None:
        """95 % half-width of what sampling and sensor steps leave open."""
        return self._figure("resolution_j")

    @property
    def self_j(self) -> float | None:
        """`energy_j` without what the call's children used."""
        return self._figure("self_j")

    @property
    def window_j(self) -> float | None:
        """All that the metered devices drew while the call was open."""
        return self._figure("window_j")

    @property
    def idle_j(self) -> float | None:
        """The part of `energy_j` that the devices would have drawn anyway."""
        return self._figure("idle_j")

    @property
    def gpu_j(self) -> float | None:
        """Share of the GPUs' energy in joules."""
        return self._figure("gpu_j")

    @property
    def cpu_j(self) -> float | None:
        """Share of the CPUs' energy in joules."""
        return self._figure("cpu_j")

    @property
    def dram_j(self) -> float | None:
        """Share of the memory's energy in joules."""
        return self._figure("dram_j")

    @property
    def other_j(self) -> float | None:
        """Share of the energy of other metered devices in joules."""
        return self._figure("other_j")

    @property
    def co2e_g(self) -> float | None:
        """Grams of CO2 equivalent."""
        return self._figure("co2e_g")

    @property
    def co2e_error_g(self) -> float | None:
        """Half-width of `co2e_g`, from the errors of the energy and of the intensity."""
        return self._figure("co2e_error_g")

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

    def _repr_html_(self) -> str | None:
        record = self.record
        return None if record is None else record._repr_html_()


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


def current_call() -> Call | None:
    """Return the innermost open call of this thread or task: for counts and notes inside a decorated function."""
    call = current.get()
    while call is not None and call.ended:
        call = call.parent
    return call
