"""torch modules: `aimeter.attach` meters their forward passes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .base import Adapter, Hook
from .labels import describe, version_of
from .scope import begin


def _forward(original: Callable[..., Any], self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - a handler
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling():  # what is traced here is to be the model, not its metering
        return original(self, *args, **kwargs)
    scope = begin(self, f"{type(self).__name__}.forward")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        scope.note(framework=version_of("torch"), **describe(self))
    with scope:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            _count(scope.call, args, kwargs)
        return result


def _count(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401 - a call
    """Count what is named like the inputs of transformers' models; of other tensors the meaning is unknown."""
    ids = kwargs.get("input_ids")
    mask = kwargs.get("attention_mask")
    if ids is not None:
        call.count(items=ids.shape[0], tokens_in=tokens_in(ids, mask))
    first = next((value for value in (*args, *kwargs.values()) if hasattr(value, "shape")), None)
    if first is not None and len(first.shape):
        call.note(batch_size=int(first.shape[0]))


def tokens_in(ids: Any, mask: Any) -> int:  # noqa: ANN401 - tensors
    """Return the number of tokens read, padding left out."""
    if mask is not None and mask.ndim == 2:  # noqa: PLR2004 - rows and columns; others mask attention itself
        return int(mask.sum())
    return int(ids.numel())


ADAPTER = Adapter(
    "torch modules",
    (Hook("torch.nn.modules.module", "Module", "__call__", _forward, narrow=True),),
)
