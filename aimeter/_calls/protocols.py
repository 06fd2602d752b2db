"""What calls need of their meter, and decorators of calls: types only, as making protocols takes its time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from aimeter.record import Record
    from aimeter.settings import Settings


class Metered(Protocol):
    """What decorators need of a call."""

    def __enter__(self) -> object:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    async def __aenter__(self) -> object:
        """Begin."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def pause(self, *, suspended: bool) -> None:
        """Note that a generator's consumer holds it suspended from now on, or resumes it."""

    def finish(self, status: str, error: str | None) -> None:
        """Stamp the end of a generator's call."""


class Queue(Protocol):
    """Where calls put what happens to them, as far as they know of it: a sampler."""

    @property
    def put(self) -> Callable[[Any], None]:
        """Takes a call when it begins and when it ends, and pauses; `enqueue`, unless callers are slowed down."""

    @property
    def ready(self) -> bool:
        """Somebody will notice what is put, so that `ensure_running` need not be called."""

    @property
    def now(self) -> Callable[[], float]:
        """The monotonic clock that stamps calls and readings alike."""

    @property
    def enqueue(self) -> Callable[[Any], None]:
        """Puts at once. It is this process's own: a call with another's has come through a fork."""

    def ensure_running(self) -> None:
        """Make sure that somebody reads the sensors; never raises."""


class Host(Protocol):
    """What calls and adapters need of a meter."""

    settings: Settings
    synchronise: bool
    """Wait for GPUs before a call's end is stamped."""
    source: Callable[[], Any]
    """Returns the meter that later calls belong to: the one that is default then, or this one."""

    @property
    def sampler(self) -> Queue:
        """Where its calls put what happens to them."""

    def call(
        self, name: str, counts: dict[str, float | None] | None = None, notes: dict[str, object] | None = None
    ) -> Any:  # noqa: ANN401 - an aimeter.Call, which is made of this
        """Return a new call, which has not begun."""

    def next_id(self) -> str:
        """Return an identifier that no other call has."""

    def figures_of(self, call: Any) -> Record | None:  # noqa: ANN401 - the same
        """Return the row of a call, so far or final; waits for what is certain."""

    def warn_once(self, key: str, message: str) -> None:
        """Log a warning, once for each key."""
