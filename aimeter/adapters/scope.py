"""Whose calls are metered, and the metered call that is going on: what handlers work with.

A handler begins like this; without a scope the call is none that is to be metered, or a part of one that is.

    scope = begin(self, "encode")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        scope.note(**describe(self))
    with scope:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            scope.call.count(items=len(result))
        return result
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from aimeter._calls.call import Call, current
from aimeter._support.log import warn_once
from aimeter._support.notes import class_name

from .kinship import kin_of
from .sessions import Session, attached, session_of

if TYPE_CHECKING:
    from typing import Self

    from aimeter._calls.protocols import Host

_scope: ContextVar[Scope | None] = ContextVar("aimeter_scope", default=None)


def current_scope() -> Scope | None:
    """Return the innermost metered call of an adapter that is going on in this thread or task."""
    scope = _scope.get()
    return None if scope is None or scope.call.ended else scope


def begin(subject: object, name: str) -> Scope | None:
    """Return a scope for a call of `subject`, not entered yet; None if it gets no row of its own.

    What runs inside another metered call is a part of that, unless it was attached itself.
    """
    session = session_of(subject)
    if session is None:
        if attached and current_scope() is None:
            _say_if_kin(subject)
        return None
    around = current_scope()
    if around is not None and (not session.explicit or around.subject == id(subject)):
        return None
    try:
        meter = session.source()
    except Exception as error:  # noqa: BLE001 - as at the limit of open files; the program goes on without figures
        warn_once(f"no call is metered: {error}")
        return None
    if not meter.settings.enabled:
        return None
    return Scope(meter, session, subject, name)


def _say_if_kin(subject: object) -> None:
    how = kin_of(subject)
    if how is not None:
        kind = type(subject).__name__
        warn_once(
            f"A {kind} that is not attached is called, and leaves no row, though {how}: give it to aimeter.attach."
        )


class Scope:
    """One metered call of an object of some framework. Use it with ``with``, once.

    Attributes:
        call: The `aimeter.Call` of the row: ``scope.call.count(items=2, tokens_out=7)``.
    """

    __slots__ = (
        "_outer",
        "_outer_call",
        "_part",
        "_step",
        "_steps_left",
        "call",
        "counted",
        "generated",
        "meter",
        "pictures",
        "session",
        "subject",
    )  # fmt: skip

    def __init__(self, meter: Host, session: Session, subject: object, name: str) -> None:
        self.meter = meter
        self.session = session
        self.subject = id(subject)
        self.call: Call = meter.call(session.name or name)
        self.generated = 0
        """How often tokens were generated, and counted, in this call."""
        self.counted = False
        """Whether items have been counted."""
        self.pictures = False
        """Whether each item is a picture that the model reads in several passes."""
        self._part: Call | None = None
        self._step: Call | None = None
        self._steps_left = 0
        self._outer: Scope | None = None
        self._outer_call: Call | None = None

    def __enter__(self) -> Self:
        self._outer, self._outer_call = _scope.get(), current.get()
        self.call.__enter__()
        _scope.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_part(error)
        self.call.__exit__(kind, error, trace)
        _scope.set(self._outer)

    # What a result that is consumed later needs; between its steps the consumer's own calls are no children.

    def suspend(self) -> None:
        """Hand over to the consumer of a lazy result; time goes on, but no energy is charged."""
        _scope.set(self._outer)
        current.set(self._outer_call)
        self.call.pause(suspended=True)

    def resume(self) -> None:
        """Go on with the call, in whichever thread or task its consumer is now."""
        self._outer, self._outer_call = _scope.get(), current.get()
        _scope.set(self)
        current.set(self.call)
        self.call.pause(suspended=False)

    def finish(self, status: Literal["ok", "error", "closed"], error: BaseException | None = None) -> None:
        """End a call that was resumed, or suspended and given up."""
        self.end_part(error)
        self.call.finish(status, None if error is None else class_name(type(error)))
        if _scope.get() is self:
            _scope.set(self._outer)
            current.set(self._outer_call)

    def count_generated(self, *, tokens_in: float | None, tokens_out: float | None) -> None:
        """Count what was generated, in the calls around this one, too: a pipeline's, whose model is attached itself."""
        scope: Scope | None = self
        while scope is not None and not scope.call.ended:
            scope.call.count(tokens_in=tokens_in, tokens_out=tokens_out)
            scope.generated += 1
            scope = scope._outer  # noqa: SLF001 - of its own kind

    # Parts

    @property
    def divided(self) -> bool:
        """Whether a part is going on."""
        return self._part is not None

    def part_is(self, kind: str) -> bool:
        """Return whether the part of that kind is going on."""
        return self._part is not None and self._part.name == f"{self.call.name}.{kind}"

    def part(self, kind: str) -> Call:
        """Begin a child row for a part of the call, which ends the one before."""
        self.end_part()
        model = self.call.notes.get("model")
        part: Call = self.meter.call(
            f"{self.call.name}.{kind}",
            None,
            None if model is None else {"model": model},
        )
        part.__enter__()
        self._part = part
        return part

    def end_part(self, error: BaseException | None = None) -> None:
        """End the part that is going on, if any."""
        self.end_steps(error)
        part, self._part = self._part, None
        if part is not None:
            part.__exit__(None if error is None else type(error), error, None)

    def count_part(self, **counts: float | None) -> None:
        """Add to the counts of the part that is going on."""
        if self._part is not None:
            self._part.count(**counts)

    def rename_part(self, kind: str) -> None:
        """Call the part that is going on otherwise: it turned out to be something else."""
        if self._part is not None:
            self._part.rename(f"{self.call.name}.{kind}")

    # Steps

    def begin_steps(self, number: int) -> None:
        """Begin the first child row of so many equal steps."""
        self.end_steps()
        self._steps_left = number
        self.next_step()

    def next_step(self) -> None:
        """End a step, and begin another one if there are any left."""
        step, self._step = self._step, None
        if step is not None:
            step.__exit__(None, None, None)
        if self._steps_left > 0:
            self._steps_left -= 1
            self._step = self.meter.call(f"{self.call.name}.step", {"steps": 1})
            self._step.__enter__()

    def end_steps(self, error: BaseException | None = None) -> None:
        """End the step that is going on, if any: the loop is over."""
        self._steps_left = 0
        step, self._step = self._step, None
        if step is not None:
            step.__exit__(None if error is None else type(error), error, None)

    # Facts

    def note(self, **labels: object) -> None:
        """Attach labels to the row; those that are None are unknown and left out."""
        known = {key: value for key, value in labels.items() if value is not None}
        if self.session.model is not None:
            known["model"] = self.session.model
        if known:
            self.call.note(**known)

    def guard(self, what: str) -> Guard:
        """Keep faults in finding labels or counts from the caller: one warning, and the row goes without."""
        return Guard(f"{self.call.name}: {what}")


class Guard:
    """Swallows what goes wrong in aimeter's own looking at arguments and results."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        # The name of the error only: its text may hold a prompt.
        warn_once(f"{self._what} could not be found ({kind.__name__}) and are missing from rows.")
        return True
