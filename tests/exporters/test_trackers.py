"""Totals for experiment trackers: sums that agree with the table, logged now and then and at the end."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import aimeter
from aimeter import Meter
from aimeter.exporters.trackers import TotalsSink
from aimeter.testing import FakeClock
from tests.records import make_record

Logged = list[tuple[dict[str, float], int]]


@pytest.fixture
def logged() -> Logged:
    return []


@pytest.fixture
def sink(logged: Logged) -> TotalsSink:
    return TotalsSink(lambda metrics, step: logged.append((dict(metrics), step)), every_s=0.0)


def test_the_sums_are_those_of_the_calls(meter: Meter, clock: FakeClock, sink: TotalsSink, logged: Logged):
    """In all each joule once; of a name what its calls used, and what each unit of them took."""
    meter.add_sink(sink)
    for _ in range(2):
        with meter.track("chat", items=1, tokens_out=4):
            clock.advance(1)
            with meter.track("draw", images=2):
                clock.advance(2)
    meter.flush()
    metrics, step = logged[-1]
    assert step == 4
    assert metrics["aimeter/energy_j"] == pytest.approx(600)
    assert metrics["aimeter/calls"] == 2
    assert metrics["aimeter/co2e_g"] == pytest.approx(600 * 360 / 3.6e6)
    assert metrics["aimeter/chat/energy_j"] == pytest.approx(600)
    assert metrics["aimeter/draw/energy_j"] == pytest.approx(400)
    assert metrics["aimeter/chat/j_per_item"] == pytest.approx(300)
    assert metrics["aimeter/draw/j_per_image"] == pytest.approx(100)
    assert metrics["aimeter/energy_error_j"] == meter.summary().total.energy_error_j


def test_a_run_ends_with_its_last_call(logged: Logged):
    """Between two times nothing is logged, and at the end what came since; once."""
    sink = TotalsSink(lambda metrics, step: logged.append((dict(metrics), step)), every_s=1e9)
    for _ in range(3):
        sink.write([make_record(energy_j=1.0)])
    assert [step for _, step in logged] == [1]
    sink.close()
    sink.close()
    assert [(metrics["aimeter/energy_j"], step) for metrics, step in logged] == [(1.0, 1), (3.0, 3)]


def test_odd_names_are_names_of_metrics(sink: TotalsSink, logged: Logged):
    """Trackers refuse a batch for one name that has a sign they do not know."""
    sink.write([make_record(name='GET /items/{id} "x"'), make_record(name="")])
    assert {key.rpartition("/")[0] for key in logged[-1][0]} >= {"aimeter/GET /items/_id_ _x_", "aimeter/_"}


def test_a_tracker_that_fails_costs_its_own_numbers_only(
    meter: Meter, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    """One line; rows, memory and calls go on."""

    def broken(_: Mapping[str, float], __: int) -> None:
        message = "no run"
        raise RuntimeError(message)

    meter.add_sink(TotalsSink(broken, every_s=0.0))
    for _ in range(3):
        with meter.track("x"):
            clock.advance(1)
        meter.flush()
    assert len(meter.records()) == 3
    assert len([one for one in caplog.records if "no run" in one.getMessage()]) == 1


def test_what_is_no_function_is_refused_at_once():
    with pytest.raises(aimeter.ConfigurationError, match="must be a function"):
        TotalsSink("mlflow")  # type: ignore[arg-type]
