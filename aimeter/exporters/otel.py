"""OpenTelemetry: a call's joules on the span in which it began, or on one of its own, and the metrics of calls and devices.

A span is final once it has ended, and joules are known a moment later. So a span processor holds a span in which calls
were made until their rows are there, for a second or two at most, and hands a copy with the figures to the next one.

Names of devices' metrics: https://opentelemetry.io/docs/specs/semconv/hardware/common/. The conventions have none for the
energy of a call; those here say ``aimeter``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from aimeter._api import add_sink, default_meter
from aimeter._support.clocks import time
from aimeter._support.log import warn_once
from aimeter._support.statistics import calibration_of, error_j2
from aimeter._version import __version__
from aimeter.errors import ConfigurationError
from aimeter.exporters.series import BUCKETS_J, Devices, Names, as_label, method_of
from aimeter.record import DIRECTNESS

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import SpanContext, TracerProvider

    from aimeter._calls.call import Call
    from aimeter.meter import Meter
    from aimeter.record import Record

try:
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
except ImportError as error:
    message = "OpenTelemetry needs its SDK: install aimeter-energy[otel]."
    raise ConfigurationError(message) from error

PATIENCE_S = 2.0
"""A span is held for so long, at most, after its end. Calls are settled within a second of theirs, as a rule."""

_MOST_NOTED = 10_000
"""Calls whose span is remembered until their row comes; of more, the oldest are forgotten."""

Attributes = dict[str, str | float | int | bool]
_Key = tuple[int, int]
T = TypeVar("T")


class EnergySpanProcessor(SpanProcessor):
    """Give spans the joules of the calls that began in them, and hand them on to another processor.

    Spans without calls go on at once. The attributes are ``aimeter.energy_j``, ``aimeter.error_j``,
    ``aimeter.co2e_g``, ``aimeter.method``, ``aimeter.calls`` and ``aimeter.call_id``: sums over the calls of that span
    that are in no other one of it. What is not known is left out.

    Args:
        processor: The next, such as a ``BatchSpanProcessor``.
        meter: Whose calls; by default the default meter's.
        patience_s: How long a span is held at most.

    """

    def __init__(
        self, processor: SpanProcessor, *, meter: Meter | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        self._next = processor
        self._patience_s = patience_s
        self._source: Callable[[], Meter] = default_meter if meter is None else meter.source
        self.lost_rows, self.last_fault = 0, ""
        self._forget()
        note_begins(self._note, meter)
        add_sink(self) if meter is None else meter.add_sink(self)

    def _forget(self) -> None:
        self._changed = threading.Condition()
        self._live: dict[_Key, _Held] = {}
        self._of_call: dict[str, _Held] = {}
        self._held: list[_Held] = []
        self._thread: threading.Thread | None = None

    # Told by the SDK

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Expect calls in a span."""
        self._next.on_start(span, parent_context)
        context = span.get_span_context()
        if context is not None:
            self._live[_key(context)] = _Held()

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a span on, or hold it until its calls are settled."""
        context = span.get_span_context()
        held = None if context is None else self._live.pop(_key(context), None)
        if held is None or not held.noted:
            self._next.on_end(span)
            return
        with self._changed:
            held.span = span
            held.until_s = time.monotonic() + self._patience_s
            waits = bool(held.open)
            if waits:
                self._held.append(held)
                self._watch()
        if not waits:
            self._hand_on(held)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Settle what has ended, and hand on all that is held."""
        self._release(min(timeout_millis / 1000, self._patience_s))
        return self._next.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Hand on all that is held: no span is lost at the end of a program."""
        self._release(self._patience_s)
        self._next.shutdown()

    # Told by aimeter

    def _note(self, call: Call) -> None:
        if not self._live:  # asking for the current span takes longer than a call does
            return
        held = self._live.get(_key(trace.get_current_span().get_span_context()))
        if held is not None:
            held.noted = True
            held.open[call.call_id] = None
            _keep(self._of_call, call.call_id, held)

    def write(self, records: Sequence[Record]) -> None:
        """Take rows, and hand on the spans that waited for them."""
        done: list[_Held] = []
        with self._changed:
            for row in records:
                held = self._of_call.pop(row.call_id, None)
                if held is None:
                    continue
                held.open.pop(row.call_id, None)
                held.rows.append(row)
                if held.span is not None and not held.open and held in self._held:
                    self._held.remove(held)
                    done.append(held)
        for held in done:
            self._hand_on(held)

    def reopen(self) -> None:
        """Begin anew in a forked child: the spans are the parent's to export."""
        self._forget()

    def close(self) -> None:
        """Do nothing: spans end when the SDK says so."""

    # Handing on

    def _release(self, timeout_s: float) -> None:
        if self._held:
            self._source().flush(timeout_s)
        with self._changed:
            left, self._held = self._held, []
        for held in left:
            self._hand_on(held)

    def _hand_on(self, held: _Held) -> None:
        if held.span is not None:
            self._next.on_end(_Told(held.span, figures_of(held.rows)) if held.rows else held.span)

    def _watch(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait, name="aimeter-spans", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # at the end of the interpreter, where `shutdown` comes yet
                self._thread = None

    def _wait(self) -> None:
        """Hand on what was held for long enough; the thread ends when nothing is held."""
        while True:
            with self._changed:
                now_s = time.monotonic()
                late = [held for held in self._held if held.until_s <= now_s]
                self._held = [held for held in self._held if held.until_s > now_s]
                if not late and not self._held:
                    self._thread = None
                    return
                if not late:
                    self._changed.wait(min(held.until_s for held in self._held) - now_s)
            for held in late:
                warn_once(
                    "A span was exported without all of its calls' joules: they were not settled in time."
                )
                self._hand_on(held)


@dataclass(slots=True, eq=False)
class _Held:
    """What is known of a span: the calls that began in it, those that are settled, and itself once it has ended."""

    noted: bool = False
    open: dict[str, None] = field(default_factory=dict)
    rows: list[Record] = field(default_factory=list)
    span: ReadableSpan | None = None
    until_s: float = 0.0


class _Told(ReadableSpan):
    """A span with further attributes."""

    def __init__(self, span: ReadableSpan, more: Attributes) -> None:
        super().__init__(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes={**(span.attributes or {}), **more},
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._before = span

    @property
    def dropped_attributes(self) -> int:
        return self._before.dropped_attributes

    @property
    def dropped_events(self) -> int:
        return self._before.dropped_events

    @property
    def dropped_links(self) -> int:
        return self._before.dropped_links


def figures_of(rows: Sequence[Record]) -> Attributes:
    """Return the attributes of a span with these calls; those inside another one of them are in its figures.

    What differs by chance from call to call adds in quadrature, calibration plainly: the calls share their meters.
    """
    ids = {row.call_id for row in rows}
    outer = [row for row in rows if row.parent_id not in ids]
    found: Attributes = {"aimeter.calls": len(rows), "aimeter.call_id": outer[0].call_id}
    known = [row for row in outer if row.energy_j is not None]
    if known:
        found["aimeter.energy_j"] = sum(row.energy_j or 0.0 for row in known)
        found["aimeter.method"] = max(map(method_of, known), key=DIRECTNESS.__getitem__)
        errors = [
            (row.error_j, row.resolution_j)
            for row in known
            if row.error_j is not None and row.resolution_j is not None
        ]
        if len(errors) == len(known):
            resolution_j2 = sum(resolution_j**2 for _, resolution_j in errors)
            calibration_j = sum(calibration_of(*each) for each in errors)
            found["aimeter.error_j"] = math.sqrt(error_j2(resolution_j2, [calibration_j]))
        if all(row.co2e_g is not None for row in known):
            found["aimeter.co2e_g"] = sum(row.co2e_g or 0.0 for row in known)
    return found


class OpenTelemetrySink:
    """A sink that counts rows as metrics, and makes a span of each call if wanted.

    Metrics: ``aimeter.call.energy`` [J], a histogram; ``aimeter.call.co2e`` [g]; ``hw.energy`` [J] and ``hw.power`` [W] of
    each device.

    Args:
        meter: Whose devices are told of; by default the default meter.
        meter_provider: By default the global one.
        spans: Whether each call gets a span of its own, below the one in which it began, with the figures as attributes.
        tracer_provider: By default the global one.
        most_names: So many pairs of name and model have series of their own.

    Attributes:
        lost_rows: 0.
        last_fault: Empty.
    """

    def __init__(
        self,
        *,
        meter: Meter | None = None,
        meter_provider: MeterProvider | None = None,
        spans: bool = False,
        tracer_provider: TracerProvider | None = None,
        most_names: int = 200,
    ) -> None:
        self.lost_rows, self.last_fault = 0, ""
        self._names = Names(most_names)
        self._source: Callable[[], Meter] = default_meter if meter is None else meter.source
        self._devices = Devices(self._source)
        made = metrics.get_meter("aimeter", __version__, meter_provider)
        self._energy = made.create_histogram(
            "aimeter.call.energy",
            "J",
            "Energy of a call.",
            explicit_bucket_boundaries_advisory=list(BUCKETS_J),
        )
        self._grams = made.create_counter("aimeter.call.co2e", "g", "CO2 equivalent of calls.")
        self._drawn = made.create_counter("hw.energy", "J", "Energy of a device.")
        made.create_observable_gauge("hw.power", [self._powers], "W", "Power of a device.")
        self._tracer = trace.get_tracer("aimeter", __version__, tracer_provider) if spans else None
        self._around: dict[str, SpanContext] = {}
        if spans:
            note_begins(self._note, meter)

    def write(self, records: Sequence[Record]) -> None:
        """Count rows."""
        if not records:
            return
        for row in records:
            name, model = self._names.of(row)
            of: Attributes = {
                "aimeter.call.name": name,
                "aimeter.call.nested": row.parent_id is not None,
                "aimeter.call.status": row.status,
                "aimeter.method": method_of(row),
                **({"gen_ai.request.model": model} if model else {}),
            }
            if row.energy_j is not None:
                self._energy.record(max(row.energy_j, 0.0), of)
            if row.co2e_g:
                self._grams.add(max(row.co2e_g, 0.0), of)
            if self._tracer is not None:
                self._trace(self._tracer, row)
        for one in self._devices.since(records):
            self._drawn.add(one.energy_j, _hardware(one.device, one.uuid, one.kind, one.method))

    def reopen(self) -> None:
        """Begin anew in a forked child."""
        self._devices.reopen()
        self._around = {}

    def close(self) -> None:
        """Do nothing: the SDK exports what was counted."""

    def _note(self, call: Call) -> None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            _keep(self._around, call.call_id, context)

    def _trace(self, tracer: trace.Tracer, row: Record) -> None:
        around = self._around.pop(row.call_id, None)
        parent = None if around is None else trace.set_span_in_context(trace.NonRecordingSpan(around))
        begin_ns = round(datetime.fromisoformat(row.start).timestamp() * 1e9)
        told = figures_of([row])
        if row.model:
            told["gen_ai.request.model"] = as_label(row.model)
        span = tracer.start_span(as_label(row.name) or "call", parent, attributes=told, start_time=begin_ns)
        if row.status == "error":
            span.set_status(trace.StatusCode.ERROR, row.error_type or "")
        span.end(begin_ns + round(row.duration_s * 1e9))

    def _powers(self, _: CallbackOptions) -> Iterable[Observation]:
        found: list[Observation] = []
        for trace_ in self._source().sampler.readers.traces:
            channel = trace_.channel
            if len(trace_.curve) > 1:
                found.append(
                    metrics.Observation(
                        trace_.last_power_w,
                        _hardware(channel.id, channel.device, channel.kind, channel.method),
                    )
                )
        return found


def _hardware(device: str, uuid: str, kind: str, method: str) -> Attributes:
    """Return the attributes that the conventions ask for, and how the figure came about."""
    return {
        "hw.id": as_label(uuid) or device,
        "hw.name": device,
        "hw.type": "memory" if kind == "dram" else kind,
        "aimeter.method": method,
    }


def note_begins(note: Callable[[Call], None], meter: Meter | None) -> None:
    """Have a function told of each call of a meter as it begins, in the context in which it does."""
    source = default_meter if meter is None else meter.source

    def note_own(call: Call) -> None:
        if call.meter is source():  # others may share its sampler
            note(call)

    source().sampler.intake.tell_of_begins(note_own)


def _keep(noted: dict[str, T], call_id: str, what: T) -> None:
    """Note something of a call until its row comes."""
    noted[call_id] = what
    if len(noted) > _MOST_NOTED:
        noted.pop(next(iter(noted)), None)


def _key(context: SpanContext) -> _Key:
    return context.trace_id, context.span_id
