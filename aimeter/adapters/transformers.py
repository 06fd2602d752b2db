"""transformers: pipelines of every task, and `generate` of every model, with prefill and decode told apart.

The end of the prefill is told by ``StoppingCriteriaList.__call__``: every decoding loop of transformers (sampling and
greedy, beams, assisted; chunked prefill, static caches, encoder-decoders alike) asks it once a round, for the first
time when the first token has been chosen. Listening there changes no list, no tensor and no token.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any

from aimeter._support.lifetime import when_dropped

from .base import Adapter, Args, Hook, Kwargs, Original
from .generation import Decoding, prompt_length, rows_given, rows_made, seconds_made, tokens_made, tokens_read
from .labels import describe, version_of
from .scope import Scope, begin, current_scope
from .torch import tokens_in

# Pipelines


def _pipeline(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    scope = begin(self, getattr(self, "task", None) or type(self).__name__)
    if scope is None:
        result = original(self, *args, **kwargs)
        around = current_scope()
        if around is not None and around.subject == id(self):  # a class's own `__call__` leads to its base's
            with around.guard("counts"):
                _count_results(around, args, kwargs, result)
        return result
    with scope.guard("labels"):
        size = kwargs.get("batch_size") or getattr(self, "_batch_size", None) or 1
        labels = {**describe(self.model), "batch_size": size, "framework": version_of("transformers")}
        scope.note(**labels)
    scope.__enter__()
    try:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            if _is_lazy(result):
                scope.suspend()
                _consumed[id(result)] = scope
                # Given up in the middle: the call ends with the iterator.
                when_dropped(result, _give_up, id(result))
                return result
            _count_results(scope, args, kwargs, result)
    except BaseException as error:
        scope.__exit__(type(error), error, None)
        raise
    scope.__exit__(None, None, None)
    return result


def _count_results(scope: Scope, args: Args, kwargs: Kwargs, result: Any) -> None:  # noqa: ANN401 - what a pipeline gives
    """Count what a pipeline was given and gave, once: by the innermost `__call__`, whose inputs are put in order."""
    if scope.counted or _is_lazy(result):
        return
    scope.counted = True
    _count_item(scope, _items(args[0] if args else kwargs.get("inputs")))
    _count_audio_made(scope, result)


def _count_item(scope: Scope, items: int = 1) -> None:
    scope.call.count(items=items, images=items if scope.pictures else None)


def _items(inputs: Any) -> int:  # noqa: ANN401 - what a pipeline takes
    """Return how many inputs there are; a conversation, a list of messages, is one."""
    if not isinstance(inputs, list | tuple):
        return 1
    first = inputs[0] if inputs else None
    return 1 if isinstance(first, dict) and {"role", "content"} <= first.keys() else len(inputs)


def _is_lazy(result: object) -> bool:
    module = sys.modules.get("transformers.pipelines.pt_utils")
    return module is not None and isinstance(result, module.PipelineIterator)


_consumed: dict[int, Scope] = {}
"""The calls of lazy results, by the identity of the iterator: they go on while it is consumed."""


def _give_up(identity: int) -> None:
    scope = _consumed.pop(identity, None)
    if scope is not None:
        scope.finish("closed")


def _next(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    scope = _consumed.get(id(self))
    if scope is None:
        return original(self, *args, **kwargs)
    scope.resume()
    try:
        item = original(self, *args, **kwargs)
    except BaseException as error:
        _consumed.pop(id(self), None)
        if isinstance(error, StopIteration):
            scope.finish("ok")
        else:
            scope.finish("error", error)
        raise
    with scope.guard("counts"):
        _count_item(scope)
        _count_audio_made(scope, item)
    scope.suspend()
    return item


def _forward(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Count what a pipeline's model reads, unless `generate` does: a batch at a time, in each path there is."""
    scope = current_scope()
    if scope is None or scope.subject != id(self):
        return original(self, *args, **kwargs)
    generated, ids, mask = scope.generated, None, None
    with scope.guard("counts"):
        inputs = args[0] if args else kwargs["model_inputs"]
        ids, mask, pixels = map(inputs.get, ("input_ids", "attention_mask", "pixel_values"))
        if pixels is not None and getattr(pixels, "ndim", 0) == 4:  # noqa: PLR2004 - pictures, channels, rows, columns
            scope.call.count(images=pixels.shape[0])
    result = original(self, *args, **kwargs)
    if scope.generated == generated and hasattr(ids, "numel"):
        with scope.guard("counts"):
            scope.call.count(tokens_in=tokens_in(ids, mask))
    return result


