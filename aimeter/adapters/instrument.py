"""`instrument` a program: every pipeline and model of the known frameworks is metered, with no change to its code.

Frameworks are not imported for this. Those that are loaded are hooked at once, the others when the program imports
them: a finder at the head of ``sys.meta_path`` finds nothing itself, but sees what is imported, and has the module's
own loader tell when it is done (PEP 451).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
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
        # The search for others' adapters waits for the first module that may be of a framework: it takes longer than
        # all the rest, unless a framework has loaded what it takes.
        searched = any(map(_may_be_framework, sys.modules))
        for entry in adapters.entries() if searched else adapters.ours():
            if entry.framework in sys.modules:
                _start(entry)
        instrumented.append(
            Session(default_meter if meter is None else meter.source, parts=parts, steps=steps)
        )
        watch()


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
    """Use an entry's adapter, whose framework is loaded or about to be."""
    adapter = entry.load()
    if adapter is not None and adapter not in _used:
        _used.add(adapter)
        adapters.use(adapter)


def _finished(module: str) -> None:
    """Put the hooks of a module that has just been imported in place; the import goes well whatever happens."""
    try:
        with _lock:
            for adapter in adapters.having(module):
                adapters.install(adapter, module)  # others may be in the middle of their own import
    except (Exception, SystemExit) as error:  # noqa: BLE001 - in the middle of somebody's import
        logger.warning("%s is not instrumented: %s.", module, type(error).__name__)


class _Watch:
    """A finder that sees what is imported; without a base class, as importlib.abc takes long to load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing, unless a module is hooked: then it is the others' spec with a loader that tells."""
        try:
            if instrumented and "." not in fullname:
                self._begin(fullname)
            if not adapters.having(fullname):
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

    def _begin(self, framework: str) -> None:
        if not _may_be_framework(framework):
            return
        for entry in adapters.entries():
            if entry.framework == framework:
                with _lock:
                    _start(entry)


def _may_be_framework(name: str) -> bool:
    """Return whether a module may be of a framework: not of Python's own, not ours, and not private."""
    top = name.partition(".")[0]
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
        self._loader.exec_module(module)
        _finished(module.__name__)


@after_fork_in_child
def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
