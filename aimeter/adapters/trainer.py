"""transformers' Trainer: joules of a run, and on request of each step."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aimeter._calls.context import default_meter
from aimeter._support.lifetime import when_dropped
from aimeter._support.log import warn_once

from . import patching
from .base import Adapter, Args, Hook, Kwargs, Original
from .labels import describe, version_of
from .scope import begin

if TYPE_CHECKING:
    from aimeter._calls.call import Call
    from aimeter._calls.protocols import Host


def callback(name: str = "train", *, steps: bool = False, meter: Host | None = None) -> Any:  # noqa: ANN401 - a TrainerCallback
    """Return a callback for ``Trainer(callbacks=[...])``: a row for each run of training.

    Args:
        name: Name of the row.
        steps: Add a child row for each optimizer step.
        meter: Meter of the calls; by default the default meter.

    Raises:
        ImportError: transformers is not installed.
    """
    from transformers.trainer_callback import TrainerCallback  # noqa: PLC0415 - who asks for it uses it

    source = default_meter if meter is None else meter.source
    made = _kind(TrainerCallback)(source, name, run=True, steps=steps)
    _watch(made)
    return made


_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_undo: list[Callable[[], None]] = []


def _watch(made: Any) -> None:  # noqa: ANN401 - a TrainerCallback
    """Have a callback told of exceptions, of which Trainer tells none, for as long as it exists."""
    from transformers.trainer import Trainer  # noqa: PLC0415 - as above

    _watched.add(made)
    undo = patching.replace(Trainer, "_inner_training_loop", _run)
    if undo is not None:
        _undo.append(undo)
    when_dropped(made, _unwatch)


def _unwatch() -> None:
    if not list(_watched):
        while _undo:
            _undo.pop()()


def _run(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Run a training, and end the rows of its callbacks if it raises."""
    try:
        return original(self, *args, **kwargs)
    except BaseException as error:
        for one in list(_watched):
            if any(one is other for other in self.callback_handler.callbacks):
                one.end(error)
        raise


def _kind(base: Any) -> Any:  # noqa: ANN401 - a class of a framework that cannot be imported here
    class Aimeter(base):  # type: ignore[misc]
        """Meters runs and steps."""

        def __init__(self, source: Callable[[], Host], name: str, *, run: bool, steps: bool) -> None:
            self._source, self._name = source, name
            self._run, self._steps = run, steps
            self._call: Call | None = None
            self._step: Call | None = None
            self.steps_done = 0
            """Counted one by one: a run that goes on from a checkpoint begins with the steps it finds there."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - transformers' own
            if self._call is not None:  # of a run that ended unseen: a Trainer with a loop of its own
                self._call.finish("error", None)
            call = self._new(self._name) if self._run else None
            if call is not None:
                if kwargs.get("model") is not None:
                    call.note(framework=version_of("transformers"), **_known(describe(kwargs["model"])))
                call.__enter__()
                self._call, self.steps_done = call, 0

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - as above
            self._step = self._new(f"{self._name}.step", {"steps": 1}) if self._steps else None
            if self._step is not None:
                self._step.__enter__()

        def _new(self, name: str, counts: dict[str, float | None] | None = None) -> Call | None:
            try:
                made: Call = self._source().call(name, counts)
            except Exception as error:  # noqa: BLE001 - as at the limit of open files; the training goes on
                warn_once(f"no call is metered: {error}")
                return None
            return made

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - as above
            self.steps_done += 1
            self._end_step(None)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - as above
            self.end(None)

        def end(self, error: BaseException | None) -> None:
            """End the rows that are open."""
            self._end_step(error)
            call, self._call = self._call, None
            if call is not None:
                call.count(steps=self.steps_done)
                call.__exit__(None if error is None else type(error), error, None)

        def _end_step(self, error: BaseException | None) -> None:
            step, self._step = self._step, None
            if step is not None:
                step.__exit__(None if error is None else type(error), error, None)

    return Aimeter


def _known(labels: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in labels.items() if value is not None}


def _work(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Meter a run of training, evaluation or prediction; those inside a run are parts of it."""
    scope = begin(self, f"{type(self).__name__}.{original.__name__}")
    if scope is None:
        return original(self, *args, **kwargs)
    stepper = None
    training = original.__name__ == "train"
    with scope.guard("labels"):
        settings = self.args
        size = settings.per_device_train_batch_size if training else settings.per_device_eval_batch_size
        scope.note(batch_size=size, framework=version_of("transformers"), **describe(self.model))
    with scope.guard("steps"):
        if training:
            base = sys.modules["transformers.trainer_callback"].TrainerCallback
            stepper = _kind(base)(scope.session.source, scope.call.name, run=False, steps=scope.session.steps)
            self.add_callback(stepper)
    try:
        with scope:
            try:
                return original(self, *args, **kwargs)
            except BaseException as error:
                if stepper is not None:
                    stepper.end(error)
                raise
            finally:
                with scope.guard("steps"):
                    if stepper is not None:
                        scope.call.count(steps=stepper.steps_done)
    finally:
        if stepper is not None:
            self.remove_callback(stepper)


_TRAINER = "transformers.trainer"

ADAPTER = Adapter(
    "transformers trainers",
    tuple(
        Hook(_TRAINER, "Trainer", method, _work, family=True) for method in ("train", "evaluate", "predict")
    ),
)
