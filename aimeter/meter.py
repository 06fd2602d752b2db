"""A meter: settings, a share in the process's sampler, and the places its rows go to."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from aimeter._calls.arguments import Counts, checked, noted
from aimeter._calls.call import Call, UnmeteredCall, UnnamedCall, limited
from aimeter._sampling.sampler import Sampler, retire_all
from aimeter._sampling.shared import pace, sampler_id, shared_sampler
from aimeter._support.clocks import time
from aimeter._support.lifetime import after_fork_in_child, at_exit, reach_children, when_dropped
from aimeter._support.public import public
from aimeter._support.shield import shielded

from . import settings as settings_module
from ._version import __version__
from ._wiring import accounting
from .record import Record
from .sinks import open_log
from .sinks.memory import MemorySink

if TYPE_CHECKING:
    from typing import Self, Unpack

    from aimeter._attribution.figures import Figures
    from aimeter._attribution.rows import Context
    from aimeter._sampling.protocols import SteppedClock

    from .report.summary import Summary
    from .report.tally import Tally
    from .sensors.base import Clock, Finding, Sensor
    from .sinks.base import Sink

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

FLUSH_TIMEOUT_S = 2.0
"""How long flushing, and asking a finished call for its joules, waits for the sensors."""

SO_FAR_TIMEOUT_S = 0.25
"""How long asking an open call for its joules waits for a fresh reading."""

_MOST_NAMES = 10_000
"""Names that the running summary tells apart: memory is bounded, although a name may be made up for each call."""


@public
class Meter:
    """Meters calls. Most programs need none of their own: `aimeter.track` uses the default one.

    Args:
        sensors: Meters to read instead of those found on this machine; a list of its own sampler.
        sinks: Further destinations of the rows, besides memory and `log`.
        clock: Monotonic clock in seconds; with `aimeter.testing.FakeClock` nothing runs in the background.
        **settings: Any field of `aimeter.settings.Settings`; they go before ``AIMETER_*`` variables and
            ``[tool.aimeter]`` in pyproject.toml.

    Raises:
        ConfigurationError: A setting is unknown or unusable, or the log cannot be written.
    """

    def __init__(
        self,
        *,
        sensors: Iterable[Sensor] | None = None,
        sinks: Iterable[Sink] = (),
        clock: Clock | SteppedClock = time.perf_counter,
        **settings: object,
    ) -> None:
        # Locks are taken, which a signal handler that makes a meter of its own may not meet in this thread.
        shielded(lambda: self._make(sensors, sinks, clock, settings))

    def _make(
        self,
        sensors: Iterable[Sensor] | None,
        sinks: Iterable[Sink],
        clock: Clock | SteppedClock,
        settings: dict[str, object],
    ) -> None:
        self.token = uuid.uuid4().hex
        sensors, sinks = None if sensors is None else list(sensors), list(sinks)
        self._arguments: dict[str, Any] = {"sensors": sensors, "sinks": sinks, **settings}
        if clock is not time.perf_counter:
            self._arguments["clock"] = clock
        self.settings = settings_module.load(settings)
        self.carbon = accounting(self.settings)
        self.source: Callable[[], Meter] = self._itself
        self._memory = MemorySink(self.settings.memory_rows)
        self._sinks: list[Sink] = [self._memory, *sinks]
        if self.settings.log is not None:
            log = open_log(self.settings.log, self.settings.log_conflict)
            self._sinks.append(log)
            when_dropped(self, log.close)
        self.kind: type[Call] = Call if self.settings.enabled else UnmeteredCall
        self.unnamed: type[Call] = UnnamedCall if self.settings.enabled else UnmeteredCall
        self._own_sampler = sensors is not None
        self.sampler = self._sampler(sensors, clock)
        self._new_ids()
        self.synchronise = self.settings.sync == "auto"
        self.sampler.deliver_to(_deliver)
        self._tally = _new_tally()
        self.unbuilt_rows = 0
        self.retired = False
        _meters.add(self)
        pace(self.sampler, _meters)
        reach_children()
        if self.settings.enabled:
            # Loaded here, before the sampler's thread begins: a fork in the middle of its imports would leave the
            # child with half a module. And at exit an import that runs code would change the exit status of a
            # program that SIGINT ends (python/cpython, `unhandled_keyboard_interrupt`).
            from ._attribution import attribution, rows, shares  # noqa: F401, PLC0415
            from ._curve import calibration, trace  # noqa: F401, PLC0415

            if sensors is None:
                from .sensors import discover  # noqa: F401, PLC0415
            self.sampler.ensure_running()
            if self.carbon.feed is not None:
                self.carbon.feed.want()

    def _sampler(self, sensors: Iterable[Sensor] | None, clock: Clock | SteppedClock) -> Sampler:
        if sensors is not None:
            fixed = list(sensors)
            return Sampler(
                lambda: (fixed, []),
                calibration=self.settings.calibration,
                clock=clock,
                interval_s=self.settings.interval_s,
            )
        return shared_sampler(self.settings, clock)

    def _new_ids(self) -> None:
        # The first part is common to all calls that are divided among each other: by it a log tells processes apart.
        self._prefix = sampler_id(self.sampler) + uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def next_id(self) -> str:
        """Return an identifier that no other call has, in this process or another."""
        return f"{self._prefix}-{next(self._numbers)}"

    # Metering

    @overload
    def track(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def track(
        self,
        name: str | None = None,
        /,
        *,
        model: str | None = None,
        weight: float | None = None,
        devices: str | Iterable[str] | None = None,
        **counts: Unpack[Counts],
    ) -> Call: ...
    def track(
        self,
        name: str | Callable[..., object] | None = None,
        /,
        *,
        model: str | None = None,
        weight: float | None = None,
        devices: str | Iterable[str] | None = None,
        **counts: Unpack[Counts],
    ) -> object:
        """Meter a block, or every invocation of a function.

        ``with meter.track("image-gen", images=4) as call:``, ``async with``, ``@meter.track`` and
        ``@meter.track("summarise")`` on functions, methods, coroutines, generators and async generators.

        Args:
            name: What the call is called in the log; by default the function's name, or the place in the code.
            model: Name of the model, for the column of that name.
            weight: How much the call gets, relative to the others, of what it shares with them: 0.001 to 1,000.
                By default that of the call around it, else 1.
            devices: Devices that the call uses, so that it gets no part of the others: kinds (``"gpu"``), ids
                (``"gpu:0"``) or heads of a GPU's UUID, one or several; of those of the call around it, if there
                is one. By default all of these.
            **counts: Any of `aimeter.record.COUNTS`; more can be added inside the block with `Call.count`.

        Returns:
            The call, or the metered function if one was given.

        Raises:
            TypeError: The name is no text, a count is unknown or no number, or a class was decorated.
            ValueError: A count is negative or not finite, a weight out of range, or no device has such a name.
        """
        if weight is None and devices is None:
            if name.__class__ is str:
                if not counts and model is None:
                    return self.kind(self, name)
                return self.kind(self, name, checked(counts), None if model is None else noted(model))
            frame = _caller(1)
            if name is None and not counts and model is None:
                return self.unnamed(self, (frame.f_code, frame.f_lasti))
            return self.make(name, model, counts, frame)
        return limited(self.make(name, model, counts, _caller(1)), weight, devices)

    def make(
        self,
        name: str | Callable[..., object] | None,
        model: str | None,
        counts: Counts,
        frame: FrameType,
    ) -> object:
        """Return what `track` does in less common cases; `frame` is its caller's."""
        given = checked(counts)
        notes = noted(model)
        if isinstance(name, str):
            return self.kind(self, name, given, notes)
        if name is None:
            return self.unnamed(self, (frame.f_code, frame.f_lasti), given, notes)
        return self._decorate(name)

    def _decorate(self, name: object) -> object:
        from aimeter._calls.decorate import decorate, name_of  # noqa: PLC0415 - only decorators need it

        if callable(name) or isinstance(name, classmethod):
            meter, label = self.source, name_of(name)  # type: ignore[arg-type]
            return decorate(name, lambda: meter().call(label))  # type: ignore[arg-type]
        message = f"track() takes a name or a function, not {name!r}: with track('image-gen'): ..."
        raise TypeError(message)

    def call(
        self, name: str, counts: dict[str, float | None] | None = None, notes: dict[str, object] | None = None
    ) -> Call:
        """Return a new call, for decorators and integrations."""
        return self.kind(self, name, dict(counts) if counts else None, notes or None)

    def attach(
        self,
        subject: T,
        /,
        name: str | None = None,
        *,
        model: str | None = None,
        parts: bool = True,
        steps: bool = False,
    ) -> T:
        """Meter every call of a pipeline or model with this meter; see `aimeter.attach`."""
        from aimeter.adapters.attach import attach  # noqa: PLC0415 - only attached objects need it

        return attach(subject, name, model=model, parts=parts, steps=steps, meter=self)

    # Reading back

    def records(self) -> list[Record]:
        """Return the newest settled rows, oldest first, after settling every call that has ended."""
        return shielded(self._records)

    def _records(self) -> list[Record]:
        self._flush()
        return list(self._memory.records)

    def summary(self) -> Summary:
        """Return a table by name over all calls so far, for a terminal or a notebook."""
        return shielded(self._summary)

    def _summary(self) -> Summary:
        self._flush()
        with self.sampler.alone():
            return self._tally.summary()

    def export_csv(self, path: str | os.PathLike[str]) -> int:
        """Write the rows in memory to `path`, replacing it, and return their number.

        Raises:
            OSError: The file cannot be written.
        """
        from aimeter.logs.export import export_csv  # noqa: PLC0415 - only exports need it

        records = self.records()
        export_csv(records, Path(path))
        return len(records)

    def unattributed_j(self) -> dict[str, float]:
        """Return the joules of each channel that were drawn while no call was open, between the calls so far."""
        return shielded(self._unattributed_j)

    def _unattributed_j(self) -> dict[str, float]:
        self._flush()
        drawn = self.sampler.unattributed_j()
        result: dict[str, float] = {}
        for trace, joules in zip(self.sampler.readers.traces, drawn, strict=False):
            result[trace.channel.id] = result.get(trace.channel.id, 0.0) + joules
        return result

    @property
    def findings(self) -> list[Finding]:
        """What looking for sensors found."""
        return list(self.sampler.search.findings)

    @property
    def lost_rows(self) -> int:
        """Rows that a sink had to give up, and calls that could not be metered."""
        return (
            self.unbuilt_rows + self.sampler.intake.lost_calls + sum(sink.lost_rows for sink in self._sinks)
        )

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Settle and write every call that has ended, waiting for slow sensors up to `timeout_s`."""
        shielded(lambda: self._flush(timeout_s))

    def _flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        self.sampler.flush(timeout_s)
        self._while_alone(lambda: self._write(()))

    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Flush, write calls that are still open with status ``open``, and release everything.

        A call that was written as open keeps that row. Calls may still be made later; they are settled when
        they end, but no thread is kept for them. Closing again is harmless.
        """
        shielded(lambda: self._close(timeout_s))

    def _close(self, timeout_s: float) -> None:
        self._flush(timeout_s)
        self._retire()
        self._write_open_calls()
        self._while_alone(lambda: self._tell_sinks(lambda sink: sink.close()))
        if self._own_sampler:
            self.sampler.close()
        elif not any(meter.sampler is self.sampler and not meter.retired for meter in list(_meters)):
            self.sampler.let_go()

    def hand_over(self) -> None:
        """Flush and let go of the log, which opens again for the calls that are still open when they end."""
        shielded(self._hand_over)

    def _hand_over(self) -> None:
        self._flush()
        self._retire()
        self._while_alone(lambda: self._tell_sinks(lambda sink: sink.close()))

    def _retire(self) -> None:
        """Ask no more for an interval; the sampler goes on at what the others ask for."""
        self.retired = True
        pace(self.sampler, _meters)

    def _while_alone(self, act: Callable[[], None]) -> None:
        """Do something with the sinks, unless somebody keeps them for long or was interrupted by this."""
        with self.sampler.alone() as alone:
            if alone:
                act()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Copies

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the meter itself: what is metered goes to one place."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Meter], tuple[object, ...]]:
        """Be made anew in another process, by the same arguments; there is one for each meter pickled, however often."""
        if self.source != self._itself:
            return self.source, ()  # whatever is the default meter there
        return _unpickle, (self.token, self._arguments)

    def _itself(self) -> Meter:
        return self

    def take_over(self, before: Meter) -> None:
        """Go on with the records and the summary of another meter, and with those of its calls that are still open."""
        self._memory, self._tally = before._memory, before._tally
        self._memory.keep(self.settings.memory_rows)
        self._sinks[0] = self._memory

    # Asked by calls and by the sampler

    def figures_of(self, call: Call) -> Record | None:
        """Return a call's row: final if it has ended, else so far. Waits for the sensors, but never long."""
        return shielded(lambda: self._figures_of(call))

    def _figures_of(self, call: Call) -> Record | None:
        if call.ended:
            if not self.sampler.wait_for(lambda: call.settled is not None, FLUSH_TIMEOUT_S):
                self.sampler.settle(until_s=self.sampler.now(), timeout_s=SO_FAR_TIMEOUT_S)
            return call.settled
        return self._so_far([call])[0]

    def _so_far(self, calls: list[Call]) -> list[Record | None]:
        from aimeter._attribution.rows import build, so_far  # noqa: PLC0415 - loaded with the first figures

        found = self.sampler.so_far(calls, SO_FAR_TIMEOUT_S)
        with self.sampler.alone():
            context = self._context()
            return [
                None if some is None else build(so_far(call, *some, context), context)[0]
                for call, some in zip(calls, found, strict=True)
            ]

    def receive(self, figures: Figures) -> None:
        """Turn settled figures into rows and hand them to the sinks; the sampler is alone meanwhile."""
        # Calls that were written as open when the meter was closed keep that row.
        places = [place for place, call in enumerate(figures.calls) if call.settled is None]
        if len(places) < len(figures.calls):
            figures = figures.of(places)
        self._keep(figures.calls, self._build(figures))

    def _build(self, figures: Figures) -> list[Record | None]:
        from aimeter._attribution.rows import build  # noqa: PLC0415 - loaded with the first figures

        context = self._context()
        try:
            return [*build(figures, context)]
        except BaseException as error:  # noqa: BLE001 - a row holds the caller's objects, which may raise anything
            if len(figures.calls) > 1:
                one_by_one = (self._build(figures.of([place])) for place in range(len(figures.calls)))
                return [row for rows in one_by_one for row in rows]
            self.unbuilt_rows += 1
            name = figures.calls[0].name
            self.warn_once("row", f"a call named {name!r} has no row, as that raised {error!r}.")
            return [None]

    def _keep(self, calls: Sequence[Call], rows: Sequence[Record | None]) -> None:
        records = []
        for call, record in zip(calls, rows, strict=True):
            if record is not None:
                around = call.around
                call.settle(record)
                self._tally.add(record, after_parent=around is None or around.settled is not None)
                records.append(record)
        self._write(records)

    def _write(self, records: Sequence[Record]) -> None:
        self._tell_sinks(lambda sink: sink.write(records))

    def _tell_sinks(self, tell: Callable[[Sink], None]) -> None:
        for sink in self._sinks:
            try:
                tell(sink)
            except BaseException as error:  # noqa: BLE001 - the one boundary: a sink by somebody else may raise anything
                self.warn_once(
                    f"sink {type(sink).__name__}", f"the sink {type(sink).__name__} raised {error!r}."
                )

    def _context(self) -> Context:
        from aimeter._attribution.rows import Context, epoch_s  # noqa: PLC0415 - loaded with the first figures

        return Context(
            __version__,
            self.carbon,
            self.sampler.readers.traces,
            epoch_s(self.sampler.now()),
            self.sampler.cpu_s,
        )

    def _write_open_calls(self) -> None:
        calls = [call for call in self.sampler.open_calls() if call.meter is self and call.settled is None]
        if calls:
            rows = self._so_far(calls)
            self._while_alone(lambda: self._keep(calls, rows))

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""
        self.sampler.warn_once(key, message)

    def after_fork(self) -> None:
        """In a forked child: rows, files and identifiers of its own."""
        self._new_ids()
        self._tally = _new_tally()
        self.carbon.after_fork()
        self._tell_sinks(lambda sink: sink.reopen())


