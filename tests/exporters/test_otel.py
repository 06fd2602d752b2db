"""OpenTelemetry: spans with the joules of the calls in them, none lost, and metrics in the conventions' names."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import aimeter
from aimeter import Meter
from aimeter.exporters.otel import EnergySpanProcessor, OpenTelemetrySink, figures_of
from aimeter.testing import FakeClock, FakeSensor
from tests.programs import run
from tests.records import make_record
from tests.served import Quiet, served


class Traced:
    """A provider whose spans come out behind the processor, and what came out."""

    def __init__(self, meter: Meter, patience_s: float = 600.0) -> None:
        self.out = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.processor = EnergySpanProcessor(
            SimpleSpanProcessor(self.out), meter=meter, patience_s=patience_s
        )
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.out.get_finished_spans()}


@pytest.fixture
def traced(meter: Meter) -> Traced:
    return Traced(meter)


def joules(span: ReadableSpan) -> float:
    found = (span.attributes or {})["aimeter.energy_j"]
    assert isinstance(found, float)
    return found


def test_a_span_waits_for_its_calls_and_has_their_joules(meter: Meter, clock: FakeClock, traced: Traced):
    """The call of the inner span is not the outer one's; a span without calls goes on at once, as it is."""
    with traced.tracer.start_as_current_span("request", attributes={"own": 1}):
        with traced.tracer.start_as_current_span("model"), meter.track("chat", model="tiny") as chat:
            clock.advance(2)
        with traced.tracer.start_as_current_span("query"):
            pass
        with meter.track("encode"):
            clock.advance(1)
    assert "query" in traced.spans
    assert "aimeter.energy_j" not in (traced.spans["query"].attributes or {})
    meter.flush()
    assert joules(traced.spans["model"]) == pytest.approx(200)
    assert joules(traced.spans["request"]) == pytest.approx(100)
    found = dict(traced.spans["model"].attributes or {})
    record = chat.record
    assert record is not None
    assert found == {
        "aimeter.calls": 1,
        "aimeter.call_id": record.call_id,
        "aimeter.energy_j": record.energy_j,
        "aimeter.error_j": pytest.approx(record.error_j),
        "aimeter.co2e_g": record.co2e_g,
        "aimeter.method": "counter",
    }
    assert (traced.spans["request"].attributes or {})["own"] == 1


