"""`attach` an object: each of its calls is metered, counted and logged from then on."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from aimeter import adapters
from aimeter._calls.context import default_meter
from aimeter._support.lifetime import after_fork_in_child, when_dropped
from aimeter._support.public import public
from aimeter.adapters import Adapter, Hook, kinship, patching
from aimeter.adapters.instrument import watch
from aimeter.adapters.scope import begin
from aimeter.adapters.sessions import Attached, Session, attached
from aimeter.adapters.wrapping import wrapped
from aimeter.settings import load

if TYPE_CHECKING:
    from aimeter._calls.protocols import Host

T = TypeVar("T")

_lock = (
    threading.RLock()
)  # reentrant: an object may be collected, and so detached, in the middle of attaching one


class _Hold(NamedTuple):
    """What an attached object keeps in place, and what lets go of it when the object dies."""

    uses: tuple[Adapter, ...]
    cls: type
    narrow: bool
    finalizer: weakref.finalize[Any, Any]
    inner: list[weakref.finalize[Any, Any]]


class _Narrow:
    """Hooks on the very class of attached objects: how many of them there are, and what undoes the hooks."""

    def __init__(self) -> None:
        self.objects = 0
        self.undos: list[Callable[[], None]] = []


_holds: dict[int, _Hold] = {}
_narrow: weakref.WeakKeyDictionary[type, _Narrow] = weakref.WeakKeyDictionary()


@public
def attach(
    subject: T,
    /,
    name: str | None = None,
    *,
    model: str | None = None,
    parts: bool = True,
    steps: bool = False,
    meter: Host | None = None,
) -> T:
    """Meter every call of a pipeline or model, count what it does and log it; return the same object.

    The object stays what it is: its type, attributes, pickles and saved files do not change, and its outputs are
    bit for bit the same. Attaching it again does nothing. It is forgotten when the program drops it.

    Args:
        subject: A pipeline, model or session of a framework that an adapter knows.
        name: Name of its rows; by default its task, or its class and method.
        model: Name of the model for its rows; by default what the object itself says.
        parts: Tell prefill and decode, or encoder, denoiser and decoder, apart by child rows.
        steps: Add a child row for each denoising or training step.
        meter: Meter of its calls; by default the default meter at the time of each call.

    Raises:
        TypeError: No adapter knows the object; the text names what is known.
        ConfigurationError: A setting in the environment or in pyproject.toml is unusable.
    """
    if meter is None:
        load({})  # so that a slip in the settings is told now, not by a pipeline's call
    source = default_meter if meter is None else meter.source
    session = Session(source, name, model, parts, steps, explicit=True)
    with _lock:
        known = attached.get(id(subject))
        if known is not None:
            if known.session.explicit:
                return subject
            _holds[id(subject)].finalizer()  # it was metered for the sake of what wraps it
        found = _all_hooks_of(subject)
        if not found:
            message = _unknown(subject)
            raise TypeError(message)
        inner = [
            _hold(one, session._replace(explicit=False), hooks)
            for one in wrapped(subject)
            if id(one) not in attached and (hooks := _all_hooks_of(one, called=False))
        ]
        _hold(subject, session, found, inner)
        kinship.forget()
        watch()
    return subject


@public
def detach(subject: T) -> T:
    """Meter an attached object's calls no more, undo what that took, and return it; others stay attached."""
    with _lock:
        hold = _holds.get(id(subject))
        if hold is not None:
            hold.finalizer()
            kinship.dismiss(subject)
            watch()
    return subject


def _forget(identity: int) -> None:
    with _lock:
        attached.pop(identity, None)
        hold = _holds.pop(identity, None)
        if hold is None:
            return
        if hold.narrow:
            narrow = _narrow[hold.cls]
            narrow.objects -= 1
            if narrow.objects == 0:
                del _narrow[hold.cls]
                for undo in reversed(narrow.undos):
                    undo()
        for adapter in hold.uses:
            adapters.drop(adapter)
        for finalizer in hold.inner:
            finalizer()


def _hold(
    subject: object,
    session: Session,
    found: list[tuple[Adapter, Hook]],
    inner: list[weakref.finalize[Any, Any]] | None = None,
) -> weakref.finalize[Any, Any]:
    """Put in place what meters an object's calls, and return what lets go of it."""
    finalizer = when_dropped(subject, _forget, id(subject))
    uses = tuple(dict.fromkeys([*(adapter for adapter, _ in found), *_adapters_inside(subject)]))
    for adapter in uses:
        adapters.use(adapter)
    cls = type(subject)
    for adapter, hook in found:
        if not hook.narrow:
            _hook_override(adapter, hook, cls)
    narrow = [hook for _, hook in found if hook.narrow]
    if narrow:
        _hook_narrowly(cls, narrow)
    attached[id(subject)] = Attached(weakref.ref(subject), session)
    _holds[id(subject)] = _Hold(uses, cls, bool(narrow), finalizer, inner or [])
    return finalizer


