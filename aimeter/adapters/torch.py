"""torch modules: `aimeter.attach` meters their forward passes, and what else they are usually asked to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from aimeter._support.log import warn_once

from .base import Adapter, Args, Handler, Hook, Kwargs, Original
from .labels import describe, version_of
from .scope import Scope, begin
from .sessions import attached, instrumented
from .wrapping import compiled, wrapped

ENTRIES = ("generate", "sample", "predict", "chat", "encode", "decode", "embed", "transcribe", "translate")
"""Methods by which modules are used, beside being called; those that a framework's adapter meters are left to it."""

on_decode: list[Callable[[], None]] = []
"""What is told when a module that is listened to begins to decode."""


def _forward(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    return _run(original, self, args, kwargs, "forward")


@cache
def entered(method: str) -> Handler:
    """Return what meters a method of modules that were attached themselves, and notices when one begins to decode.

    The method's own name may be another: not every decorator hands it on.
    """

    def run(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
        if method == "decode" and not sys.modules["torch"].compiler.is_compiling():
            for told in on_decode:
                told()
        return _run(original, self, args, kwargs, method)

    return run


def _run(original: Original, self: Any, args: Args, kwargs: Kwargs, method: str) -> Any:  # noqa: ANN401 - a handler
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling():  # what is traced here is to be the model, not its metering
        return original(self, *args, **kwargs)
    if torch.jit.is_tracing():
        if id(self) in attached:
            warn_once(
                f"What torch.jit.trace makes of an attached {type(self).__name__} is another object, which is not "
                "metered: give it to aimeter.attach."
            )
        return original(self, *args, **kwargs)
    scope = _begin(self, method)
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        scope.note(framework=version_of("torch"), **describe(self))
    with scope:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            _count(scope, args, kwargs)
        return result


def _begin(module: Any, method: str) -> Scope | None:  # noqa: ANN401 - a module
    """Return the scope of a module's call, or of one that was wrapped after it had been attached."""
    subject = module
    if id(module) not in attached:
        inside = (
            one for one in wrapped(module) if id(one) in attached and attached[id(one)].session.explicit
        )
        subject = next(inside, module)
        if subject is module and instrumented:
            return None  # of torch's modules only those are metered that were attached
    return begin(subject, f"{type(compiled(subject)).__name__}.{method}")


def _count(scope: Scope, args: Args, kwargs: Kwargs) -> None:
    """Count what is named like the inputs of transformers' models; of other tensors the meaning is unknown."""
    ids = kwargs.get("input_ids")
    first = next((value for value in (*args, *kwargs.values()) if hasattr(value, "shape")), None)
    rows = int(first.shape[0]) if first is not None and len(first.shape) else None
    if scope.generated:  # by a model inside, whose tokens are counted
        scope.call.count(items=rows)
    elif ids is not None:
        scope.call.count(items=ids.shape[0], tokens_in=tokens_in(ids, kwargs.get("attention_mask")))
    if rows is not None:
        scope.call.note(batch_size=rows)


def tokens_in(ids: Any, mask: Any) -> int:  # noqa: ANN401 - tensors
    """Return the number of tokens read, padding left out."""
    if mask is not None and mask.ndim == 2:  # noqa: PLR2004 - rows and columns; others mask attention itself
        return int(mask.sum())
    return int(ids.numel())


_MODULE = "torch.nn.modules.module"

ADAPTER = Adapter(
    "torch modules",
    (
        Hook(_MODULE, "Module", "__call__", _forward, narrow=True),
        *(Hook(_MODULE, "Module", method, entered(method), family=True, narrow=True) for method in ENTRIES),
        # What was attached, and wrapped then: these pass the module's own `__call__` by.
        Hook("torch._dynamo.eval_frame", "OptimizedModule", "__call__", _forward, attachable=False),
        Hook("peft.peft_model", "PeftModel", "__call__", _forward, attachable=False),
    ),
)