def test_all_of_a_span_survives_the_wait(meter: Meter, clock: FakeClock, traced: Traced):
    """Name, times, ids, parent, events, links, status, resource and scope are those of the span as it ended."""
    seen: list[ReadableSpan] = []
    plain = TracerProvider(resource=traced.provider.resource)
    plain.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    with (
        traced.tracer.start_as_current_span("outer") as outer,
        traced.tracer.start_as_current_span("inner") as inner,
    ):
        with meter.track("x"):
            clock.advance(1)
        inner.add_event("an event", {"key": "value"})
        inner.add_link(outer.get_span_context())
        inner.set_status(StatusCode.ERROR, "it broke")
        seen.append(inner)  # type: ignore[arg-type]
    meter.flush()
    (before,), after = seen, traced.spans["inner"]
    for name in (
        "name",
        "start_time",
        "end_time",
        "parent",
        "kind",
        "status",
        "resource",
        "instrumentation_scope",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert after.context == before.context
    assert [event.name for event in after.events] == ["an event"]
    assert len(after.links) == 1
    assert after.to_json()


def test_calls_inside_others_are_counted_once(meter: Meter, clock: FakeClock, traced: Traced):
    """A call's parts in the same span are in its joules already."""
    with traced.tracer.start_as_current_span("span"), meter.track("chat"):
        clock.advance(1)
        with meter.track("chat.decode"):
            clock.advance(2)
    meter.flush()
    assert joules(traced.spans["span"]) == pytest.approx(300)
    assert (traced.spans["span"].attributes or {})["aimeter.calls"] == 2


def test_tasks_have_spans_of_their_own(meter: Meter, clock: FakeClock, traced: Traced):
    """Calls of concurrent tasks are told of on the span that was current in each."""

    async def one(name: str, turns: int) -> None:
        with traced.tracer.start_as_current_span(name):
            async with meter.track(name):
                for _ in range(turns):
                    await asyncio.sleep(0)
                    clock.advance(1)

    async def both() -> None:
        await asyncio.gather(one("a", 2), one("b", 4))

    asyncio.run(both())
    meter.flush()
    rows = {row.name: row for row in meter.records()}
    assert {name: joules(span) for name, span in traced.spans.items()} == {
        name: row.energy_j for name, row in rows.items()
    }


def test_a_call_that_outlives_its_span_holds_it_so_long_and_no_longer(meter: Meter, clock: FakeClock):
    """Without patience it goes on at once, without figures that nobody knows yet."""
    traced = Traced(meter, patience_s=0.0)
    with traced.tracer.start_as_current_span("span"):
        call = meter.track("long")
        call.__enter__()
    waiting = threading.Event()
    while "span" not in traced.spans and not waiting.wait(0.01):
        pass
    assert "aimeter.energy_j" not in (traced.spans["span"].attributes or {})
    call.__exit__(None, None, None)
    meter.flush()
    assert [row.name for row in meter.records()] == ["long"]


@pytest.mark.parametrize("end", ["force_flush", "shutdown"])
def test_nothing_is_held_at_the_end(meter: Meter, clock: FakeClock, traced: Traced, end: str):
    """A provider that flushes or shuts down has the calls settled first, and all spans."""
    with traced.tracer.start_as_current_span("span"), meter.track("x"):
        clock.advance(3)
    getattr(traced.provider, end)()
    assert joules(traced.spans["span"]) == pytest.approx(300)


ROWS = [
    make_record(call_id="1", energy_j=30.0, error_j=5.0, resolution_j=4.0, co2e_g=1.0, gpu_method="counter"),
    make_record(call_id="2", energy_j=40.0, error_j=5.0, resolution_j=3.0, co2e_g=2.0, gpu_method="power"),
    make_record(call_id="3", parent_id="2", energy_j=9.0),
]


def test_errors_of_several_calls_combine_by_their_kind():
    """Resolutions of 4 and 3 in quadrature are 5; calibrations of 3 and 4 add to 7: the square root of 74."""
    found = figures_of(ROWS)
    assert found["aimeter.energy_j"] == 70
    assert found["aimeter.error_j"] == pytest.approx(74**0.5)
    assert (found["aimeter.co2e_g"], found["aimeter.calls"], found["aimeter.call_id"]) == (3.0, 3, "1")


def test_what_is_unknown_is_left_out():
    """A call that no device metered has no attribute that says 0."""
    found = figures_of([make_record(call_id="1", energy_j=None, error_j=None, co2e_g=None)])
    assert found == {"aimeter.calls": 1, "aimeter.call_id": "1"}


def test_calls_have_spans_of_their_own_if_wanted(meter: Meter, clock: FakeClock):
    """Below the span in which they began, with their own times; an error is one."""
    out = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(out))
    meter.add_sink(
        OpenTelemetrySink(meter=meter, spans=True, tracer_provider=provider, meter_provider=MeterProvider())
    )
    with provider.get_tracer("test").start_as_current_span("request") as request:
        with meter.track("chat", model="tiny"):
            clock.advance(2)
        with pytest.raises(ValueError, match="no"), meter.track("broken"):
            raise ValueError("no")  # noqa: EM101
    meter.flush()
    spans = {span.name: span for span in out.get_finished_spans()}
    chat, row = spans["chat"], meter.records()[0]
    assert chat.parent is not None
    assert chat.parent.span_id == request.get_span_context().span_id
    assert chat.end_time is not None
    assert chat.start_time is not None
    assert (chat.end_time - chat.start_time) / 1e9 == pytest.approx(row.duration_s)
    assert joules(chat) == row.energy_j
    assert (chat.attributes or {})["gen_ai.request.model"] == "tiny"
    assert spans["broken"].status.status_code == StatusCode.ERROR
    assert spans["broken"].status.description == "ValueError"


