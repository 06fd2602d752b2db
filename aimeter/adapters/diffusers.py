"""diffusers: pipelines of every class, with encoder, denoiser and decoder told apart.

`DiffusionPipeline` has no ``__call__``; each class defines its own. The parts are told by what nearly all of them do:
they open a progress bar when the denoising loop begins, tell it of each step, and have a VAE decode the result after it.
Autoencoders are hooked by the class that a pipeline really has, when it is called.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import note_undo, patching
from .base import Adapter, Args, Hook, Kwargs, Original
from .labels import facts_of, first_weight, name_of, revision_of, version_of
from .scope import Scope, begin, current_scope
from .torch import entered, on_decode

if TYPE_CHECKING:
    from aimeter._calls.call import Call


_DENOISERS = ("transformer", "unet", "prior", "denoiser")
_DECODERS = ("vae", "vqvae", "movq", "vqgan")
_RESULTS = ("images", "image_embeds", "frames", "videos", "video", "audios", "audio", "image")
_VIDEOS = ("frames", "videos", "video")
_AUDIOS = ("audios", "audio")


def _begin(pipe: Any) -> Scope | None:  # noqa: ANN401 - a pipeline
    """Return the labelled scope of a pipeline's call, or None if it gets no row of its own."""
    scope = begin(pipe, type(pipe).__name__)
    if scope is not None:
        with scope.guard("labels"):
            scope.note(framework=version_of("diffusers"), **_labels(pipe))
        with scope.guard("parts"):
            _listen(pipe)
    return scope


def _call(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    scope = _begin(self)
    if scope is None:
        return original(self, *args, **kwargs)
    with scope:
        with scope.guard("parts"):
            if scope.session.parts and _has_progress_bar(type(self)):
                scope.part("encode")
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            _count(scope, self, result, kwargs)
        if scope.part_is("encode"):
            scope.rename_part("whole")  # no progress bar after all
        return result


def _has_progress_bar(cls: type) -> bool:
    """Return whether a pipeline opens a progress bar; without one nothing would tell the end of the first part."""
    calls = (vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base))
    codes = (getattr(inspect.unwrap(call), "__code__", None) for call in calls)
    return any(code is not None and "progress_bar" in code.co_names for code in codes)


