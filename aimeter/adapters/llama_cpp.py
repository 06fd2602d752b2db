"""llama-cpp-python: completions, chats and embeddings, streamed or whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from aimeter._support.lifetime import when_dropped

from .base import Adapter, Args, Hook, Kwargs, Original
from .labels import name_of, version_of
from .scope import Scope, begin


def _complete(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    scope = begin(self, f"llama_cpp.{original.__name__.strip('_')}")
    if scope is None:
        return original(self, *args, **kwargs)
    with scope.guard("labels"):
        scope.note(model=name_of(self.model_path), framework=version_of("llama_cpp"))
    before: tuple[int, int] | None = None
    with scope.guard("tokens"):
        before = _evaluated(self)
    scope.__enter__()
    try:
        result = original(self, *args, **kwargs)
        if isinstance(result, GeneratorType):
            scope.suspend()
            streamed = _stream(self, result, scope, before)
            when_dropped(streamed, scope.finish, "closed")
            return streamed
        with scope.guard("tokens"):
            _count(scope, result)
    except BaseException as error:
        scope.__exit__(type(error), error, None)
        raise
    scope.__exit__(None, None, None)
    return result


def _stream(model: Any, pieces: Any, scope: Scope, before: tuple[int, int] | None) -> Iterator[Any]:  # noqa: ANN401 - a model, a generator
    """Consume a stream; its pieces are no tokens and carry no usage, so the engine's own counters are asked."""
    try:
        while True:
            scope.resume()
            try:
                piece = next(pieces)
            except StopIteration:
                _count_evaluated(model, scope, before)
                scope.finish("ok")
                return
            except BaseException as error:
                scope.finish("error", error)
                raise
            scope.suspend()
            yield piece
    finally:
        pieces.close()
        if not scope.call.ended:
            _count_evaluated(model, scope, before)
        scope.finish("closed")  # unless it has ended otherwise


def _count(scope: Scope, result: Any) -> None:  # noqa: ANN401 - a completion, or vectors
    usage = result.get("usage") if isinstance(result, dict) else None
    scope.call.count(items=len(result["data"]) if isinstance(result, dict) and "data" in result else 1)
    if usage:
        scope.call.count(tokens_in=usage["prompt_tokens"], tokens_out=usage.get("completion_tokens"))


def _count_evaluated(model: Any, scope: Scope, before: tuple[int, int] | None) -> None:  # noqa: ANN401 - a model
    with scope.guard("tokens"):
        after = _evaluated(model)
        scope.call.count(items=1)
        if before is not None and after is not None and after >= before:
            # The first new token comes with the evaluation of the prompt, and the last one is never evaluated.
            scope.call.count(tokens_in=after[0] - before[0], tokens_out=after[1] - before[1])


def _evaluated(model: Any) -> tuple[int, int] | None:  # noqa: ANN401 - a model
    """Return how many tokens the engine has evaluated of prompts and one by one, or None if it does not tell."""
    ask = getattr(sys.modules.get("llama_cpp"), "llama_perf_context", None)
    context = getattr(getattr(model, "_ctx", None), "ctx", None)
    if ask is None or context is None:
        return None
    found = ask(context)
    return int(found.n_p_eval), int(found.n_eval)


_METHODS = ("create_completion", "create_chat_completion", "__call__", "create_embedding", "embed")

ADAPTER = Adapter(
    "llama-cpp-python models",
    tuple(Hook("llama_cpp.llama", "Llama", method, _complete) for method in _METHODS),
)
