"""Calls that nobody can end any more: none but aimeter itself holds them, and perhaps the context they began in."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimeter._attribution.groups import Open
    from aimeter._calls.call import Call

_LOOKED_AT = 64
"""So many open calls are looked at when calls are settled."""

_LOOK_AFTER_S = 1.0
"""Who holds a call that a single reference keeps is looked for after this time, and again after twice as long each time."""


class Forgotten:
    """Finds them among the open calls, a few at a time.

    A ``with`` statement holds its call, and so does whoever is to end it.

    Args:
        known: The open calls, by id.
    """

    def __init__(self, known: Mapping[int, Open]) -> None:
        self._open = known
        self._looks: dict[int, tuple[float, float]] = {}
        """When to look for a call's holder again, and how long to wait after that."""
        self._inside: dict[int, int] = {}
        """How many references open calls hold to a call around them, by its id."""
        self._holding: dict[int, list[int]] = {}
        """The ids of those calls, one for each reference, by the id of the one that holds them."""
        self._rota: list[int] = []

    def begin(self, call: Call) -> None:
        """Note that a call is open, and which open ones it holds."""
        held = call.holds()
        holding = [place for one in held if (place := id(one)) in self._open] if held else None
        if holding:
            self._holding[id(call)] = holding
            for place in holding:
                self._inside[place] = self._inside.get(place, 0) + 1

    def end(self, call: Call) -> None:
        """Note that a call is closed."""
        if self._looks:
            self._looks.pop(id(call), None)
        if self._inside:
            self._inside.pop(id(call), None)
            for place in self._holding.pop(id(call), ()):
                if place in self._inside:
                    self._inside[place] -= 1

    def give_up(self, now_s: float) -> None:
        """End calls whose end was not seen. A few are looked at in turn."""
        if not self._rota:
            self._rota = list(self._open)
        for _ in range(min(len(self._rota), _LOOKED_AT)):
            one = self._open.get(self._rota.pop())
            if one is not None and self._is_forgotten(one, now_s):
                one.call.give_up()

    def _is_forgotten(self, one: Open, now_s: float) -> bool:
        if one.call.by_hand:
            return False
        children = self._inside.get(id(one.call), 0)
        strangers = one.call.strangers() - children
        if strangers != 1 or children:  # the context of a call with children holds one of those
            return strangers < 1
        # The next call in that context would see at once. To look from here goes through all objects there are.
        look_s, pause_s = self._looks.get(id(one.call), (now_s + _LOOK_AFTER_S, _LOOK_AFTER_S))
        due = now_s >= look_s
        self._looks[id(one.call)] = (now_s + 2 * pause_s, 2 * pause_s) if due else (look_s, pause_s)
        return due and _is_held_by_a_context(one.call)


def _is_held_by_a_context(call: Call) -> bool:
    """Return whether a context (contextvars) is among those who hold a call: by the nodes that one is made of."""
    return any(type(holder).__name__.startswith("hamt") for holder in gc.get_referrers(call))
