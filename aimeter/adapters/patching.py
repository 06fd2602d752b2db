"""Methods of classes replaced by metered ones, and put back.

A class is changed, never an object: special methods such as ``__call__`` are looked up on the class, and an object
without attributes of ours pickles, copies and saves itself as ever.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from aimeter._support.log import warn_once

from .base import Handler, Hook

_ours: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
"""Every replacement that is or was in place. A mark on the function would be copied by whoever wraps it again."""

_followed: weakref.WeakKeyDictionary[type, set[str]] = weakref.WeakKeyDictionary()

Undo = Callable[[], None]


def replace(owner: type, method: str, handler: Handler) -> Undo | None:
    """Replace a method that `owner` has, its own or inherited, and return what puts it back.

    Returns:
        None if it is replaced already, or is nothing that becomes a method.
    """
    own = vars(owner).get(method)
    original = getattr(owner, method, None) if own is None else own
    if own in _ours or not callable(original) or not hasattr(original, "__get__"):
        return None

    @functools.wraps(original)
    def metered(self: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the original's types
        return handler(original, self, args, kwargs)

    setattr(owner, method, metered)
    _ours.add(metered)
    replacement, place = weakref.ref(metered), weakref.ref(owner)

    def undo() -> None:
        owner = place()
        if owner is None or vars(owner).get(method) is not replacement():
            return  # somebody replaced it after us; ours then passes every call through
        if own is None:
            delattr(owner, method)
        else:
            setattr(owner, method, own)

    return undo


def hooked(cls: type, method: str) -> bool:
    """Return whether a class's method, its own or inherited, is a replacement of ours."""
    return next((vars(one)[method] for one in cls.__mro__ if method in vars(one)), None) in _ours


def owner_of(hook: Hook) -> type | None:
    """Return the class of a hook, if its module is loaded and has one that has the method."""
    owner = vars(sys.modules[hook.module]).get(hook.owner) if hook.module in sys.modules else None
    return owner if isinstance(owner, type) and (hook.family or hasattr(owner, hook.method)) else None


def install(hook: Hook, keep: Callable[[Undo], None]) -> None:
    """Put a hook in place, if its module is loaded; a hook that has moved makes one warning.

    Args:
        hook: The hook.
        keep: Takes what undoes each replacement, also of classes that are defined later.
    """
    if hook.module not in sys.modules or hook.narrow:
        return
    owner = owner_of(hook)
    if owner is None:
        moved(hook)
        return
    owners = [owner] if hook.method in vars(owner) or not hook.family else []
    if hook.family:
        owners += [cls for cls in _below(owner) if hook.method in vars(cls)]
        _follow(owner, hook, keep)
    for cls in owners:
        undo = replace(cls, hook.method, hook.handler)
        if undo is not None:
            keep(undo)


def gone(hook: Hook) -> bool:
    """Return whether a hook's framework is loaded, but has the hook's class or method no more."""
    if hook.module.partition(".")[0] not in sys.modules:
        return False
    if hook.module in sys.modules:
        owner = owner_of(hook)
        return owner is None or not any(hasattr(cls, hook.method) for cls in (owner, *_below(owner)))
    try:
        return importlib.util.find_spec(hook.module) is None
    except (ImportError, ValueError):
        return True  # its parent is gone, too


def moved(hook: Hook) -> None:
    """Warn, once for each hook, that this version of the framework has it no more."""
    name = f"{hook.module}.{hook.owner}.{hook.method}"
    framework = hook.module.partition(".")[0]
    warn_once(
        f"{name} is not where aimeter looks for it in this version of {framework}: "
        "what it told is missing from rows."
    )


def _below(cls: type) -> Iterator[type]:
    """Yield every class derived from `cls`."""
    seen: set[type] = set()
    rest = [cls]
    while rest:
        derived: type
        for derived in type.__subclasses__(rest.pop()):
            if derived not in seen:
                seen.add(derived)
                rest.append(derived)
                yield derived


def _follow(base: type, hook: Hook, keep: Callable[[Undo], None]) -> None:
    """Have the classes hooked that are derived from `base` later on."""
    methods = _followed.setdefault(base, set())
    if hook.method in methods:
        return
    methods.add(hook.method)
    before = vars(base).get("__init_subclass__")

    def __init_subclass__(cls: Any, /, **kwargs: Any) -> None:  # noqa: ANN401, N807 - Python's own
        if before is None:
            super(base, cls).__init_subclass__(**kwargs)  # type: ignore[arg-type]  # a class of that base
        else:
            before.__get__(None, cls)(**kwargs)
        if hook.method in vars(cls):
            undo = replace(cls, hook.method, hook.handler)
            if undo is not None:
                keep(undo)

    ours = classmethod(__init_subclass__)
    base.__init_subclass__ = ours  # type: ignore[assignment]  # as in a class statement

    def undo() -> None:
        methods.discard(hook.method)
        if vars(base).get("__init_subclass__") is not ours:
            return
        if before is None:
            del base.__init_subclass__
        else:
            base.__init_subclass__ = before  # type: ignore[method-assign]  # as it was

    keep(undo)
