"""Where no signal handler can interrupt.

Python runs signal handlers in the main thread, between any two of its instructions, and what a handler raises, such as
the KeyboardInterrupt of Ctrl-C, it raises there. So what must not be left half done is not done in the main thread:
another one does it, while the main thread waits and may be interrupted as it likes.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from functools import wraps
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_main_thread = threading.main_thread
_get_ident = threading.get_ident
_is_finalizing = sys.is_finalizing


def shielded(act: Callable[[], T]) -> T:
    """Return what `act` returns, or raise what it raises; an interruption of the wait leaves it to its work.

    Where no thread can be started, as at the very end of the interpreter, it is done here.
    """
    if _get_ident() != _main_thread().ident or _is_finalizing():
        return act()
    answer: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    try:
        # Not a Thread: starting one takes locks of its own, which an interruption would leave held.
        _thread.start_new_thread(_answer, (act, answer))
    except RuntimeError:
        return act()
    result, error = answer.get()
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # which is None only if that is what `act` returned


def shielding(act: Callable[P, T]) -> Callable[P, T]:
    """Have a function `shielded` whenever it is called; a decorator. One may call another: they are within already."""

    @wraps(act)
    def shield(*args: P.args, **kwargs: P.kwargs) -> T:
        return shielded(lambda: act(*args, **kwargs))

    return shield


def _answer(act: Callable[[], T], answer: SimpleQueue[tuple[T | None, BaseException | None]]) -> None:
    try:
        result = act()
    except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
        answer.put((None, error))
    else:
        answer.put((result, None))
