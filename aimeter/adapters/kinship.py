"""Objects that nobody attached, but that were made of one that is: copies, derived pipelines, parts used alone.

They are other objects, so their calls are not metered. Who calls one may well think that they are: it is said once.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

from .sessions import attached

_SAMPLE = 16
"""So many numbers of a random matrix are the same in a copy only."""

_strangers: weakref.WeakSet[Any] = weakref.WeakSet()
"""Objects that were looked at, of which there is nothing more to say."""


def forget() -> None:
    """Look again at every object: another one is attached."""
    _strangers.clear()


def dismiss(subject: object) -> None:
    """Say nothing of an object: it was detached on purpose."""
    try:
        _strangers.add(subject)
    except TypeError:
        return  # without weak references; the word on it is said once anyway


def kin_of(subject: object) -> str | None:
    """Return how an object that is not attached comes from one that is, as a part of a sentence; None if it does not."""
    try:
        if subject in _strangers:
            return None
        others = [one.subject() for one in list(attached.values()) if one.session.explicit]
        found = next(filter(None, (_kin(subject, other) for other in others if other is not None)), None)
        for one in [subject, *_parts(subject)]:  # what is told of a pipeline is not told of its parts again
            dismiss(one)
    except Exception:  # noqa: BLE001 - an advice is not worth a fault in somebody's call
        dismiss(subject)
        return None
    return found


def _kin(subject: Any, other: Any) -> str | None:  # noqa: ANN401 - any objects
    kind = type(other).__name__
    if any(part is subject for part in _parts(other)):
        return f"it is a part of a {kind} that is"
    if not _is_module(subject) and _share(_parts(subject), [other, *_parts(other)]):
        return f"it has parts of a {kind} that is"
    if type(subject) is type(other) and _same(subject, other):
        return f"it has the weights of a {kind} that is"
    return None


def _is_module(subject: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(subject, torch.nn.Module)


def _parts(subject: Any) -> list[Any]:  # noqa: ANN401 - any object
    """Return the models that a pipeline has; a model's own layers are no parts in this sense."""
    return [] if _is_module(subject) else [part for part in vars(subject).values() if _is_module(part)]


def _share(some: list[Any], others: list[Any]) -> bool:
    """Return whether some models are among others, and not attached themselves, by which they would be metered."""
    return any(one is other and id(one) not in attached for one in some for other in others)


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - two objects of a class
    mine, others = _sample(one), _sample(other)
    return mine is not None and mine == others


def _sample(subject: Any) -> tuple[object, ...] | None:  # noqa: ANN401 - a model or pipeline
    """Return a few numbers of the first matrix of weights."""
    for model in [subject] if _is_module(subject) else _parts(subject):
        for weight in model.parameters():
            if weight.ndim > 1:
                numbers = weight.detach().flatten()[:_SAMPLE].float().tolist()
                return (tuple(weight.shape), *numbers)
    return None
