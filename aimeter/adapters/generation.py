"""What transformers' `generate` reads and makes, seen from outside: rows, tokens and seconds of sound."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

from .base import Args, Kwargs
from .torch import tokens_in


class Decoding:
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


def rows_given(model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
    """Return how many rows the model is given; None where that cannot be seen."""
    inputs = _inputs(model, args, kwargs)
    if inputs is None and kwargs.get("encoder_outputs") is not None:
        inputs = kwargs["encoder_outputs"][0]
    return int(inputs.shape[0]) if hasattr(inputs, "shape") else None


def rows_made(given: int | None, model: Any, args: Args, kwargs: Kwargs) -> int:  # noqa: ANN401 - a model
    """Return how many rows the result will have, of those that were given; beams are work, not output."""
    each = _asked("num_return_sequences", model, args, kwargs)
    return (given or 1) * int(each or 1)


def tokens_read(model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
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


def tokens_made(model: Any, loop: Decoding, args: Args, kwargs: Kwargs, result: Any) -> int:  # noqa: ANN401 - a model
    """Return how many tokens the rows of the result got, each up to and with its first end token.

    Where padding is the end token, as in GPT-2, counting what is no padding would lose the end.
    """
    sequences = result if hasattr(result, "shape") else result.sequences
    rows, length = map(int, sequences.shape)
    prompt = prompt_length(model, loop, args, kwargs)
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


def prompt_length(model: Any, loop: Decoding, args: Args, kwargs: Kwargs) -> int:  # noqa: ANN401 - a model
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


def seconds_made(model: Any, result: Any) -> float | None:  # noqa: ANN401 - a model, what it gives
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


def _inputs(model: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a tensor
    """Return what the model is to go on from: tokens, embeddings, audio features or pictures."""
    names = ("inputs", "input_ids", "inputs_embeds", getattr(model, "main_input_name", "input_ids"))
    given = (args[0] if args else None, *map(kwargs.get, names))
    return next((value for value in given if value is not None), None)


def _padding(model: Any, args: Args, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - a model
    pad = _asked("pad_token_id", model, args, kwargs)
    return None if pad is None else int(pad)


def _asked(setting: str, model: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a model, a value
    """Return a setting of `generate` as it takes it: by name, from the configuration it is given, or the model's."""
    configs = (kwargs.get("generation_config"), *args[1:2], model.generation_config)
    found = (kwargs.get(setting), *(getattr(config, setting, None) for config in configs))
    return next((value for value in found if value is not None), None)
