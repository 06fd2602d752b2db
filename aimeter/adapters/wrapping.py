"""Models that wrap others: compiled, adapted by PEFT, spread over devices. Most of what they do is the inner one's."""

from __future__ import annotations

from typing import Any

_PARALLEL = ("torch.nn.parallel.", "torch.distributed.", "deepspeed.")


def inner_of(subject: Any) -> Any:  # noqa: ANN401 - any object, a model
    """Return the model that an object passes calls on to, if it is a wrapper of a known kind; else None."""
    parts = getattr(subject, "__dict__", {}).get("_modules") or {}
    if "_orig_mod" in parts:
        return compiled(subject)
    for cls in type(subject).__mro__:
        if cls.__module__.startswith("peft.") and hasattr(cls, "get_base_model"):
            return subject.get_base_model()
        if cls.__module__.startswith(_PARALLEL) and "module" in parts:
            return parts["module"]
    return None


def wrapped(subject: Any) -> list[Any]:  # noqa: ANN401 - as above
    """Return the models in a wrapper, from the outermost to the innermost; none if it is no wrapper."""
    found: list[Any] = []
    inner = inner_of(subject)
    while inner is not None and inner is not subject and not any(inner is one for one in found):
        found.append(inner)
        inner = inner_of(inner)
    return found


def compiled(model: Any) -> Any:  # noqa: ANN401 - as above
    """Return the model that was compiled, if one is given; else the same model."""
    parts = getattr(model, "__dict__", {}).get("_modules") or {}
    return parts.get("_orig_mod", model)
