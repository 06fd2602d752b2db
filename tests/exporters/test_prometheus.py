"""Metrics for Prometheus: counters that add up to what the devices drew, whoever scrapes, pushes or fails."""

from __future__ import annotations

import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

import aimeter
from aimeter import Meter
from aimeter.exporters.prometheus import PrometheusSink
from aimeter.exporters.series import BUCKETS_J, OTHERS
from aimeter.testing import FakeClock, FakeSensor
from tests.programs import run
from tests.records import make_record
from tests.served import Quiet, served


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def scraped(text: str, metric: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels, as a scrape gives them."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


def shown(registry: CollectorRegistry, metric: str, **labels: str) -> float:
    return scraped(generate_latest(registry).decode(), metric, **labels)


def test_counters_add_up_to_what_the_device_drew(registry: CollectorRegistry, meter: Meter, clock: FakeClock):
    """100 W for 7 s: 700 J of the device are 400 J of calls, of which 200 J are a part's, and 300 J of none."""
    meter.add_sink(PrometheusSink(registry, meter=meter))
    with meter.track("chat", model="tiny", tokens_in=5, tokens_out=7):
        clock.advance(1)
        with meter.track("chat.decode", tokens_out=6):
            clock.advance(2)
    clock.advance(3)
    with pytest.raises(ValueError, match="broken"), meter.track("paint", images=2):
        clock.advance(1)
        message = "broken"
        raise ValueError(message)
    meter.flush()
    total = "aimeter_call_energy_joules_total"
    assert shown(registry, total, nested="no", method="counter") == pytest.approx(400)
    assert shown(registry, total, name="chat", model="tiny", status="ok") == pytest.approx(300)
    assert shown(registry, total, nested="yes") == shown(registry, total, name="chat.decode")
    assert shown(registry, total, nested="yes") == pytest.approx(200)
    device = {"device": "gpu:0", "uuid": "FAKE-gpu:0", "method": "counter"}
    assert shown(registry, "aimeter_device_energy_joules_total", **device) == pytest.approx(700)
    assert shown(registry, "aimeter_unattributed_energy_joules_total", **device) == pytest.approx(300)
    assert shown(registry, "aimeter_co2e_grams_total", nested="no") == pytest.approx(400 * 360 / 3.6e6)
    assert shown(registry, "aimeter_calls_total", name="paint", status="error") == 1
    tokens = "aimeter_tokens_total"
    assert shown(registry, tokens, nested="no", direction="in") == 5
    assert shown(registry, tokens, name="chat.decode", direction="out") == 6
    assert shown(registry, "aimeter_images_total", name="paint") == 2
    assert shown(registry, "aimeter_energy_per_call_joules_count") == 3
    assert shown(registry, "aimeter_energy_per_call_joules_sum", name="chat") == pytest.approx(300)
    assert shown(registry, "aimeter_energy_per_call_joules_bucket", name="paint", le="100.0") == 1


def test_estimates_and_counters_are_never_one_series(registry: CollectorRegistry):
    """Each part of a call's joules is counted by how it was measured; a call without energy is a call all the same."""
    sink = PrometheusSink(registry)
    mixed = {"energy_j": 10.0, "gpu_j": 6.0, "cpu_j": 3.0, "dram_j": None, "other_j": 1.0}
    sink.write(
        [
            make_record(name="a", gpu_method="counter", cpu_method="estimate", dram_method="none", **mixed),
            make_record(
                name="a",
                energy_j=None,
                gpu_j=None,
                cpu_j=None,
                co2e_g=None,
                cpu_method="none",
                gpu_method="none",
            ),
        ]
    )
    joules = {
        method: shown(registry, "aimeter_call_energy_joules_total", method=method)
        for method in ("counter", "power", "estimate", "other", "none")
    }
    assert joules == {"counter": 6, "power": 0, "estimate": 3, "other": 1, "none": 0}
    assert shown(registry, "aimeter_calls_total", method="estimate") == 1
    assert shown(registry, "aimeter_calls_total") == 2
    assert shown(registry, "aimeter_energy_per_call_joules_count") == 1


def test_names_without_end_have_series_with_an_end(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
):
    """Calls of more names than there are series for are counted together, which is said once; none is lost."""
    sink = PrometheusSink(registry, most_names=10)
    for batch in range(5):
        sink.write([make_record(name=f"user {batch}-{k}", energy_j=1.0, gpu_j=1.0) for k in range(20)])
    text = generate_latest(registry).decode()
    assert scraped(text, "aimeter_calls_total") == 100
    assert scraped(text, "aimeter_calls_total", name=OTHERS) == 90
    assert scraped(text, "aimeter_energy_per_call_joules_sum") == 100
    names = {
        sample.labels["name"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "name" in sample.labels
    }
    assert len(names) == 11
    assert len([one for one in caplog.records if OTHERS in one.getMessage()]) == 1


@pytest.mark.parametrize("name", ["", "\ud800 lone", 'quote " and \\', "line\nbreak", "\x1b[31m", "é" * 5000])
def test_any_name_can_be_scraped(registry: CollectorRegistry, name: str):
    """One odd name would otherwise cost all metrics of the program, at every scrape."""
    PrometheusSink(registry).write([make_record(name=name, model=name)])
    assert shown(registry, "aimeter_calls_total") == 1
    assert len(generate_latest(registry)) < 40_000


def test_each_class_of_joules_shows_one_of_its_calls(registry: CollectorRegistry):
    """An exemplar leads from a dashboard to the row in the log; calls are in the class that holds them, ends included."""
    joules = [0.0, BUCKETS_J[0], 0.5, 0.6, 2e6]
    PrometheusSink(registry).write(
        [make_record(name="a", call_id=f"id{k}", energy_j=joule) for k, joule in enumerate(joules)]
    )
    text = generate_openmetrics(registry).decode()
    assert [f'call_id="id{k}"' in text for k in range(5)] == [False, True, False, True, True]
    of = {"name": "a"}
    counted = [
        shown(registry, "aimeter_energy_per_call_joules_bucket", le=le, **of)
        for le in ("0.001", "1.0", "+Inf")
    ]
    assert counted == [2, 4, 5]


@contextmanager
def answering(
    status: int, body: bytes = b"", hold: threading.Event | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """Serve an answer of any kind, and note what was sent."""
    received: list[bytes] = []

    class Handler(Quiet):
        def do_PUT(self) -> None:  # noqa: N802 - what http.server calls
            received.append(self.body())
            if hold is not None:
                hold.wait()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as address:
        try:
            yield address, received
        finally:
            if hold is not None:
                hold.set()


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    """Make a default meter with a fake device of 50 W."""
    monkeypatch.setattr(aimeter._api, "_meter", None)
    clock = FakeClock()
    meter = aimeter.configure(sensors=[FakeSensor(clock, power_w=lambda _: 50.0)], clock=clock)
    yield clock
    aimeter.default_meter().close()
    meter.close()


def test_a_batch_job_pushes_what_it_used(registry: CollectorRegistry, default: FakeClock):
    """The gateway has the sum of the calls, the last one included, although nothing was flushed before."""
    aimeter.add_sink(PrometheusSink(registry))
    with answering(200) as (gateway, received):
        with aimeter.track("job"):
            default.advance(2)
        assert aimeter.push_metrics(gateway, "nightly", registry=registry)
    assert scraped(received[0].decode(), "aimeter_call_energy_joules_total") == pytest.approx(100)


@pytest.mark.parametrize("fault", ["down", "garbage", "refuses", "hangs"])
def test_a_gateway_that_fails_costs_a_line(
    registry: CollectorRegistry, default: FakeClock, caplog: pytest.LogCaptureFixture, fault: str
):
    """Whatever it does, the job goes on, other sinks have their rows, and the log says why once."""
    aimeter.add_sink(PrometheusSink(registry))
    with aimeter.track("job"):
        default.advance(2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    hold = threading.Event() if fault == "hangs" else None
    with answering(500 if fault == "refuses" else 200, b"\0", hold) as (gateway, _):
        given = {"down": nobody, "garbage": "not a host at all:xyz"}.get(fault, gateway)
        pushed = aimeter.push_metrics(given, "nightly", registry=registry, timeout_s=0.2)
    assert pushed is False
    assert len([one for one in caplog.records if "No metrics were pushed" in one.getMessage()]) == 1
    assert [row.name for row in aimeter.records()] == ["job"]


def test_metrics_are_served_and_go_on_with_another_configuration(
    registry: CollectorRegistry, default: FakeClock
):
    """Configured anew, and asked to serve twice, calls are counted once."""
    port = aimeter.serve_metrics(0, registry=registry)
    with aimeter.track("a"):
        default.advance(1)
    fresh = aimeter.configure(sensors=[FakeSensor(default, power_w=lambda _: 50.0)], clock=default)
    aimeter.serve_metrics(0, registry=registry)
    with aimeter.track("a"):
        default.advance(1)
    fresh.flush()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert scraped(text, "aimeter_calls_total") == 2
    assert scraped(text, "aimeter_call_energy_joules_total") == pytest.approx(100)
    assert scraped(text, "aimeter_device_energy_joules_total") == pytest.approx(100)


def test_a_sink_is_added_once(registry: CollectorRegistry):
    """However often it is given, and to the constructor as well; what is no sink is refused at once."""
    clock = FakeClock()
    sink = PrometheusSink(registry)
    meter = Meter(sensors=[FakeSensor(clock, power_w=lambda _: 1.0)], clock=clock, sinks=[sink])
    meter.add_sink(sink)
    with meter.track("a"):
        clock.advance(1)
    meter.flush()
    assert shown(registry, "aimeter_calls_total") == 1
    with pytest.raises(TypeError, match="no sink"):
        meter.add_sink(print)  # type: ignore[arg-type]
    meter.close()


def test_a_port_that_is_taken_is_told_at_once(registry: CollectorRegistry, default: FakeClock):
    """With what to do about it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(aimeter.ConfigurationError, match="another port"),
    ):
        aimeter.serve_metrics(taken.getsockname()[1], registry=registry)


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """One line, where the function is asked for."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "aimeter.exporters.prometheus")
    monkeypatch.delitem(vars(aimeter), "serve_metrics", raising=False)
    with pytest.raises(aimeter.ConfigurationError, match="install `prometheus-client`"):
        _ = aimeter.serve_metrics


WORKERS = """
import urllib.request
from aimeter.testing import FakeClock
clock = FakeClock()
aimeter.configure(sensors=[FakeSensor(clock, power_w=lambda _: 100.0)], clock=clock)
leads, told = os.pipe()
done, ended = os.pipe()
child = os.fork()
if child:
    port = aimeter.serve_metrics(0)
    os.write(told, b"x")
else:
    os.read(leads, 1)
    assert aimeter.serve_metrics(12345) == 12345  # the parent serves, and the port is not even tried
for _ in range(2 if child else 3):
    with aimeter.track("work"):
        clock.advance(1)
    clock.advance(1)
aimeter.flush()
if not child:
    os.write(ended, b"x")
    os._exit(0)
os.read(done, 1)
os.waitpid(child, 0)
print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
"""


def test_workers_count_together_and_their_device_once(tmp_path: Path):
    """Two and three calls of 100 J are 500 J; the device, which both see, has the 300 J that its owner saw."""
    (counts := tmp_path / "counts").mkdir()
    text = run(WORKERS, tmp_path / "calls.csv", environ={"PROMETHEUS_MULTIPROC_DIR": str(counts)})
    assert scraped(text, "aimeter_calls_total") == 5
    assert scraped(text, "aimeter_call_energy_joules_total", nested="no") == pytest.approx(500)
    assert scraped(text, "aimeter_device_energy_joules_total") == pytest.approx(300)
    assert "aimeter_unattributed_energy_joules_total{" not in text