def _hook_override(adapter: Adapter, hook: Hook, cls: type) -> None:
    """Replace the method that a class has in the place of the hooked one, which it may not call."""
    if not patching.hooked(cls, hook.method):
        undo = patching.replace(cls, hook.method, hook.handler)
        if undo is not None:
            adapters.note_undo(adapter, undo)


def _hook_narrowly(cls: type, hooks: list[Hook]) -> None:
    narrow = _narrow.setdefault(cls, _Narrow())
    narrow.objects += 1
    for hook in hooks:
        undo = patching.replace(cls, hook.method, hook.handler)
        if undo is not None:
            narrow.undos.append(undo)


def _all_hooks_of(subject: object, *, called: bool = True) -> list[tuple[Adapter, Hook]]:
    """Return the hooks by which an object's calls are metered; a method that some adapter knows is left to it.

    A module inside a wrapper is not to be metered when it is ``called``: the wrapper is.
    """
    loaded = list(adapters.loaded())
    found = [(adapter, hook) for adapter in loaded for hook in _hooks_of(adapter, subject)]
    # Only where nothing else meters it: older versions lack what newer ones have beside it.
    found = found or [(adapter, hook) for adapter in loaded for hook in _hook_if_lost(adapter, subject)]
    known = {hook.method for _, hook in found if not hook.narrow}
    return [
        (adapter, hook)
        for adapter, hook in found
        if not hook.narrow or (called if hook.method == "__call__" else hook.method not in known)
    ]


def _adapters_inside(subject: Any) -> list[Adapter]:  # noqa: ANN401 - any object
    """Return the adapters that know a part of a module, and so what it counts while the module is metered."""
    modules = sys.modules.get("torch.nn")
    if modules is None or not isinstance(subject, modules.Module):
        return []
    kinds = {type(module) for module in subject.modules()}
    owners = (
        (adapter, owner)
        for adapter in adapters.loaded()
        for hook in adapter.hooks
        if hook.attachable and not hook.narrow and (owner := patching.owner_of(hook)) is not None
    )
    return [adapter for adapter, owner in owners if any(issubclass(kind, owner) for kind in kinds)]


def _hooks_of(adapter: Adapter, subject: object) -> list[Hook]:
    """Return the hooks of an adapter by which an object's calls are metered."""
    found = []
    for hook in adapter.hooks:
        owner = patching.owner_of(hook)
        if not hook.attachable or owner is None or not isinstance(subject, owner):
            continue
        if callable(getattr(type(subject), hook.method, None)):
            found.append(hook)
        elif not hook.narrow and patching.gone(hook):
            patching.moved(hook)
    return found


def _hook_if_lost(adapter: Adapter, subject: object) -> list[Hook]:
    """Return what meters an object plainly whose framework has moved what an adapter would hook, if it can be called."""
    frameworks = {cls.__module__.partition(".")[0] for cls in type(subject).__mro__}
    lost = [
        hook
        for hook in adapter.hooks
        if hook.attachable and hook.module.partition(".")[0] in frameworks and patching.gone(hook)
    ]
    if not lost:
        return []
    patching.moved(lost[0])
    if not callable(subject):
        return []
    cls = type(subject)
    return [Hook(cls.__module__, cls.__name__, "__call__", _plainly, narrow=True)]


def _plainly(original: Callable[..., Any], self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - a handler
    """Meter a call of which nothing is known."""
    scope = begin(self, type(self).__name__)
    if scope is None:
        return original(self, *args, **kwargs)
    with scope:
        return original(self, *args, **kwargs)


def _unknown(subject: object) -> str:
    found = [(entry, adapter) for entry in adapters.entries() if (adapter := entry.load()) is not None]
    kinds = [adapter.what for _, adapter in found]
    cls = type(subject)
    misnamed = [
        f"The adapter {entry.value} is for it, but waits for a module {entry.module}, which is not loaded: name its "
        f"entry point {hooks[0].module.partition('.')[0]}. "
        for entry, adapter in found
        if entry.framework not in sys.modules and (hooks := _hooks_of(adapter, subject))
    ]
    return (
        f"attach() does not know what to meter of {cls.__module__}.{cls.__qualname__}. {''.join(misnamed)}"
        f"It knows {', '.join(kinds)}. "
        "Anything else: decorate a function with @aimeter.track, or use `with aimeter.track(...)` around the call."
    )


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
