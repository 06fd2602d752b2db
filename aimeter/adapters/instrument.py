"""`instrument` a program: every pipeline and model of the known frameworks is metered, with no change to its code.

Frameworks are not imported for this. Those that are loaded are hooked at once, the others when the program imports
them: a finder at the head of ``sys.meta_path`` finds nothing itself, but sees what is imported, and has the module's
own loader tell when it is done (PEP 451).

An adapter may lie in the framework itself, or import it. So it is loaded when the framework's import is done: before,
that would import the framework within its own import, and so twice.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from aimeter import adapters
from aimeter._calls.context import default_meter
from aimeter._support.lifetime import after_fork_in_child
from aimeter._support.log import logger
from aimeter._support.public import public
from aimeter.adapters.sessions import Session, instrumented
from aimeter.errors import AimeterError
from aimeter.settings import load

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from aimeter._calls.protocols import Host

VARIABLE = "AIMETER_INSTRUMENT"
"""The environment variable that has `import aimeter` instrument the program."""

_lock = threading.RLock()
_used: set[adapters.Adapter] = set()
_running: set[str] = set()
"""Modules that tell when they are done, and are not."""
_loading: set[adapters.Entry] = set()


@public
def instrument(*, parts: bool = True, steps: bool = False, meter: Host | None = None) -> None:
    """Meter every call of every pipeline and model of the frameworks that adapters know, in the whole process.

    Call it at any time, best at the start: frameworks that are not imported yet are hooked when they are, and never
    imported by this. Calling it again does nothing. Other torch modules than models that generate are metered only
    if they are given to `aimeter.attach`.

    Args:
        parts: Tell prefill and decode, or encoder, denoiser and decoder, apart by child rows.
        steps: Add a child row for each denoising or training step.
        meter: Meter of all calls; by default the default meter at the time of each call.

    Raises:
        ConfigurationError: A setting in the environment or in pyproject.toml is unusable.
    """
    if meter is None:
        load({})  # so that a slip in the settings is told now, not by a pipeline's call
    with _lock:
        if instrumented:
            return
        instrumented.append(
            Session(default_meter if meter is None else meter.source, parts=parts, steps=steps)
        )
        watch()  # before adapters are loaded: one may import another's framework
        # The search for others' adapters waits for the first module that may be of a framework: it takes longer than
        # all the rest, unless a framework has loaded what it takes.
        searched = any(map(_may_be_framework, list(sys.modules)))
        for entry in adapters.entries() if searched else adapters.ours():
            _start(entry)


@public
def uninstrument() -> None:
    """Undo `instrument`: every method is the very object again that it was. Attached objects stay attached."""
    with _lock:
        if not instrumented:
            return
        instrumented.clear()
        for adapter in _used:
            adapters.drop(adapter)
        _used.clear()
        watch()


def watch() -> None:
    """Watch imports for as long as there is something to hook that has not been imported.

    Attached objects want this, too: torch loads what compiles a module when it is first asked to, for example.
    """
    with _lock:
        wanted, present = bool(instrumented) or adapters.awaiting(), _watch in sys.meta_path
        if wanted and not present:
            sys.meta_path.insert(0, _watch)
        elif present and not wanted:
            sys.meta_path.remove(_watch)


def instrument_if_wanted() -> None:
    """Instrument the program if ``AIMETER_INSTRUMENT`` asks for it; a slip in the settings is one warning then."""
    if os.environ.get(VARIABLE, "").strip().lower() in {"1", "true", "yes", "on"}:
        try:
            instrument()
        except AimeterError as error:
            _say_at_start(f"The program is not instrumented: {error}")


def _say_at_start(message: str) -> None:
    """Log a warning, and let it be seen if the program has not come to set up its logging yet."""
    logger.warning("%s", message)
    if logging.lastResort is not None and not logging.getLogger().handlers:
        logging.lastResort.handle(logging.makeLogRecord({"msg": message, "levelno": logging.WARNING}))


def _start(entry: adapters.Entry) -> None:
    """Use an entry's adapter if its framework is loaded; in the midst of an import that is left to the import's end."""
    if entry.framework not in sys.modules or any(
        name == entry.home or _top(name) == entry.framework for name in list(_running)
    ):
        return
    if entry in _loading:
        return  # this is the end of the import that loads it
    _loading.add(entry)
    try:
        adapter = entry.load()
    finally:
        _loading.discard(entry)
    with _lock:
        if adapter is not None and adapter not in _used:
            _used.add(adapter)
            adapters.use(adapter)


def _finished(module: str) -> None:
    """Put the hooks that waited for a module which has just been imported in place; that goes well whatever happens."""
    try:
        if instrumented:
            for entry in _waiting_for(module):
                _start(entry)
        with _lock:
            for adapter in adapters.having(module):
                adapters.install(adapter, module)  # others may be in the middle of their own import
    except (Exception, SystemExit) as error:  # noqa: BLE001 - in the middle of somebody's import
        logger.warning("%s is not instrumented: %s.", module, type(error).__name__)


def _waiting_for(module: str) -> list[adapters.Entry]:
    """Return the entries that may be used when a module has been imported."""
    top = _top(module)
    if not _may_be_framework(top):
        return []
    waiting = _by_module(adapters.entries())
    found = waiting.get(module, [])
    # A namespace package has no code whose end could be told, so that each of its modules stands for it.
    if module != top and top in waiting and getattr(sys.modules.get(top), "__file__", None) is None:
        found = [*found, *waiting[top]]
    return found


@cache
def _by_module(entries: tuple[adapters.Entry, ...]) -> dict[str, list[adapters.Entry]]:
    """Return the entries by the modules that they wait for: their framework, and the module of the adapter."""
    found: dict[str, list[adapters.Entry]] = {}
    for entry in entries:
        for module in {entry.framework, entry.home}:
            found.setdefault(module, []).append(entry)
    return found


class _Watch:
    """A finder that sees what is imported; without a base class, as importlib.abc takes long to load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing, unless something waits for a module: then it is the others' spec with a loader that tells."""
        try:
            if not (adapters.having(fullname) or (instrumented and _waiting_for(fullname))):
                return None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - in the middle of somebody's import
            logger.warning("%s is not instrumented: %s.", fullname, type(error).__name__)
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Telling(spec.loader)  # type: ignore[assignment]  # all that a loader needs
                return spec
        return None


def _top(module: str) -> str:
    return module.partition(".")[0]


def _may_be_framework(name: str) -> bool:
    """Return whether a module may be of a framework: not of Python's own, not ours, and not private."""
    top = _top(name)
    return not (top in sys.stdlib_module_names or top.startswith("_") or top in _NO_FRAMEWORKS)


_NO_FRAMEWORKS = {"aimeter", "sitecustomize", "usercustomize"}

_watch = _Watch()


class _Telling:
    """A module's own loader, which tells when the module is there."""

    def __init__(self, loader: Any) -> None:  # noqa: ANN401 - a loader of any kind
        self._loader = loader

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module's own has
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own loader back, let that run it, and tell."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        name = module.__name__
        _running.add(name)
        try:
            self._loader.exec_module(module)
        finally:
            _running.discard(name)
        _finished(name)


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
