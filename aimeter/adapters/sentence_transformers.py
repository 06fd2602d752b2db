"""sentence-transformers: embeddings and scores, with the tokens that were read."""

from __future__ import annotations

from typing import Any

from .base import Adapter, Args, Hook, Kwargs, Original
from .labels import describe, version_of
from .scope import begin, current_scope
from .torch import tokens_in

_INPUTS = ("inputs", "sentences")
"""What versions call the first argument of ``encode``."""


def _encode(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    scope = begin(self, f"{type(self).__name__}.{original.__name__}")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        # The transformer inside knows where it was loaded from; the sequence around it does not.
        inner = next((module for module in self.modules() if hasattr(module, "config")), self)
        size = kwargs.get("batch_size", 32)
        scope.note(batch_size=size, framework=version_of("sentence_transformers"), **describe(inner))
    with scope:
        with scope.guard("counts"):
            inputs = next(
                (given for given in (*args[:1], *map(kwargs.get, _INPUTS)) if given is not None), ()
            )
            scope.call.count(items=1 if _is_one(self, inputs) else len(inputs))
        return original(self, *args, **kwargs)


def _is_one(model: Any, inputs: Any) -> bool:  # noqa: ANN401 - a model, what it takes
    """Return whether an input is one, not several, as the model itself tells; a pair for a CrossEncoder is one."""
    if hasattr(model, "is_singular_input"):
        return bool(model.is_singular_input(inputs))
    # As `predict` and `encode` tell up to version 5.
    if hasattr(model, "predict"):
        return len(inputs) > 0 and isinstance(inputs[0], str)
    return isinstance(inputs, str) or not hasattr(inputs, "__len__")


def _preprocess(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Count the tokens of each batch."""
    features = original(self, *args, **kwargs)
    scope = current_scope()
    if scope is not None and scope.subject == id(self):
        with scope.guard("tokens"):
            ids = features.get("input_ids")
            if ids is not None:
                scope.call.count(tokens_in=tokens_in(ids, features.get("attention_mask")))
    return features


_NOW = "sentence_transformers"
_BEFORE_6 = "sentence_transformers.SentenceTransformer"

ADAPTER = Adapter(
    "sentence-transformers models",
    (
        Hook(f"{_NOW}.sentence_transformer.model", "SentenceTransformer", "encode", _encode),
        Hook(f"{_NOW}.sparse_encoder.model", "SparseEncoder", "encode", _encode),
        Hook(f"{_NOW}.multi_vector_encoder.model", "MultiVectorEncoder", "encode", _encode),
        Hook(f"{_NOW}.cross_encoder.model", "CrossEncoder", "predict", _encode),
        Hook(f"{_NOW}.base.model", "BaseModel", "preprocess", _preprocess, attachable=False),
        # Up to version 5 the classes have modules of their own names, and the tokens come from `tokenize`.
        Hook(_BEFORE_6, "SentenceTransformer", "encode", _encode),
        Hook(_BEFORE_6, "SentenceTransformer", "tokenize", _preprocess, attachable=False),
        Hook(f"{_NOW}.sparse_encoder.SparseEncoder", "SparseEncoder", "encode", _encode),
        Hook(f"{_NOW}.cross_encoder.CrossEncoder", "CrossEncoder", "predict", _encode),
    ),
)
