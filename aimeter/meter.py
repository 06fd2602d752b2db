"""A meter: settings, a share in the process's sampler, and the places its rows go to."""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from aimeter._calls.arguments import Counts, checked, noted
from aimeter._calls.call import Call, UnmeteredCall, UnnamedCall, limited
from aimeter._meters import registry
from aimeter._meters.apart import Apart
from aimeter._meters.delivery import FLUSH_TIMEOUT_S, Delivery, deliver
from aimeter._sampling.sampler import Sampler
from aimeter._sampling.shared import sampler_id, shared_sampler
from aimeter._support.clocks import time
from aimeter._support.lifetime import when_dropped
from aimeter._support.notes import class_name
from aimeter._support.public import public
from aimeter._support.shield import shielded, shielding

from . import settings as settings_module
from ._wiring import accounting
from .errors import ConfigurationError
from .record import Record
from .sinks import Sink, open_log

if TYPE_CHECKING:
    from typing import Self, Unpack

    from aimeter._sampling.protocols import SteppedClock

    from .report.summary import Summary
    from .sensors.base import Clock, Finding, Sensor

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@public
class Meter:
    """Meters calls. Most programs need none of their own: `aimeter.track` uses the default one.

    Args:
        sensors: Meters to read instead of those found on this machine, of which no two channels have one id; a list of
            its own sampler.
        sinks: Further destinations of the rows, besides memory and `log`.
        clock: Monotonic clock in seconds; with `aimeter.testing.FakeClock` nothing runs in the background.
        **settings: Any field of `aimeter.settings.Settings`; they go before ``AIMETER_*`` variables and
            ``[tool.aimeter]`` in pyproject.toml.

    Raises:
        ConfigurationError: A setting is unknown or unusable, two channels have one id, or the log cannot be written.
    """

    # Locks are taken, which a signal handler that makes a meter of its own may not meet in this thread.
    @shielding
    def __init__(
        self,
        *,
        sensors: Iterable[Sensor] | None = None,
        sinks: Iterable[Sink] = (),
        clock: Clock | SteppedClock = time.perf_counter,
        **settings: object,
    ) -> None:
        self.token = uuid.uuid4().hex
        sensors, sinks = None if sensors is None else _told_apart(list(sensors)), list(sinks)
        self._arguments: dict[str, Any] = {"sensors": sensors, "sinks": sinks, **settings}
        if clock is not time.perf_counter:
            self._arguments["clock"] = clock
        self.settings = settings_module.load(settings)
        self.carbon = accounting(self.settings)
        self.source: Callable[[], Meter] = self._itself
        logs: list[Sink] = []
        if self.settings.log is not None:
            log = open_log(self.settings.log, self.settings.log_conflict)
            logs.append(log)
            when_dropped(self, log.close)
        self.kind: type[Call] = Call if self.settings.enabled else UnmeteredCall
        self.unnamed: type[Call] = UnnamedCall if self.settings.enabled else UnmeteredCall
        self._own_sampler = sensors is not None
        self.sampler = _sampler_of(sensors, self.settings, clock)
        self._ids = _new_ids(self.sampler)
        self.synchronise = self.settings.sync == "auto"
        self._in_step = hasattr(clock, "attach")  # then nothing runs in the background
        foreign = [self._apart(sink) for sink in sinks]
        self.delivery = Delivery(self.sampler, self.carbon, self.settings, [*logs, *foreign])
        self.sampler.deliver_to(deliver)
        self.retired = False
        registry.enter(self)
        if self.settings.enabled:
            # Loaded here, before the sampler's thread begins: a fork in the middle of its imports would leave the
            # child with half a module. And at exit an import that runs code would change the exit status of a
            # program that SIGINT ends (python/cpython, `unhandled_keyboard_interrupt`).
            from ._attribution import attribution, rows, shares  # noqa: F401, PLC0415
            from ._curve import calibration, power_windows, trace  # noqa: F401, PLC0415

            if sensors is None:
                from .sensors import discover  # noqa: F401, PLC0415
            self.sampler.ensure_running()
            if self.carbon.feed is not None:
                self.carbon.feed.want()

    def next_id(self) -> str:
        """Return an identifier that no other call has, in this process or another."""
        return next(self._ids)

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

    @shielding
    def records(self) -> list[Record]:
        """Return the newest settled rows, oldest first, after settling every call that has ended."""
        self.flush()
        return self.delivery.records()

    @shielding
    def summary(self) -> Summary:
        """Return a table by name over all calls so far, for a terminal or a notebook."""
        self.flush()
        return self.delivery.summary()

    def export_csv(self, path: str | os.PathLike[str]) -> int:
        """Write the rows in memory to `path`, replacing it, and return their number.

        Raises:
            OSError: The file cannot be written.
        """
        from aimeter.logs.export import export_csv  # noqa: PLC0415 - only exports need it

        records = self.records()
        export_csv(records, Path(path))
        return len(records)

    @shielding
    def unattributed_j(self) -> dict[str, float]:
        """Return the joules of each channel that were drawn while no call was open, between the calls so far."""
        self.flush()
        drawn = self.sampler.unattributed_j()
        result: dict[str, float] = {}
        for trace, joules in zip(self.sampler.readers.traces, drawn, strict=False):
            result[trace.channel.id] = result.get(trace.channel.id, 0.0) + joules
        return result

    @property
    def findings(self) -> list[Finding]:
        """What looking for sensors found, and which of them are not used, as another's figure covers their devices."""
        return self.sampler.search.findings

    @shielding
    def add_sink(self, sink: Sink) -> None:
        """Have rows written to one more sink from now on, as those are that were given to the constructor.

        Adding one again changes nothing.

        Raises:
            TypeError: It has not the methods of a sink.
        """
        if not isinstance(sink, Sink):
            message = f"{sink!r} is no sink: it needs the methods and attributes of aimeter.sinks.Sink"
            raise TypeError(message)
        self.delivery.add(sink, self._apart)

    @property
    def lost_rows(self) -> int:
        """Rows that a sink had to give up, and calls that could not be metered."""
        return self.sampler.intake.lost_calls + self.delivery.lost_rows

    @shielding
    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Settle and write every call that has ended, waiting for slow sensors up to `timeout_s`."""
        self.delivery.flush(timeout_s)

    @shielding
    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Flush, write calls that are still open with status ``open``, and release everything.

        A call that was written as open keeps that row. Calls may still be made later; they are settled when
        they end, but no thread is kept for them. Closing again is harmless.
        """
        self.flush(timeout_s)
        registry.retire(self)
        self.delivery.write_open(call for call in self.sampler.open_calls() if call.meter is self)
        self.delivery.close()
        if self._own_sampler:
            self.sampler.close()
        elif not registry.is_wanted(self.sampler):
            self.sampler.let_go()

    @shielding
    def hand_over(self) -> None:
        """Flush and let go of the log, which opens again for the calls that are still open when they end."""
        self.flush()
        registry.retire(self)
        self.delivery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Copies

    def _itself(self, _: object = None) -> Meter:
        """Return the meter, for a copy, too: what is metered goes to one place."""
        return self

    __copy__ = __deepcopy__ = _itself

    def __reduce__(self) -> tuple[Callable[..., Meter], tuple[object, ...]]:
        """Be made anew in another process, by the same arguments; there is one for each meter pickled, however often."""
        if self.source != self._itself:
            return self.source, ()  # whatever is the default meter there
        return _unpickle, (self.token, self._arguments)

    def take_over(self, before: Meter) -> None:
        """Go on with the records and the summary of another meter, and with those of its calls that are still open."""
        self.sampler.intake.go_on_from(before.sampler.intake)
        self.delivery.go_on_from(before.delivery, self.settings.memory_rows)

    def _apart(self, sink: Sink) -> Sink | Apart:
        return sink if self._in_step else Apart(sink, self.sampler.warn_once)

    # Asked by calls and by the sampler

    @shielding
    def figures_of(self, call: Call) -> Record | None:
        """Return a call's row: final if it has ended, else so far. Waits for the sensors, but never long."""
        return self.delivery.figures_of(call)

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""
        self.sampler.warn_once(key, message)

    def after_fork(self) -> None:
        """In a forked child: rows, files and identifiers of its own."""
        self._ids = _new_ids(self.sampler)
        self.carbon.after_fork()
        self.delivery.after_fork()