def _unpickle(token: str, arguments: dict[str, Any]) -> Meter:
    """Return this process's meter in place of one that was pickled: itself, if it is of this process."""
    return shielded(lambda: _of(token, arguments))


def _of(token: str, arguments: dict[str, Any]) -> Meter:
    with _lock:
        known = next((one for one in (*_unpickled, *_meters) if one.token == token), None)
        if known is None:
            known = Meter(**arguments)
            known.token = token
            _unpickled.append(known)
        return known


def _new_tally() -> Tally:
    from .report.tally import Tally  # noqa: PLC0415 - keeps the import light

    return Tally(most_names=_MOST_NAMES)


def _deliver(figures: Figures) -> None:
    """Give each meter its own figures."""
    places: dict[Meter, list[int]] = {}
    for place, call in enumerate(figures.calls):
        places.setdefault(cast("Meter", call.meter), []).append(place)
    for meter, own in places.items():
        meter.receive(figures if len(places) == 1 else figures.of(own))


_caller = sys._getframe  # noqa: SLF001 - inspect.stack() reads source files
_meters: weakref.WeakSet[Meter] = weakref.WeakSet()
_unpickled: list[Meter] = []
_lock = threading.RLock()  # reentrant: a signal handler may make a meter while one is made


@at_exit
def close_all() -> None:
    """Close every meter: at a normal exit nothing that has finished is lost."""
    end = time.monotonic() + FLUSH_TIMEOUT_S
    for meter in list(_meters):
        meter.close(max(end - time.monotonic(), 0.0))
    retire_all()


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
    for meter in list(_meters):
        meter.after_fork()
    reach_children()
