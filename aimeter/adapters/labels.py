"""Labels of a model: what it is called, how large it is, in which precision and where it runs."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .wrapping import compiled

_REVISION = re.compile(r"/snapshots/([0-9a-f]{40})(?:/|$)")
"""Where the Hugging Face cache keeps a revision, see its `cache structure
<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>`_."""

_sizes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_described: weakref.WeakKeyDictionary[Any, tuple[Any, Mapping[str, object]]] = weakref.WeakKeyDictionary()
_weights: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def describe(model: Any) -> Mapping[str, object]:  # noqa: ANN401 - a model of any framework
    """Return the labels of a torch model with a configuration of Hugging Face's kind; unknown ones are None.

    They are worked out once for each model, precision and place.
    """
    model = compiled(model)
    weight = first_weight(model)
    state = None if weight is None else (weight.dtype, weight.device)
    known = None if weight is None else _described.get(model)
    if known is not None and known[0] == state:
        return known[1]
    config = getattr(model, "config", None)
    path = _get(config, "_name_or_path") or getattr(model, "name_or_path", None)
    labels = {
        "model": name_of(path) or type(model).__name__,
        "revision": _get(config, "_commit_hash") or revision_of(path),
        "parameters": size_of(model, [model]),
        "dtype": None if weight is None else plain(weight.dtype),
        "device": None if weight is None else str(weight.device),
    }
    if weight is not None:
        _described[model] = state, labels
    return labels


def first_weight(model: Any) -> Any:  # noqa: ANN401 - a model of any framework, a tensor
    """Return a model's first weight, which tells its precision and place; None if it has none."""
    if not hasattr(model, "parameters"):
        return None
    known = _weights.get(model)
    weight = None if known is None else known()
    if weight is None:
        weight = next(iter(model.parameters()), None)
        if weight is not None:
            _weights[model] = weakref.ref(weight)
    return weight


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


def size_of(subject: Any, models: Iterable[Any]) -> int | None:  # noqa: ANN401 - a model or pipeline
    """Return the number of parameters of some models; worked out once for each `subject`."""
    try:
        known = _sizes.get(subject)
    except TypeError:
        known = None  # not hashable, or no weak references
    if known is None:
        known = sum(map(_parameters, models))
        with suppress(TypeError):
            _sizes[subject] = known
    return known or None


def _parameters(model: Any) -> int:  # noqa: ANN401 - a model of any framework
    if hasattr(model, "num_parameters"):
        return int(model.num_parameters())  # knows of quantised weights, several of which share an element
    return sum(weight.numel() for weight in model.parameters()) if hasattr(model, "parameters") else 0


def plain(dtype: object) -> str:
    """Return a data type's name without its framework: ``float16``."""
    return str(dtype).removeprefix("torch.")


def version_of(framework: str) -> str | None:
    """Return name and version of a framework that is loaded."""
    version = getattr(sys.modules.get(framework), "__version__", None)
    return f"{framework} {version}" if version else None


def _get(config: Any, key: str) -> Any:  # noqa: ANN401 - a configuration object or mapping
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