def _unpickle(token: str, arguments: dict[str, Any]) -> Meter:
    """Return this process's meter in place of one that was pickled: itself, if it is of this process."""
    return shielded(lambda: registry.with_token(token, lambda: Meter(**arguments)))


def _told_apart(sensors: list[Sensor]) -> list[Sensor]:
    """Return the sensors if no two of their channels have one id: figures are kept by it."""
    owners: dict[str, str] = {}
    for sensor in sensors:
        owner = class_name(type(sensor))
        for channel in getattr(sensor, "channels", ()):  # of what is no sensor the sampler tells
            if channel.id in owners:
                message = (
                    f"sensors: the channel id {channel.id!r} is used twice, by {owners[channel.id]} and {owner}: "
                    "give each channel an id of its own, such as 'other:0' and 'other:1'."
                )
                raise ConfigurationError(message)
            owners[channel.id] = owner
    return sensors


def _sampler_of(
    sensors: list[Sensor] | None, settings: settings_module.Settings, clock: Clock | SteppedClock
) -> Sampler:
    if sensors is None:
        return shared_sampler(settings, clock)
    return Sampler(
        lambda: (sensors, []),
        calibration=settings.calibration,
        clock=clock,
        interval_s=settings.interval_s,
    )


def _new_ids(sampler: Sampler) -> Iterator[str]:
    """Return identifiers of calls without end, none of which any other iterator gives."""
    # The first part is common to all calls that are divided among each other: by it a log tells processes apart.
    prefix = sampler_id(sampler) + uuid.uuid4().hex[:8]
    return map(f"{prefix}-{{}}".format, itertools.count(1))


_caller = sys._getframe  # noqa: SLF001 - inspect.stack() reads source files
