"""Who holds a call: counts of references, by which one that nobody can end any more is told.

What the interpreter itself holds while it runs a method differs from version to version; so it is counted once, on
objects of which it is known who holds them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

references_of: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: 1_000_000)
if not getattr(sys, "_is_gil_enabled", lambda: True)():  # each thread counts by itself
    references_of = lambda _: 1_000_000  # noqa: E731


class _Forgotten:
    """Stands for a call that only aimeter itself holds."""

    def references(self) -> int:
        return references_of(self)

    def __enter__(self) -> Self:
        self.seen = references_of(self)
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Holder:
    call = _Forgotten()


FORGOTTEN = _Holder.call.references() - 1
"""What `Call.strangers` sees of a call that nobody holds, beside what aimeter itself does."""


def _left() -> int:
    """Return what `Call.is_left` sees of a call that a variable holds and the context, beside what aimeter itself does."""
    around = _Forgotten()
    return around.references() + 1


LEFT = _left()
BY_HAND = _Forgotten().__enter__().seen
"""What `Call.__enter__` sees of a call that no ``with`` statement holds, nor anybody else.

From 3.14 on, it sees the same of a call that a ``with`` statement takes from a variable, as that counts no reference. Such a
call is taken for one that is ended by hand, and so is not given up where a signal handler raises just before `__exit__`.
"""
