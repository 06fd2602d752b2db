"""What the experiments ask of a tool: one face for all, each behind it set up as its documentation says is best for calls."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

Body = Callable[[], None]


class Reading(NamedTuple):
    """What a tool says of one call; None is what it does not say."""

    gpu_j: float | None = None
    cpu_j: float | None = None
    resolution_j: float | None = None


Later = Callable[[], Reading]
"""Gives a call's reading once all is known."""


class Logged(NamedTuple):
    """How a program that keeps a log makes calls, and what it does at its end."""

    call: Callable[[Body], object]
    end: Callable[[], object]


class Tool(ABC):
    """One tool in one configuration."""

    distribution: str

    @property
    def version(self) -> str:
        """Version installed."""
        return importlib.metadata.version(self.distribution)

    @abstractmethod
    def call(self, body: Body) -> Later:
        """Meter one call of `body`; return what gives its reading afterwards."""

    @abstractmethod
    def empty(self, times: int) -> None:
        """Meter this many calls of nothing, written as a user would."""

    def finish(self) -> None:  # noqa: B027 - most tools have nothing to wait for
        """Wait until all that was metered is known."""

    def decorated(self, function: Callable[[], Any]) -> tuple[Callable[[], Any], Later] | None:
        """Return `function` with the tool's decorator on it, and what gives its reading; None if there is none."""
        return None

    @classmethod
    @abstractmethod
    def logged(cls, folder: Path) -> Logged:
        """Set up a log in `folder`, as CSV if there is such a thing."""


class Windows(Tool):
    """A tool that meters what stands between two marks."""

    @abstractmethod
    def window(self) -> AbstractContextManager[Later]:
        """Meter what is done inside."""

    def call(self, body: Body) -> Later:
        """Meter one call of `body`."""
        with self.window() as later:
            body()
        return later

    async def call_async(self, body: Callable[[], Awaitable[None]]) -> Later:
        """Meter one call of a coroutine, beside others in the same thread."""
        with self.window() as later:
            await body()
        return later


def rows(folder: Path) -> tuple[str, int]:
    """Return the form of the log in `folder` and the number of calls in it."""
    tables = [len(file.read_text("utf-8").splitlines()) - 1 for file in folder.glob("*.csv")]
    if tables:
        # CodeCarbon has a table of runs beside that of tasks.
        return "CSV", max(tables)
    return "JSON", sum(file.read_text("utf-8").count('"started_at":') for file in folder.glob("*.json"))
