"""The default meter: what `aimeter.track` and its neighbours use, made at the first use."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ParamSpec, TypeVar, overload

from aimeter._calls.arguments import Counts, checked, noted
from aimeter._calls.call import Call, UnnamedCall, limited
from aimeter._calls.decorate import decorate, name_of
from aimeter._support.lifetime import after_fork_in_child
from aimeter._support.log import warn_once
from aimeter._support.public import public
from aimeter._support.shield import shielded
from aimeter.errors import ConfigurationError
from aimeter.meter import Meter
from aimeter.report.tally import Tally

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack

    from aimeter.record import Record
    from aimeter.report.summary import Summary
    from aimeter.sinks.base import Sink

P = ParamSpec("P")
R = TypeVar("R")

_caller = sys._getframe  # noqa: SLF001 - inspect.stack() reads source files
_lock = threading.RLock()  # reentrant: a signal handler may make a call while the first one's meter is made
_meter: Meter | None = None


@public
def default_meter() -> Meter:
    """Return the default meter; made with the settings found if there is none yet."""
    return _meter if _meter is not None else configure()


@public
def configure(**settings: object) -> Meter:
    """Make the default meter anew with these settings; calls of the one before keep its settings and its log.

    `aimeter.records` and `aimeter.summary` go on with what they had.

    Args:
        **settings: Any field of `aimeter.settings.Settings`, such as ``log="calls.csv"`` and ``region="FR"``.

    Raises:
        ConfigurationError: A setting is unknown or unusable, or the log cannot be written.
    """
    return shielded(lambda: _configure(settings))


def _configure(settings: dict[str, object]) -> Meter:
    global _meter
    with _lock:
        if _meter is not None and not settings:
            return _meter
        fresh = Meter(**settings)  # type: ignore[arg-type]
        fresh.source = default_meter
        if _meter is not None:
            fresh.take_over(_meter)
        before, _meter = _meter, fresh
    if before is not None:
        before.hand_over()
    return fresh


@overload
def track(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def track(
    name: str | None = None,
    /,
    *,
    model: str | None = None,
    weight: float | None = None,
    devices: str | Iterable[str] | None = None,
    **counts: Unpack[Counts],
) -> Call: ...
@public
def track(
    name: str | Callable[..., object] | None = None,
    /,
    *,
    model: str | None = None,
    weight: float | None = None,
    devices: str | Iterable[str] | None = None,
    **counts: Unpack[Counts],
) -> object:
    """Meter a block, or every invocation of a function, with the default meter; see `Meter.track`."""
    meter = _meter
    if meter is None:
        made = _before_there_is_a_meter(name, model, counts)
        return made if weight is None and devices is None else limited(made, weight, devices)
    # As in Meter.track, which would cost one call more.
    if weight is None and devices is None:
        if name.__class__ is str:
            if not counts and model is None:
                return meter.kind(meter, name)
            return meter.kind(meter, name, checked(counts), None if model is None else noted(model))
        frame = _caller(1)
        if name is None and not counts and model is None:
            return meter.unnamed(meter, (frame.f_code, frame.f_lasti))
        return meter.make(name, model, counts, frame)
    return limited(meter.make(name, model, counts, _caller(1)), weight, devices)


class _Later:
    """What a call holds for a meter until it begins: the default meter, made when something is asked of it.

    Decorators run while modules are imported, before the program can say `configure(...)`.
    """

    @staticmethod
    def source() -> Meter:
        return _meter_or_later()

    def call(
        self, name: str, counts: dict[str, float | None] | None = None, notes: dict[str, object] | None = None
    ) -> Call:
        return _DeferredCall(_later, name, dict(counts) if counts else None, notes or None)

    def next_id(self) -> str:
        meter = _meter_or_later()
        return uuid.uuid4().hex if meter is _later else meter.next_id()

    def records(self) -> list[Record]:
        return []

    def summary(self) -> Summary:
        return Tally().summary()

    def __getattr__(self, name: str) -> object:
        return getattr(default_meter(), name)


_later: Meter = _Later()  # type: ignore[assignment]  # which it stands for


def _meter_or_later() -> Meter:
    """Return the default meter, or what stands for it as long as none can be made, as at the limit of open files."""
    try:
        return default_meter()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the program goes on without figures
        warn_once(f"Calls are not metered as long as making the meter raises {error!r}.")
    return _later


class _DeferredCall(Call):
    """A call made before there was a default meter; it takes the one that there is when it begins."""

    __slots__ = ()

    def __enter__(self) -> Self:
        meter = _meter_or_later()
        if meter is _later or not meter.settings.enabled:
            return self
        self._meter = meter
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._start is not None:
            super().__exit__(kind, error, trace)

    def finish(self, status: str, error: str | None) -> None:
        if self._start is not None:
            super().finish(status, error)

    def pause(self, *, suspended: bool) -> None:
        if self._start is not None:
            super().pause(suspended=suspended)


class _DeferredUnnamedCall(_DeferredCall, UnnamedCall):
    """The same without a name."""

    __slots__ = ()


def _before_there_is_a_meter(
    name: str | Callable[..., object] | None, model: str | None, counts: Counts
) -> object:
    """Return what track() returns, without making the meter yet."""
    notes = noted(model)
    if isinstance(name, str):
        return _DeferredCall(_later, name, checked(counts) or None, notes)
    if name is None:
        frame = _caller(2)
        return _DeferredUnnamedCall(_later, (frame.f_code, frame.f_lasti), checked(counts) or None, notes)
    if callable(name) or isinstance(name, classmethod):
        label = name_of(name)
        return decorate(name, lambda: _meter_or_later().call(label))
    return default_meter().make(name, model, counts, _caller(2))  # which raises, and says why


@public
def records() -> list[Record]:
    """Return the newest settled rows of the default meter, oldest first."""
    return _meter_or_later().records()


@public
def summary() -> Summary:
    """Return a table by name over all calls of the default meter."""
    return _meter_or_later().summary()


@public
def add_sink(sink: Sink) -> None:
    """Have the default meter's rows written to one more sink from now on, however it is configured later.

    Raises:
        TypeError: It has not the methods of a sink.
    """
    default_meter().add_sink(sink)


@public
def export_csv(path: str | os.PathLike[str]) -> int:
    """Write the rows that the default meter holds in memory to `path`, and return their number."""
    return default_meter().export_csv(path)


@public
def flush() -> None:
    """Settle and write every call of the default meter that has ended."""
    if _meter is not None:
        _meter.flush()


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
