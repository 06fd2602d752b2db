"""What a sink is: a destination of settled records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimeter.record import Record


@runtime_checkable
class Sink(Protocol):
    """One destination of settled records. To add a destination, write these three methods.

    No method raises for a fault of the destination: the fault is logged once, with its remedy, and counted.

    Attributes:
        lost_rows: Records that were given to `write` and will never arrive.
        last_fault: What went wrong last, in words fit for a log line; empty while all is well.
    """

    lost_rows: int
    last_fault: str

    def write(self, records: Sequence[Record]) -> None:
        """Take settled records, and try again with those that an earlier fault held back.

        An empty sequence only tries again.
        """
        ...

    def reopen(self) -> None:
        """Make the sink usable in a forked child. What was still held back is the parent's to write."""
        ...

    def close(self) -> None:
        """Write what is held back, if it can be written now, and release what the sink holds.

        Calling it twice is harmless; a later `write` opens the sink again.
        """
        ...
