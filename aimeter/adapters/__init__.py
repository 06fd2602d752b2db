"""The frameworks that `aimeter.attach` knows, one module each, and the door through which others come in.

An adapter is found by an entry point of the group ``aimeter.adapters``: its name is the module of the framework that
it is for, its value an `aimeter.adapters.base.Adapter`. Nothing of a framework is ever imported for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from aimeter._support.log import logger

from . import patching
from .base import Adapter, Handler, Hook

__all__ = [
    "GROUP",
    "OURS",
    "Adapter",
    "Entry",
    "Handler",
    "Hook",
    "awaiting",
    "drop",
    "entries",
    "having",
    "install",
    "loaded",
    "note_undo",
    "ours",
    "use",
]

GROUP = "aimeter.adapters"

OURS = {
    "diffusers": "aimeter.adapters.diffusers:ADAPTER",
    "llama_cpp": "aimeter.adapters.llama_cpp:ADAPTER",
    "onnxruntime": "aimeter.adapters.onnxruntime:ADAPTER",
    "sentence_transformers": "aimeter.adapters.sentence_transformers:ADAPTER",
    "torch": "aimeter.adapters.torch:ADAPTER",
    "transformers": "aimeter.adapters.transformers:ADAPTER",
    "transformers.trainer": "aimeter.adapters.trainer:ADAPTER",
    "vllm": "aimeter.adapters.vllm:ADAPTER",
}
"""Our own entry points, as pyproject.toml declares them: they serve a source tree that is not installed, too."""


class Entry(NamedTuple):
    """Where an adapter is to be found.

    Attributes:
        module: The framework's module, for which it waits.
        value: Module and attribute of the adapter, ``package.module:ADAPTER``.
    """

    module: str
    value: str

    @property
    def framework(self) -> str:
        """The framework's top-level package."""
        return self.module.partition(".")[0]

    @property
    def home(self) -> str:
        """The module that defines the adapter."""
        return self.value.partition(":")[0]

    def load(self) -> Adapter | None:
        """Return the adapter; one that cannot be loaded makes a warning."""
        return _load(self.value)


def ours() -> tuple[Entry, ...]:
    """Return where our own adapters are, which takes no search."""
    return tuple(Entry(module, value) for module, value in OURS.items())


@cache
def entries() -> tuple[Entry, ...]:
    """Return where all adapters are, our own first."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes longer to load than all of ours

    others = (Entry(point.name, point.value) for point in entry_points(group=GROUP))
    return tuple(dict.fromkeys([*ours(), *others]))


@cache
def _load(value: str) -> Adapter | None:
    module, _, attribute = value.partition(":")
    try:
        adapter = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's module may raise anything
        logger.warning("The adapter %s cannot be loaded (%s: %s).", value, type(error).__name__, error)
        return None
    if isinstance(adapter, Adapter):
        return adapter
    logger.warning("The adapter %s is no aimeter.adapters.Adapter but %r.", value, type(adapter).__name__)
    return None


def loaded() -> Iterator[Adapter]:
    """Yield the adapters of frameworks that the program has loaded."""
    for entry in entries():
        if entry.framework in sys.modules:
            adapter = entry.load()
            if adapter is not None:
                yield adapter


class _Use:
    """Who uses an adapter's hooks, and what undoes them."""

    def __init__(self) -> None:
        self.users = 0
        self.undos: list[Callable[[], None]] = []


_uses: dict[Adapter, _Use] = {}


def use(adapter: Adapter) -> None:
    """Put an adapter's hooks in place; each use is to be dropped."""
    _uses.setdefault(adapter, _Use()).users += 1
    install(adapter)


def install(adapter: Adapter, module: str | None = None) -> None:
    """Put those hooks of an adapter in use in place whose modules, or the one given, have been loaded meanwhile."""
    found = _uses.get(adapter)
    if found is None:
        return
    for hook in adapter.hooks:
        if module is None or hook.module == module:
            patching.install(hook, found.undos.append)


def having(module: str) -> list[Adapter]:
    """Return the adapters in use that have hooks in a module."""
    return [adapter for adapter in list(_uses) if any(hook.module == module for hook in adapter.hooks)]


def awaiting() -> bool:
    """Return whether adapters in use have hooks in modules that have not been loaded."""
    return any(
        hook.module not in sys.modules for adapter in list(_uses) for hook in adapter.hooks if not hook.narrow
    )


def note_undo(adapter: Adapter, undo: Callable[[], None]) -> None:
    """Have something undone with an adapter's hooks."""
    found = _uses.get(adapter)
    if found is not None:
        found.undos.append(undo)


def drop(adapter: Adapter) -> None:
    """Put every method back as it was, after the last use."""
    found = _uses[adapter]
    found.users -= 1
    if found.users == 0:
        del _uses[adapter]
        for undo in reversed(found.undos):
            undo()
