"""An adapter: Python's own `textwrap.TextWrapper`, as if it were a model that turns a text into lines."""

from __future__ import annotations

from typing import Any

from aimeter.adapters import Adapter, Hook
from aimeter.adapters.base import Args, Kwargs, Original
from aimeter.adapters.scope import begin


def _wrap(original: Original, self: Any, args: Args, kwargs: Kwargs) -> Any:  # noqa: ANN401 - anybody's method
    scope = begin(self, f"{type(self).__name__}.wrap")
    if scope is None:  # nobody asked for it, or it is a part of a call that is metered
        return original(self, *args, **kwargs)
    with scope.guard("labels"):  # what fails in here is one warning, and never the caller's
        scope.note(model="greedy", width=self.width)
    with scope:
        result = original(self, *args, **kwargs)
        with scope.guard("counts"):
            scope.call.count(items=len(result))
        return result


ADAPTER = Adapter(
    "text wrappers",  # as the error message for unknown objects says it
    (Hook("textwrap", "TextWrapper", "wrap", _wrap, family=True),),
)
