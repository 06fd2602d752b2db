"""onnxruntime sessions: every way of running one that returns when it is done."""

from __future__ import annotations

import os
from typing import Any

from .base import Adapter, Args, Hook, Kwargs, Original
from .labels import name_of, version_of
from .scope import Scope, begin


def _run(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    path = getattr(self, "_model_path", None)
    name = name_of(os.path.abspath(path)) if path else None  # noqa: PTH100 - a path of any kind, never a hub's id
    scope = begin(self, "onnxruntime.run")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        provider = self.get_providers()[0].removesuffix("ExecutionProvider").lower()
        scope.note(model=name, device=provider, framework=version_of("onnxruntime"))
        _label_batch(scope, args, kwargs)
    with scope:
        return original(self, *args, **kwargs)


def _label_batch(scope: Scope, args: Args, kwargs: Kwargs) -> None:
    """Note the batch; it is the model's, of crops or chunks maybe, so it is no count of items."""
    feed = kwargs.get("input_feed") or next(iter(args[1:]), None)
    if isinstance(feed, dict) and feed:
        first = next(iter(feed.values()))
        shape = getattr(first, "shape", ())
        shape = shape() if callable(shape) else shape  # an OrtValue's is a method
        scope.note(batch_size=int(next(iter(shape))) if len(shape) else None)


_MODULE = "onnxruntime.capi.onnxruntime_inference_collection"
_METHODS = ("run", "run_with_ort_values", "run_with_iobinding", "run_with_ortvaluevector")

ADAPTER = Adapter(
    "onnxruntime sessions",
    tuple(Hook(_MODULE, "Session", method, _run) for method in _METHODS),
)
