"""The examples, tried with the doubles of `aimeter.testing`: nothing sleeps, and the true energy is known."""

from __future__ import annotations

import json
import sqlite3
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest
from aimeter_example.carbon import BuildingMix
from aimeter_example.sensor import BoardPower
from aimeter_example.sink import SqliteSink

import aimeter
from aimeter.carbon.providers import Forecaster, ProviderFault
from aimeter.sensors.base import Sensor
from aimeter.sinks import Sink
from aimeter.testing import FakeClock, FakeSensor


def test_the_sensor(tmp_path: Path) -> None:
    """The joules are power times time, and a board that goes is no exception in the program."""
    file = tmp_path / "power1_input"
    file.write_text("5000000\n")
    clock = FakeClock()
    sensor = BoardPower(file, clock)
    assert isinstance(sensor, Sensor)
    with aimeter.Meter(sensors=[sensor], clock=clock, region="FR") as meter:
        with meter.track("metered") as call:
            clock.sleep(2.0)
        assert abs(call.other_j - 10.0) <= call.error_j
        file.unlink()
        with meter.track("unmetered") as later:
            clock.sleep(2.0)
        assert later.record.coverage < 1
        assert "No such file" in sensor.read()[0].reason


def test_the_sink(tmp_path: Path) -> None:
    """Rows arrive, also those for which there was no place at first."""
    folder = tmp_path / "later"
    clock = FakeClock()
    sink = SqliteSink(folder / "calls.db")
    assert isinstance(sink, Sink)
    with aimeter.Meter(sensors=[FakeSensor(clock)], sinks=[sink], clock=clock, region="FR") as meter:
        with meter.track("x"):
            clock.sleep(1.0)
        meter.flush()
        assert "unable to open" in sink.last_fault
        folder.mkdir()
    with closing(sqlite3.connect(folder / "calls.db")) as base:
        assert base.execute("SELECT name, energy_j FROM calls").fetchall() == [("x", pytest.approx(100.0))]
    assert (sink.lost_rows, sink.last_fault) == (0, "")


def test_the_adapter() -> None:
    """The entry point of the installed package teaches `attach` the class; the result is what it was."""
    clock = FakeClock()
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR") as meter:
        wrapper = meter.attach(textwrap.TextWrapper(width=5))
        assert wrapper.wrap("one two three") == ["one", "two", "three"]
        aimeter.detach(wrapper)
        (row,) = meter.records()
    assert (row.name, row.model, row.items) == ("TextWrapper.wrap", "greedy", 3)


def test_the_carbon_provider(tmp_path: Path) -> None:
    """Rows have its value as soon as it has answered, and one without an answer is a fault with a reason."""
    file = tmp_path / "building.json"
    file.write_text(json.dumps([42.0] * 24))
    provider = BuildingMix(file)
    assert isinstance(provider, Forecaster)
    clock = FakeClock()
    settings = {"carbon_provider": provider, "region": "FR"}
    with aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, **settings) as meter:
        for _ in range(200):
            with meter.track("x") as call:
                clock.sleep(1.0)
            if call.record.intensity_source == "building control":
                break
            time.sleep(0.05)  # it is asked in the background
    assert call.co2e_g == pytest.approx(call.energy_j / 3.6e6 * 42.0)
    file.write_text("[1, 2]")
    with pytest.raises(ProviderFault, match="no 24 numbers"):
        provider.series("FR", 0.0, 86400.0)