def _hear(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Count the seconds of audio that go in: preprocessing sees each input whole, before it is cut into chunks."""
    scope = current_scope()
    if scope is not None and scope.subject == id(self):
        with scope.guard("seconds of audio"):
            seconds = _seconds(args[0] if args else kwargs["inputs"], self.feature_extractor.sampling_rate)
            if seconds is not None:
                scope.call.count(audio_s=seconds)
    return original(self, *args, **kwargs)


def _seconds(audio: Any, rate: float) -> float | None:  # noqa: ANN401 - what a pipeline takes
    """Return how long an input lasts; None for files, which the pipeline decodes by itself."""
    if isinstance(audio, dict):
        rate = audio.get("sampling_rate", rate)
        audio = audio.get("raw", audio.get("array"))
    shape = getattr(audio, "shape", None)
    return shape[-1] / rate if shape else None


def _count_audio_made(scope: Scope, result: Any) -> None:  # noqa: ANN401 - what a pipeline gives
    for made in result if isinstance(result, list) else [result]:
        if isinstance(made, dict) and "audio" in made and "sampling_rate" in made:
            audio = made["audio"] if isinstance(made["audio"], list) else [made["audio"]]
            scope.call.count(audio_s=sum(one.shape[-1] for one in audio) / made["sampling_rate"])


# Generation


_decoding: ContextVar[Decoding | None] = ContextVar("aimeter_decoding", default=None)
_loop_of = _decoding.get


def _criteria(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Listen to the question that every decoding loop asks in each round; see the module."""
    stopped = original(self, *args, **kwargs)
    loop = _loop_of()
    if loop is not None:
        loop.asked(self, args[0] if args else kwargs.get("input_ids"), stopped)
    return stopped


def _own_generate(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Meter a `generate` that a class defines itself; the decoding loops that it leads to are told by `_generate`."""
    scope = begin(self, f"{type(self).__name__}.generate")
    if scope is None:
        return original(self, *args, **kwargs)
    rows = _label(scope, self, args, kwargs)
    with scope:
        result = original(self, *args, **kwargs)
        if not scope.generated:
            with scope.guard("counts"):
                _count_items(scope, self, rows)
        with scope.guard("seconds of audio"):
            scope.call.count(audio_s=seconds_made(self, result))
        return result


def _generate(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Meter transformers' own `generate`, be it called by the program, a pipeline or a class's own `generate`."""
    around = _decoding.get()
    scope = begin(self, f"{type(self).__name__}.generate")
    if scope is not None:
        _label(scope, self, args, kwargs)
        with scope:
            return _decode(scope, original, self, args, kwargs)
    inside = current_scope()
    if around is None and inside is not None:
        return _decode(inside, original, self, args, kwargs)
    if around is None:
        return original(self, *args, **kwargs)
    # A draft model's: its rounds are none of the loop around it, its energy is.
    token = _decoding.set(Decoding())
    try:
        return original(self, *args, **kwargs)
    finally:
        _decoding.reset(token)


def _decode(scope: Scope, original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler's
    """Run one decoding loop, its prefill and decode as parts of the call, and count its tokens."""
    parts = scope.session.parts and not scope.divided and _listening()
    rows: int | None = None
    read: int | None = None
    first = 0
    with scope.guard("tokens read"):
        # Before an encoder's output is repeated in its place for each sequence, and the cache that it goes on from grows.
        rows = rows_given(self, args, kwargs)
        read = tokens_read(self, args, kwargs)

    def begin_decode(input_ids: Any) -> None:  # noqa: ANN401 - a tensor
        nonlocal first
        with scope.guard("prefill and decode"):
            loop.first_length = int(input_ids.shape[-1])
            if parts:
                scope.count_part(tokens_in=read)
                first = rows_made(rows, self, args, kwargs) * (
                    loop.first_length - prompt_length(self, loop, args, kwargs)
                )
                scope.count_part(tokens_out=first)
        if parts:
            scope.part("decode")

    loop = Decoding(begin_decode)
    if parts:
        scope.part("prefill")
    token = _decoding.set(loop)
    try:
        result = original(self, *args, **kwargs)
    except BaseException as error:
        if parts:
            scope.end_part(error)
        raise
    finally:
        _decoding.reset(token)
    told = scope.part_is("decode")
    if parts and not told:
        scope.rename_part("whole")  # a loop that never asks: its parts cannot be told
    made: int | None = None
    with scope.guard("tokens"):
        made = tokens_made(self, loop, args, kwargs, result)
    with scope.guard("counts"):
        scope.count_generated(tokens_in=read, tokens_out=made)
        _count_items(scope, self, rows)
        if told:
            scope.count_part(tokens_out=None if made is None else max(made - first, 0))
        elif parts:
            scope.count_part(tokens_in=read, tokens_out=made)
    if parts:
        scope.end_part()
    return result


def _listening() -> bool:
    module = sys.modules.get("transformers.generation.stopping_criteria")
    return hasattr(module, "StoppingCriteriaList")


def _count_items(scope: Scope, model: object, rows: int | None) -> None:
    if scope.subject == id(model) and rows is not None:  # a pipeline counts its own
        scope.call.count(items=rows)


def _label(scope: Scope, model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
    """Say what the model is and what it is given, and return how many rows that are."""
    rows: int | None = None
    with scope.guard("labels"):
        rows = rows_given(model, args, kwargs)
        labels = {**describe(model), "framework": version_of("transformers")}
        scope.note(batch_size=rows, **labels)
    return rows


_BASE = "transformers.pipelines.base"
_AUDIO = {
    "automatic_speech_recognition": "AutomaticSpeechRecognitionPipeline",
    "audio_classification": "AudioClassificationPipeline",
    "zero_shot_audio_classification": "ZeroShotAudioClassificationPipeline",
}

ADAPTER = Adapter(
    "transformers pipelines and models that generate",
    (
        Hook(_BASE, "Pipeline", "__call__", _pipeline, family=True),
        Hook(_BASE, "Pipeline", "forward", _forward, attachable=False),
        Hook(
            "transformers.pipelines.pt_utils",
            "PipelineIterator",
            "__next__",
            _next,
            family=True,
            attachable=False,
        ),
        Hook("transformers.generation.utils", "GenerationMixin", "generate", _generate),
        Hook(
            "transformers.generation.utils",
            "GenerationMixin",
            "generate",
            _own_generate,
            family=True,
            attachable=False,
        ),
        Hook(
            "transformers.generation.stopping_criteria",
            "StoppingCriteriaList",
            "__call__",
            _criteria,
            attachable=False,
        ),
        *(
            Hook(f"transformers.pipelines.{module}", owner, "preprocess", _hear, attachable=False)
            for module, owner in _AUDIO.items()
        ),
    ),
)
