"""Keeping others from traces and calls, for whoever may be interrupted by itself: by a signal handler or a finaliser."""

from __future__ import annotations

import threading

PATIENCE_S = 0.5
"""How long a caller waits for others to finish with traces and calls, e.g. with a disk that is slow to take rows."""


def is_held_here(lock: threading.RLock) -> bool:
    """Return whether this thread holds a lock: whoever asks has then interrupted the holder."""
    return lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - it is nowhere public


class Alone:
    """See `StateLock.alone`. A class costs a third of a generator, and every reading needs one."""

    __slots__ = ("_alone", "_lock", "_timeout_s")

    def __init__(self, lock: threading.RLock, timeout_s: float) -> None:
        self._lock, self._timeout_s = lock, timeout_s
        self._alone = False

    def __enter__(self) -> bool:
        self._alone = not is_held_here(self._lock) and self._lock.acquire(timeout=self._timeout_s)
        return self._alone

    def __exit__(self, *_: object) -> None:
        if self._alone:
            self._lock.release()


class StateLock:
    """Held while traces, or what calls have used, are changed or read."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    begin = __init__
    """In a forked child the lock may be held by a thread that is not there."""

    def alone(self, timeout_s: float = PATIENCE_S) -> Alone:
        """Keep all others from traces and calls; False if that cannot be had in time.

        False, too, if this very thread is at them already: then a signal handler or a finaliser has
        interrupted it in the middle of a change.
        """
        return Alone(self._lock, timeout_s)

    def is_held_here(self) -> bool:
        """Return whether this thread was interrupted while it was at them."""
        return is_held_here(self._lock)
