"""Labels of a model: what it is called, how large it is, in which precision and where it runs."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .wrapping import compiled

_REVISION = re.compile(r"/snapshots/([0-9a-f]{40})(?:/|$)")
"""Where the Hugging Face cache keeps a revision, see its `cache structure
<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>`_."""


class Facts(NamedTuple):
    """What a model's weights say.

    Attributes:
        parameters: How many there are, those of quantised layers as they were before.
        dtype: Data type of most of them.
    """

    parameters: int | None
    dtype: str | None


_facts: weakref.WeakKeyDictionary[Any, tuple[int, Facts]] = weakref.WeakKeyDictionary()
_labels: weakref.WeakKeyDictionary[Any, tuple[Any, Mapping[str, object]]] = weakref.WeakKeyDictionary()


def describe(model: Any) -> Mapping[str, object]:  # noqa: ANN401 - a model of any framework
    """Return the labels of a torch model with a configuration of Hugging Face's kind; unknown ones are None.

    They are worked out again when the model has other weights, or is elsewhere, than when they were.
    """
    model = compiled(model)
    weight = first_weight(model)
    config = getattr(model, "config", None)
    path = _get(config, "_name_or_path") or getattr(model, "name_or_path", None)
    facts = facts_of(model)
    quantized = _quantization(config)
    state = (facts, quantized, None if weight is None else weight.device, str(path))
    known = None if weight is None else _labels.get(model)
    if known is not None and known[0] == state:
        return known[1]
    labels = {
        "model": name_of(path) or type(model).__name__,
        "revision": _get(config, "_commit_hash") or revision_of(path),
        "parameters": facts.parameters,
        "dtype": facts.dtype,
        "quantization": quantized,
        "device": None if weight is None else str(weight.device),
    }
    if weight is not None:
        _labels[model] = state, labels
    return labels


def first_weight(model: Any) -> Any:  # noqa: ANN401 - a model of any framework, a tensor
    """Return a model's first weight, which tells its place; None if it has none."""
    return next(iter(model.parameters()), None) if hasattr(model, "parameters") else None


def facts_of(model: Any) -> Facts:  # noqa: ANN401 - a model of any framework
    """Return what a model's weights say, counted when they are others than at the last time."""
    state = _state_of(model)
    known = None if state is None else _facts.get(model)
    if known is not None and known[0] == state:
        return known[1]
    facts = _count(model)
    if state is not None:
        _facts[model] = state, facts
    return facts


def _state_of(model: Any) -> int | None:  # noqa: ANN401 - a model of any framework
    """Return a number that is another one when a torch module has got other layers or weights, else None.

    It is asked for with each call, so it walks the modules' own tables, which takes a tenth of what a count takes.
    """
    marks: list[object] = []
    seen: set[int] = set()
    rest = [model]
    while rest:
        module = rest.pop()
        identity = id(module)
        if identity in seen:
            continue
        seen.add(identity)
        try:
            weights, inner = module._parameters, module._modules  # noqa: SLF001 - the walk that `modules()` makes
        except AttributeError:
            return None  # no torch module
        marks.append(identity)
        for weight in weights.values():
            if weight is not None:
                marks += (id(weight), weight.dtype, weight.numel())
        rest += [one for one in inner.values() if one is not None]
    return hash(tuple(marks))


def _count(model: Any) -> Facts:  # noqa: ANN401 - a model of any framework
    if not hasattr(model, "parameters"):
        return Facts(None, None)
    kinds: Counter[str] = Counter()
    for weight in model.parameters():
        # bitsandbytes packs two numbers of four bits into a byte, and says so.
        kinds[getattr(weight, "quant_type", None) or plain(weight.dtype)] += weight.numel()
    packed: Counter[str] = Counter()
    for module in model.modules():
        packed.update(_packed(module))
    # transformers' own count knows of quantised weights, several of which share an element.
    total = int(model.num_parameters()) if hasattr(model, "num_parameters") else kinds.total()
    kinds.update(packed)
    return Facts(total + packed.total() or None, max(kinds, key=lambda kind: kinds[kind]) if kinds else None)


def _packed(module: Any) -> dict[str, int]:  # noqa: ANN401 - a torch module
    """Return the weights of a quantised layer that are no parameters of it, by their data type."""
    buffers = module._buffers  # noqa: SLF001 - its own, without those of modules inside
    packed = buffers.get("qweight")  # GPTQ's and AWQ's: several in an element
    if packed is not None and hasattr(module, "in_features"):
        return {plain(packed.dtype): int(module.in_features * module.out_features)}
    weight = getattr(type(module), "weight", None)
    if callable(weight) and type(module).__module__.startswith("torch.ao.nn.quantized"):
        held = [module.weight(), module.bias() if callable(getattr(module, "bias", None)) else None]
        kind = plain(held[0].dtype).removeprefix("q")
        return {kind: sum(one.numel() for one in held if one is not None)}
    return {}


def _quantization(config: Any) -> str | None:  # noqa: ANN401 - a configuration object or mapping
    """Return how a model was quantised, as its configuration says: ``bitsandbytes 4-bit``."""
    found = _get(config, "quantization_config")
    method = None if found is None else _get(found, "quant_method")
    if method is None:
        return None
    bits = _get(found, "bits") or (
        4 if _get(found, "load_in_4bit") else 8 if _get(found, "load_in_8bit") else None
    )
    name = str(getattr(method, "value", method))
    return f"{name} {bits}-bit" if bits else name


def name_of(path: object) -> str | None:
    """Return the name of a model: a repository's id as it is, of a local path only its last part.

    Folders of a machine may name its user or its project, which is nobody's business.
    """
    if not path or not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    if not isinstance(text, str):
        return None
    if text.count("/") <= 1 and not text.startswith((".", "~", "/")) and "\\" not in text:
        return Path(text).name if "/" in text and Path(text).is_dir() else text
    cached = re.search(r"models--([^/]+)/snapshots/", text)
    if cached:
        return cached[1].replace("--", "/")
    return Path(text.replace("\\", "/")).name or None


def revision_of(path: object) -> str | None:
    """Return the commit of a model that was loaded from the hub's cache."""
    found = _REVISION.search(str(path)) if path else None
    return found[1] if found else None


def plain(dtype: object) -> str:
    """Return a data type's name without its framework: ``float16``."""
    return str(dtype).removeprefix("torch.")


def version_of(framework: str) -> str | None:
    """Return name and version of a framework that is loaded."""
    version = getattr(sys.modules.get(framework), "__version__", None)
    return f"{framework} {version}" if version else None


def _get(config: Any, key: str) -> Any:  # noqa: ANN401 - a configuration object or mapping
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
