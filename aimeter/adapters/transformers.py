"""transformers: pipelines of every task, and `generate` of every model, with prefill and decode told apart.

The end of the prefill is told by ``StoppingCriteriaList.__call__``: every decoding loop of transformers (sampling and
greedy, beams, assisted; chunked prefill, static caches, encoder-decoders alike) asks it once a round, for the first
time when the first token has been chosen. Listening there changes no list, no tensor and no token.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any

from .base import Adapter, Args, Hook, Kwargs, Original
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
                weakref.finalize(result, _give_up, id(result)).atexit = False
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


class _Decoding:
    """One decoding loop of transformers: what to do when it has chosen its first token, and which rows went on."""

    __slots__ = ("first_length", "on_first", "padded", "stopped", "waiting")

    def __init__(self, on_first: Callable[[Any], None] | None = None) -> None:
        self.on_first = on_first
        self.waiting = True
        self.first_length: int | None = None
        self.padded = False
        """Whether rows that have stopped get padding; without an end token they go on like the others."""
        self.stopped: list[Any] = []
        """What the criteria said of each row, round by round: kept as it is, for asking a GPU would halt it."""

    def asked(self, criteria: Any, input_ids: Any, stopped: Any) -> None:  # noqa: ANN401 - a list, tensors
        """Note a round: what there is after it, and which rows stop with it."""
        if self.on_first is None:
            return
        if self.waiting:
            self.waiting = False
            # How `generate` itself tells, see `has_eos_stopping_criteria` in generation/utils.py.
            self.padded = any(hasattr(one, "eos_token_id") for one in criteria)
            self.on_first(input_ids)
        if self.padded:
            self.stopped.append(stopped)


_decoding: ContextVar[_Decoding | None] = ContextVar("aimeter_decoding", default=None)
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
    _label(scope, self, args, kwargs)
    with scope:
        result = original(self, *args, **kwargs)
        if not scope.generated:
            with scope.guard("counts"):
                _count_items(scope, self, args, kwargs)
        with scope.guard("seconds of audio"):
            scope.call.count(audio_s=_seconds_made(self, result))
        return result


def _seconds_made(model: Any, result: Any) -> float | None:  # noqa: ANN401 - a model, what it gives
    """Return how long the sound is that a model of speech or music gives; None of one that gives tokens."""
    given: list[Any] = [result, getattr(result, "waveform", None), getattr(result, "audio", None)]
    sound: Any = next((one for one in given if hasattr(one, "shape")), None)
    configs = (
        model.config,
        getattr(model.config, "audio_encoder", None),
        getattr(model, "generation_config", None),
    )
    names = ("sampling_rate", "sample_rate")
    rates = (getattr(config, name, None) for config in configs for name in names)
    rate = next((float(rate) for rate in rates if rate), None)
    if rate is None or sound is None or not sound.is_floating_point():
        return None
    rows = int(sound.shape[0]) if sound.ndim > 1 else 1
    return rows * float(sound.shape[-1]) / rate


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
    token = _decoding.set(_Decoding())
    try:
        return original(self, *args, **kwargs)
    finally:
        _decoding.reset(token)


def _decode(scope: Scope, original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler's
    """Run one decoding loop, its prefill and decode as parts of the call, and count its tokens."""
    parts = scope.session.parts and not scope.divided and _listening()
    read: int | None = None
    first = 0
    with scope.guard("tokens read"):
        read = _tokens_read(self, args, kwargs)  # before the cache that it goes on from grows

    def begin_decode(input_ids: Any) -> None:  # noqa: ANN401 - a tensor
        nonlocal first
        with scope.guard("prefill and decode"):
            loop.first_length = int(input_ids.shape[-1])
            if parts:
                scope.count_part(tokens_in=read)
                first = _rows_made(self, args, kwargs) * (
                    loop.first_length - _prompt_length(self, loop, args, kwargs)
                )
                scope.count_part(tokens_out=first)
        if parts:
            scope.part("decode")

    loop = _Decoding(begin_decode)
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
        made = _tokens_made(self, loop, args, kwargs, result)
    with scope.guard("counts"):
        scope.count_generated(tokens_in=read, tokens_out=made)
        _count_items(scope, self, args, kwargs)
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


def _count_items(scope: Scope, model: Any, args: Args, kwargs: Kwargs) -> None:  # noqa: ANN401 - a model
    if scope.subject == id(model):  # a pipeline counts its own
        rows = _rows(model, args, kwargs)
        if rows is not None:
            scope.call.count(items=rows)


def _label(scope: Scope, model: Any, args: Args, kwargs: Kwargs) -> None:  # noqa: ANN401 - a model
    with scope.guard("labels"):
        labels = {**describe(model), "framework": version_of("transformers")}
        scope.note(batch_size=_rows(model, args, kwargs), **labels)


def _inputs(model: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a tensor
    """Return what the model is to go on from: tokens, embeddings, audio features or pictures."""
    names = ("inputs", "input_ids", "inputs_embeds", getattr(model, "main_input_name", "input_ids"))
    given = (args[0] if args else None, *map(kwargs.get, names))
    return next((value for value in given if value is not None), None)


def _rows(model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
    inputs = _inputs(model, args, kwargs)
    if inputs is None and kwargs.get("encoder_outputs") is not None:
        inputs = kwargs["encoder_outputs"][0]
    return int(inputs.shape[0]) if hasattr(inputs, "shape") else None


def _rows_made(model: Any, args: Args, kwargs: Kwargs) -> int:  # noqa: ANN401 - a model
    """Return how many rows the result will have; beams are work, not output."""
    each = _asked("num_return_sequences", model, args, kwargs)
    return (_rows(model, args, kwargs) or 1) * int(each or 1)


def _tokens_read(model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
    """Return how many tokens of the prompts the model will read; None where it reads something else.

    What a cache holds is not read again. Of a prompt that repeats it that is the tail; one that is shorter than its
    mask is the tail already, see `_prefill` in generation/utils.py.
    """
    inputs: Any = kwargs.get("input_ids")
    inputs = _inputs(model, args, kwargs) if inputs is None else inputs
    mask: Any = kwargs.get("attention_mask")
    if not hasattr(inputs, "shape"):
        return None
    embedded: Any = kwargs.get("inputs_embeds")
    if inputs.ndim == 2 and not inputs.is_floating_point():  # noqa: PLR2004 - rows of token ids
        if mask is None:
            mask = _mask_inferred(model, args, kwargs, inputs)
    elif inputs is embedded:
        inputs = embedded[..., 0]
    else:
        return None
    if getattr(model.config, "is_encoder_decoder", False):  # the cache is the decoder's
        return None if kwargs.get("encoder_outputs") is not None else tokens_in(inputs, mask)
    length = int(inputs.shape[1])
    rows = mask is not None and mask.ndim == 2  # noqa: PLR2004 - rows and columns
    if not rows or mask.shape[1] == length:
        length -= min(_cached_length(kwargs), length - 1)
    return tokens_in(inputs[:, -length:], mask[:, -length:] if rows else None)


_CACHES = ("cache", "past_key_values", "cache_params")
"""What versions and models call the cache that `generate` goes on from."""


def _cached_length(kwargs: Kwargs) -> int:
    """Return how many tokens of each row a given cache holds."""
    cache = next((kwargs[name] for name in _CACHES if kwargs.get(name) is not None), None)
    if isinstance(cache, tuple | list):  # keys and values of each layer: row, head, token, feature
        return int(cache[0][0].shape[-2]) if cache else 0
    linear = getattr(cache, "is_linear", None)
    if isinstance(linear, list | tuple) and linear and all(linear):
        return 0  # a state without length, with which all that is given is read
    return int(getattr(cache, "get_seq_length", int)())


def _mask_inferred(model: Any, args: Args, kwargs: Kwargs, ids: Any) -> Any:  # noqa: ANN401 - tensors
    """Return the mask that `generate` makes for itself if it is given none; see `_prepare_attention_mask_for_generation`."""
    pad = _padding(model, args, kwargs)
    return None if pad is None or pad in _end_tokens(model, args, kwargs) else ids.ne(pad)


def _padding(model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
    pad = _asked("pad_token_id", model, args, kwargs)
    return None if pad is None else int(pad)


def _asked(setting: str, model: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a model, a value
    """Return a setting of `generate` as it takes it: by name, from the configuration it is given, or the model's."""
    configs = (kwargs.get("generation_config"), *args[1:2], model.generation_config)
    found = (kwargs.get(setting), *(getattr(config, setting, None) for config in configs))
    return next((value for value in found if value is not None), None)