def measured(reader: InMemoryMetricReader) -> dict[str, list[object]]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: [(metric.unit, point) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_metrics_have_the_conventions_names_and_units(meter: Meter, clock: FakeClock):
    """``hw.energy`` is all that the device drew, calls or not; a call's joules are a histogram with its model."""
    reader = InMemoryMetricReader()
    meter.add_sink(OpenTelemetrySink(meter=meter, meter_provider=MeterProvider([reader])))
    with meter.track("chat", model="tiny"):
        clock.advance(2)
    clock.advance(3)
    with meter.track("chat", model="tiny"):
        clock.advance(1)
    meter.flush()
    found = measured(reader)
    ((unit, drawn),) = found["hw.energy"]  # type: ignore[misc]
    assert (unit, drawn.value) == ("J", pytest.approx(600))
    assert dict(drawn.attributes) == {
        "hw.id": "FAKE-gpu:0",
        "hw.name": "gpu:0",
        "hw.type": "gpu",
        "aimeter.method": "counter",
    }
    ((unit, call),) = found["aimeter.call.energy"]  # type: ignore[misc]
    assert (unit, call.count, call.sum) == ("J", 2, pytest.approx(300))
    assert call.attributes["gen_ai.request.model"] == "tiny"
    ((unit, grams),) = found["aimeter.call.co2e"]  # type: ignore[misc]
    assert (unit, grams.value) == ("g", pytest.approx(300 * 360 / 3.6e6))
    ((unit, power),) = found["hw.power"]  # type: ignore[misc]
    assert (unit, power.value) == ("W", pytest.approx(100))


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A receiver of OTLP over HTTP, and what it received."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(Quiet):
        def do_POST(self) -> None:  # noqa: N802 - what http.server calls
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.body())
            received.append(request)
            self.send_response(200)
            self.end_headers()

    with served(Handler) as address:
        yield f"http://{address}/v1/traces", received


def test_a_collector_receives_the_joules(
    meter: Meter, clock: FakeClock, collector: tuple[str, list[ExportTraceServiceRequest]]
):
    """Over the wire, as Jaeger, Phoenix or Langfuse take them."""
    url, received = collector
    provider = TracerProvider()
    provider.add_span_processor(
        EnergySpanProcessor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)), meter=meter)
    )
    with provider.get_tracer("test").start_as_current_span("chat"), meter.track("chat"):
        clock.advance(2)
    provider.shutdown()
    spans = [
        span
        for request in received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    ((name, attributes),) = [(span.name, {one.key: one.value for one in span.attributes}) for span in spans]
    assert name == "chat"
    assert attributes["aimeter.energy_j"].double_value == pytest.approx(200)


def test_a_program_ends_with_all_of_its_spans(tmp_path: Path):
    """With the real clock, threads, and nothing flushed by the program: the provider's own end does it."""
    said = run(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
        from aimeter.exporters.otel import EnergySpanProcessor
        aimeter.configure(sensors=[sensor()], log=LOG)
        provider = TracerProvider()
        provider.add_span_processor(EnergySpanProcessor(BatchSpanProcessor(ConsoleSpanExporter())))
        trace.set_tracer_provider(provider)
        def work(name):
            with trace.get_tracer("x").start_as_current_span(name), aimeter.track(name):
                sleep(0.05)
        threads = [threading.Thread(target=work, args=[f"span {k}"]) for k in range(5)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
        tmp_path / "calls.csv",
    )
    assert [said.count(f'"name": "span {k}"') for k in range(5)] == [1] * 5
    assert said.count('"aimeter.energy_j"') == 5


def test_the_default_meter_may_be_configured_later(monkeypatch: pytest.MonkeyPatch, clock: FakeClock):
    """Whatever comes first, the processor or the settings."""
    monkeypatch.setattr(aimeter._api, "_meter", None)
    settings = {"sensors": [FakeSensor(clock, power_w=lambda _: 100.0)], "clock": clock}
    first = aimeter.configure(**settings)
    out, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(EnergySpanProcessor(SimpleSpanProcessor(out)))
    second = aimeter.configure(**settings)
    with provider.get_tracer("test").start_as_current_span("span"), aimeter.track("x"):
        clock.advance(2)
    second.flush()
    assert [joules(span) for span in out.get_finished_spans()] == [pytest.approx(200)]
    second.close()
    first.close()


def test_what_fails_in_telling_of_a_begin_costs_the_call_nothing(
    meter: Meter, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    """One line, and the call is metered."""

    def broken(_: object) -> None:
        message = "odd"
        raise ValueError(message)

    meter.sampler.intake.tell_of_begins(broken)
    for _ in range(3):
        with meter.track("x"):
            clock.advance(1)
    meter.flush()
    assert [row.energy_j for row in meter.records()] == pytest.approx([100] * 3)
    assert len([one for one in caplog.records if "could not be told of" in one.getMessage()]) == 1


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """One line, where the module is asked for."""
    for name in ("opentelemetry.sdk", "opentelemetry.sdk.trace"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "aimeter.exporters.otel")
    with pytest.raises(aimeter.ConfigurationError, match=r"aimeter-energy\[otel\]"):
        __import__("aimeter.exporters.otel")