def _progress_bar(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    bar = original(self, *args, **kwargs)
    scope = current_scope()
    if scope is not None:
        with scope.guard("steps"):
            calls = [scope.call]
            if scope.divided:
                calls.append(scope.part("denoise"))
            total = getattr(bar, "total", None)
            if scope.session.steps and total:
                scope.begin_steps(int(total))
            _follow(bar, lambda number: _advance(scope, calls, self, number))
    return bar


def _follow(bar: Any, done: Callable[[int], None]) -> None:  # noqa: ANN401 - a tqdm
    """Have each step told that a progress bar is told of; a bar that shows nothing counts nothing itself."""
    if bar.iterable is None:
        update = bar.update

        def told(n: int = 1) -> Any:  # noqa: ANN401 - what tqdm returns
            done(n)
            return update(n)

        bar.update = told
        return

    def counted(items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            yield item
            done(1)

    bar.iterable = counted(bar.iterable)


def _advance(scope: Scope, calls: list[Call], pipe: object, number: int) -> None:
    """Count steps that are done: a scheduler may take several passes of the denoiser for one."""
    with scope.guard("steps"):
        if scope.call.ended:
            return
        for call in calls:
            call.count(steps=number)
        if getattr(pipe, "_interrupt", False):
            scope.end_steps()  # it skips all that are left
        else:
            scope.next_step()


def _decoding() -> None:
    """Notice that a VAE begins to decode: the first time after a denoising loop the next part begins."""
    scope = current_scope()
    if scope is not None:
        with scope.guard("parts"):
            scope.end_steps()
            if scope.part_is("denoise"):
                scope.part("decode")


on_decode.append(_decoding)


def _listen(pipe: Any) -> None:  # noqa: ANN401 - a pipeline
    """Listen to the decoder that a pipeline has."""
    for part in _DECODERS:
        _hook(getattr(pipe, part, None), "decode", entered("decode"))


def _hook(component: object, method: str, handler: Callable[..., Any]) -> None:
    for cls in type(component).__mro__:
        if method in vars(cls):
            undo = patching.replace(cls, method, handler)
            if undo is not None:
                note_undo(ADAPTER, undo)
            return


def _labels(pipe: Any) -> dict[str, object]:  # noqa: ANN401 - a pipeline
    config = getattr(pipe, "config", {})
    parts = [part for part in vars(pipe).values() if hasattr(part, "parameters")]
    denoiser = next((part for name in _DENOISERS if (part := getattr(pipe, name, None)) is not None), None)
    denoiser = denoiser if denoiser is not None else next(iter(parts), None)
    weight = first_weight(denoiser)
    # With offloading, weights wait elsewhere than where they are used; a hook of accelerate's knows.
    hook = getattr(denoiser, "_hf_hook", None)
    device = getattr(hook, "execution_device", None) or getattr(weight, "device", None)
    path = config.get("_name_or_path")
    of_denoiser = getattr(denoiser, "config", {})
    return {
        "model": name_of(path) or type(pipe).__name__,
        "revision": revision_of(path) or revision_of(of_denoiser.get("_name_or_path")),
        "parameters": sum(facts_of(part).parameters or 0 for part in parts) or None,
        "dtype": None if weight is None else facts_of(denoiser).dtype,
        "device": None if device is None else str(device),
    }


def _count(scope: Scope, pipe: Any, result: Any, kwargs: Kwargs) -> None:  # noqa: ANN401 - a pipeline, its result
    """Count what was made; ``return_dict=False`` gives it as the first of a tuple."""
    found: tuple[str, Any] | None
    if isinstance(result, tuple):
        found = (_declared(type(pipe)) or _likely(result[0]), result[0]) if result else None
    else:
        given = ((name, getattr(result, name, None)) for name in _RESULTS)
        found = next(((name, made) for name, made in given if made is not None), None)
    if found is not None:
        _count_made(scope, pipe, *found, kwargs)


def _count_made(scope: Scope, pipe: Any, kind: str, made: Any, kwargs: Kwargs) -> None:  # noqa: ANN401 - as above
    number = len(made) if hasattr(made, "__len__") else 1
    if kind == "images":
        if isinstance(made, list) and made and isinstance(made[0], list):  # several for each prompt
            number = sum(map(len, made))
        scope.call.count(images=number)
    elif kind in _VIDEOS:
        frames = _frames(made, kwargs)
        if isinstance(made, list) and made and not hasattr(made[0], "__len__"):
            number, frames = 1, len(made)  # the pictures of one video
        scope.call.count(items=number)
        scope.note(frames=frames)
    else:
        scope.call.count(items=number)
        if kind in _AUDIOS:
            scope.call.count(audio_s=_seconds(pipe, made, kwargs))
    scope.note(batch_size=number, size=None if kind in _AUDIOS else _size(made, kwargs))


def _declared(cls: type) -> str | None:
    """Return what a class of pipelines makes, by the output class that its `__call__` would put it in."""
    for base in cls.__mro__:
        call = inspect.unwrap(vars(base).get("__call__", _declared))
        for name in call.__code__.co_names if hasattr(call, "__code__") else ():
            output = call.__globals__.get(name) or vars(sys.modules[_PIPELINES]).get(name)
            fields = getattr(output, "__dataclass_fields__", {})
            kind = next((kind for kind in _RESULTS if kind in fields), None)
            if kind is not None:
                return kind
    return None


def _likely(made: Any) -> str:  # noqa: ANN401 - what a pipeline gives
    """Return what has a form without name: videos are lists of lists, or arrays of row, frame and picture."""
    nested = isinstance(made, list) and bool(made) and isinstance(made[0], list)
    return "frames" if nested or getattr(made, "ndim", 0) == 5 else "images"  # noqa: PLR2004 - see above


def _latent(kwargs: Kwargs) -> bool:
    return kwargs.get("output_type") in ("latent", "latents")


def _frames(videos: Any, kwargs: Kwargs) -> int | None:  # noqa: ANN401 - lists of pictures, or an array
    if _latent(kwargs):
        return None  # an autoencoder makes several frames of one of its own
    shape = getattr(videos, "shape", None)
    if shape is not None:
        return int(shape[0] * shape[1])
    return sum(len(video) for video in videos if hasattr(video, "__len__"))


def _seconds(pipe: Any, audios: Any, kwargs: Kwargs) -> float | None:  # noqa: ANN401 - arrays
    """Return how long the audio lasts that was made, if the pipeline says how fast it is played."""
    rate = _rate(pipe)
    if rate is None or _latent(kwargs):
        return None
    return sum(float(audio.shape[-1]) for audio in audios) / rate


def _rate(pipe: Any) -> float | None:  # noqa: ANN401 - a pipeline
    for part in (pipe, *(getattr(pipe, name, None) for name in ("vocoder", "vae", *_DENOISERS))):
        for source in (getattr(part, "config", None), part):
            for name in ("sampling_rate", "sample_rate"):
                rate = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
                if isinstance(rate, int | float) and rate > 0:
                    return float(rate)
    return None


def _size(made: Any, kwargs: Kwargs) -> str | None:  # noqa: ANN401 - pictures, videos or an array
    """Return width by height of what was made; of latents that is what was asked for, if anything was."""
    first = made[0] if hasattr(made, "__getitem__") and len(made) else None
    first = first[0] if isinstance(first, list | tuple) and first else first  # a video's first frame
    if isinstance(getattr(first, "size", None), tuple):
        width, height = first.size  # type: ignore[union-attr]  # a PIL picture
        return f"{width}x{height}"
    if _latent(kwargs):
        width, height = kwargs.get("width"), kwargs.get("height")
        return f"{width}x{height}" if width and height else None
    shape = tuple(getattr(first, "shape", ()))[-3:]
    if len(shape) == 3:  # noqa: PLR2004 - channels first in torch, last in NumPy
        height, width = (shape[1], shape[2]) if shape[0] in (1, 3, 4) else (shape[0], shape[1])
        return f"{width}x{height}"
    return None


def _modular(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - a handler
    """Meter a modular pipeline, whose result is its state or any part of that."""
    scope = _begin(self)
    if scope is None:
        return original(self, *args, **kwargs)
    with scope:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            if hasattr(result, "get"):
                given = [(name, result.get(name)) for name in _RESULTS]
            elif isinstance(result, list) or hasattr(result, "shape"):
                asked = kwargs.get("output")
                given = [(asked if asked in _RESULTS else _likely(result), result)]
            else:
                given = []
            for kind, made in given:
                if made is not None:
                    _count_made(scope, self, kind, made, kwargs)
                    break
        return result


_PIPELINES = "diffusers.pipelines.pipeline_utils"
_MODULAR = "diffusers.modular_pipelines.modular_pipeline"

ADAPTER = Adapter(
    "diffusers pipelines",
    (
        Hook(_PIPELINES, "DiffusionPipeline", "__call__", _call, family=True),
        Hook(_PIPELINES, "DiffusionPipeline", "progress_bar", _progress_bar, attachable=False),
        Hook(_MODULAR, "ModularPipeline", "__call__", _modular),
        Hook(_MODULAR, "LoopSequentialPipelineBlocks", "progress_bar", _progress_bar, attachable=False),
    ),
)