def _tokens_made(model: Any, loop: _Decoding, args: Args, kwargs: Kwargs, result: Any) -> int:  # noqa: ANN401 - a model
    """Return how many tokens the rows of the result got, each up to and with its first end token.

    Where padding is the end token, as in GPT-2, counting what is no padding would lose the end.
    """
    sequences = result if hasattr(result, "shape") else result.sequences
    rows, length = map(int, sequences.shape)
    prompt = _prompt_length(model, loop, args, kwargs)
    new = length - prompt
    beams = int(_asked("num_beams", model, args, kwargs) or 1)
    if beams == 1 and 0 < new <= len(loop.stopped) <= new + 1 and len(loop.stopped[0]) == rows:
        # One token a round; in the last round, if there is one more, nothing was kept (`DeferredStopCheck`).
        before = loop.stopped[: new - 1]
        return rows + (int((sys.modules["torch"].stack(before).cumsum(0) == 0).sum()) if before else 0)
    ends = _end_tokens(model, args, kwargs)
    pad = _padding(model, args, kwargs) if beams > 1 else None
    made = 0
    for row in sequences[:, prompt:].tolist():
        place = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
        while pad not in ends and place and row[place - 1] == pad:
            place -= 1  # a beam that something else than an end token ended
        made += place
    return made


def _prompt_length(model: Any, loop: _Decoding, args: Args, kwargs: Kwargs) -> int:  # noqa: ANN401 - a model
    """Return the length that each row of the result begins with."""
    is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
    given = kwargs.get("decoder_input_ids") if is_encoder_decoder else kwargs.get("input_ids")
    if given is None and not is_encoder_decoder:
        given = kwargs.get("inputs", args[0] if args else None)
    if given is not None and given.ndim == 2 and not given.is_floating_point():  # noqa: PLR2004 - token ids
        return int(given.shape[1])
    if loop.first_length is not None and kwargs.get("assistant_model") is None:
        return loop.first_length - 1  # with a draft the first round may choose several
    return 1 if is_encoder_decoder else 0


def _end_tokens(model: Any, args: Args, kwargs: Kwargs) -> Collection[int]:  # noqa: ANN401 - a model
    if "eos_token_id" in kwargs and kwargs["eos_token_id"] is None:
        return ()  # to go on to the full length is asked for
    ends = _asked("eos_token_id", model, args, kwargs)
    ends = () if ends is None else ends
    ends = ends.tolist() if hasattr(ends, "tolist") else ends
    return {ends} if isinstance(ends, int) else set(ends)


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
