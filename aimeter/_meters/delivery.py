"""The way of a meter's rows: made of settled figures, kept in memory, added up, and handed to the sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from aimeter._meters import parting
from aimeter._meters.apart import PATIENCE_S, Apart, tell
from aimeter._support.clocks import time
from aimeter._support.notes import raised
from aimeter._version import __version__
from aimeter.sinks.memory import MemorySink

if TYPE_CHECKING:
    from aimeter._attribution.figures import Figures
    from aimeter._attribution.rows import Context
    from aimeter._calls.call import Call
    from aimeter._sampling.sampler import Sampler
    from aimeter.carbon.accounting import Accounting
    from aimeter.record import Record
    from aimeter.report.summary import Summary
    from aimeter.report.tally import Tally
    from aimeter.settings import Settings
    from aimeter.sinks.base import Sink

FLUSH_TIMEOUT_S = 2.0
"""How long flushing, and asking a finished call for its joules, waits for the sensors."""

SO_FAR_TIMEOUT_S = 0.25
"""How long asking an open call for its joules waits for a fresh reading."""

_SINK_TIMEOUT_S = 0.25
"""How long flushing waits at least for sinks that have a thread of their own, where sensors took all the time."""

_MOST_NAMES = 10_000
"""Names that the running summary tells apart: memory is bounded, although a name may be made up for each call."""


class Delivery:
    """The rows of one meter.

    Args:
        sampler: Whose figures they are made of.
        carbon: What makes grams of joules.
        settings: How many rows are kept in memory, which run they are of, and whether the process ends with their table.
        sinks: Where else they go, those by somebody else last.
    """

    def __init__(
        self, sampler: Sampler, carbon: Accounting, settings: Settings, sinks: Iterable[Sink | Apart]
    ) -> None:
        self._sampler = sampler
        self._carbon = carbon
        self._run = settings.run_id
        self._in_last_table = settings.summary and settings.enabled
        if self._in_last_table:
            parting.prepare()
        self._memory = MemorySink(settings.memory_rows)
        self._sinks: list[Sink | Apart] = [self._memory, *sinks]
        self._added: list[Sink | Apart] = []
        self._tally = _new_tally()
        self._unbuilt_rows = 0

    # What comes in

    def receive(self, figures: Figures) -> None:
        """Turn settled figures into rows and hand them to the sinks; the sampler is alone meanwhile."""
        # Calls that were written as open when the meter was closed keep that row.
        places = [place for place, call in enumerate(figures.calls) if call.settled is None]
        if len(places) < len(figures.calls):
            figures = figures.of(places)
        self._keep(figures.calls, self._build(figures))

    def write_open(self, calls: Iterable[Call]) -> None:
        """Write calls that have not ended, as they are so far; they keep that row."""
        unsettled = [call for call in calls if call.settled is None]
        if unsettled:
            rows = self._so_far(unsettled)
            self._while_alone(lambda: self._keep(unsettled, rows))

    def flush(self, timeout_s: float) -> None:
        """Settle and write every call that has ended, waiting for slow sensors up to `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        self._sampler.flush(timeout_s)
        self._while_alone(lambda: self._write(()))
        self._wait_for_sinks(max(end_s - time.monotonic(), _SINK_TIMEOUT_S))

    def close(self) -> None:
        """Have the sinks let go of what they hold; they open it again for rows to come."""
        self._while_alone(lambda: self._tell_sinks(lambda sink: sink.close()))
        self._wait_for_sinks(PATIENCE_S)

    def add(self, sink: Sink, make: Callable[[Sink], Sink | Apart]) -> None:
        """Give rows to one more sink from now on, by what `make` makes of it, unless it has them already."""
        if not self._has(sink):
            self._add(make(sink))

    def _has(self, sink: Sink) -> bool:
        return any(_itself(told) is sink for told in self._sinks)

    def _add(self, told: Sink | Apart) -> None:
        self._added.append(told)
        self._sinks = [*self._sinks, told]

    def go_on_from(self, before: Delivery, memory_rows: int) -> None:
        """Go on with the records, the summary and the added sinks of another meter, and with its calls that are still open."""
        self._memory, self._tally = before._memory, before._tally
        self._memory.keep(memory_rows)
        self._sinks[0] = self._memory
        for told in before._added:
            if not self._has(_itself(told)):
                self._add(told)

    def after_fork(self) -> None:
        """In a forked child: rows, files and sums of its own."""
        self._tally = _new_tally()
        self._tell_sinks(lambda sink: sink.reopen())

    # What is asked for

    def figures_of(self, call: Call) -> Record | None:
        """Return a call's row: final if it has ended, else so far. Waits for the sensors, but never long."""
        if call.ended:
            if not self._sampler.wait_for(lambda: call.settled is not None, FLUSH_TIMEOUT_S):
                self._sampler.settle(until_s=self._sampler.now(), timeout_s=SO_FAR_TIMEOUT_S)
            return call.settled
        return self._so_far([call])[0]

    def records(self) -> list[Record]:
        """Return the newest rows, oldest first."""
        return list(self._memory.records)

    def summary(self) -> Summary:
        """Return a table by name over all rows so far."""
        with self._sampler.alone():
            return self._tally.summary()

    @property
    def lost_rows(self) -> int:
        """Rows that could not be made, or that a sink had to give up."""
        return self._unbuilt_rows + sum(sink.lost_rows for sink in self._sinks)

    # From figures to rows to sinks

    def _so_far(self, calls: list[Call]) -> list[Record | None]:
        from aimeter._attribution.rows import build, so_far  # noqa: PLC0415 - loaded with the first figures

        found = self._sampler.so_far(calls, SO_FAR_TIMEOUT_S)
        with self._sampler.alone():
            context = self._context()
            return [
                None if some is None else build(so_far(call, some, context), context)[0]
                for call, some in zip(calls, found, strict=True)
            ]

    def _build(self, figures: Figures) -> list[Record | None]:
        from aimeter._attribution.rows import build  # noqa: PLC0415 - loaded with the first figures

        context = self._context()
        try:
            return [*build(figures, context)]
        except BaseException as error:  # noqa: BLE001 - a row holds the caller's objects, which may raise anything
            if len(figures.calls) > 1:
                one_by_one = (self._build(figures.of([place])) for place in range(len(figures.calls)))
                return [row for rows in one_by_one for row in rows]
            self._unbuilt_rows += 1
            name = figures.calls[0].name
            self._sampler.warn_once(
                "row", f"a call named {name!r} has no row, as that raised {raised(error)}."
            )
            return [None]

    def _context(self) -> Context:
        from aimeter._attribution.rows import Context, epoch_s  # noqa: PLC0415 - loaded with the first figures

        return Context(
            __version__,
            self._carbon,
            self._sampler.readers.traces,
            epoch_s(self._sampler.now()),
            self._sampler.cpu_s,
            self._run,
        )

    def _keep(self, calls: Sequence[Call], rows: Sequence[Record | None]) -> None:
        records = []
        for call, record in zip(calls, rows, strict=True):
            if record is not None:
                around = call.around
                after_parent = around is None or around.settled is not None
                call.settle(record)
                self._tally.add(record, after_parent=after_parent)
                if self._in_last_table:
                    parting.add(record, after_parent=after_parent)
                records.append(record)
        self._write(records)

    def _write(self, records: Sequence[Record]) -> None:
        self._tell_sinks(lambda sink: sink.write([*records]))  # a list of its own, as it may take rows out

    def _while_alone(self, act: Callable[[], None]) -> None:
        """Do something with the sinks, unless somebody keeps them for long or was interrupted by this."""
        with self._sampler.alone() as alone:
            if alone:
                act()

    def _tell_sinks(self, what: Callable[[Sink | Apart], None]) -> None:
        for sink in self._sinks:
            tell(sink, what, self._sampler.warn_once)

    def _wait_for_sinks(self, timeout_s: float) -> None:
        end_s = time.monotonic() + timeout_s
        for sink in self._sinks:
            if isinstance(sink, Apart):
                sink.wait(max(end_s - time.monotonic(), 0.0))


class _Delivered(Protocol):
    """Whose calls are settled: a meter."""

    delivery: Delivery


def deliver(figures: Figures) -> None:
    """Give each meter its own figures."""
    places: dict[Delivery, list[int]] = {}
    for place, call in enumerate(figures.calls):
        places.setdefault(cast("_Delivered", call.meter).delivery, []).append(place)
    for delivery, own in places.items():
        delivery.receive(figures if len(places) == 1 else figures.of(own))


def _itself(sink: Sink | Apart) -> Sink:
    return sink.sink if isinstance(sink, Apart) else sink


def _new_tally() -> Tally:
    from aimeter.report.tally import Tally  # noqa: PLC0415 - keeps the import light

    return Tally(most_names=_MOST_NAMES)
