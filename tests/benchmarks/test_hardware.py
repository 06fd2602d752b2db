"""The programme for real GPUs: what it reads out of publications is right, and all of it runs on the emulated one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.hardware import page, publications
from benchmarks.hardware.__main__ import plain, record, run
from benchmarks.hardware.board import SwitchedBoard
from benchmarks.hardware.reader import Change, Recording, Seen, in_a_thread
from benchmarks.hardware.trials import TRIALS, Rig

SPANS = [(1.0 + 1.37 * k, 1.5 + 1.37 * k) for k in range(16)]
END_S = 25.0


def _published(energy_j, period_s, window_s, latency_s):
    """A power of this period and window, read every millisecond."""
    times = np.arange(0.5, END_S, period_s)
    return [
        Change(t - 5e-4, t + 5e-4, (energy_j(t - latency_s) - energy_j(t - latency_s - window_s)) / window_s)
        for t in times
    ]


def _energy_j(time):
    """70 W at rest, 330 W more while work runs."""
    return 70.0 * time + 330.0 * float(publications.worked_s(np.array([time]), SPANS)[0])


def test_worked_time_is_the_length_of_the_spans_so_far():
    """Between spans nothing is added, inside one a second a second."""
    found = publications.worked_s(np.array([0.0, 1.25, 2.0, 2.37 + 0.5, 100.0]), SPANS)
    assert found == pytest.approx([0.0, 0.25, 0.5, 1.0, 8.0])


@pytest.mark.parametrize(("window_s", "latency_s"), [(0.026, 0.01), (0.1, 0.0), (1.0, 0.02)])
def test_latency_and_window_of_a_power_are_found(window_s, latency_s):
    """The fit finds what the powers were made with, within its grid."""
    changes = _published(_energy_j, 0.1, window_s, latency_s)
    found = publications.response(changes, SPANS, counter=False)
    assert found is not None
    assert found.latency_s == pytest.approx(latency_s, abs=0.004)
    assert found.window_s == pytest.approx(window_s, abs=0.01)
    assert (found.rest_w, found.load_w) == pytest.approx((70.0, 330.0), rel=0.02)


def test_latency_of_a_counter_is_found():
    """A counter's gain between publications is the integral of a little earlier."""
    times = np.arange(0.5, END_S, 0.1)
    changes = [Change(t, t, _energy_j(t - 0.006)) for t in times]
    found = publications.response(changes, SPANS, counter=True)
    assert found is not None
    assert found.latency_s == pytest.approx(0.006, abs=0.0021)
    assert found.window_s == pytest.approx(0.1)
    assert found.residual < 0.01


def test_period_and_unseen_publications_are_found():
    """A publication of the same value is not seen; the period is that of all."""
    times = [0.1 * k for k in range(100) if k % 10]
    found = publications.steps([Change(t, t, t) for t in times])
    assert found is not None
    assert found.period_s == pytest.approx(0.1)
    assert found.jitter_s == pytest.approx(0.0, abs=1e-9)
    assert found.unseen == pytest.approx(0.09, abs=0.02)


def test_a_recording_integrates_its_meters():
    """The counter between its steps, and a power held until the next."""
    recording = Recording()
    recording.seen = {
        "counter": Seen([Change(t, t, 100.0 * t) for t in np.arange(0, 5, 0.1)], [], 5.0),
        "instant": Seen([Change(0.0, 0.0, 50.0), Change(2.0, 2.0, 150.0)], [], 5.0),
    }
    assert recording.energy_j(1.03, 3.01) == pytest.approx(198.0)
    assert recording.integral_j("instant", 1.0, 3.0) == pytest.approx(200.0)


@pytest.fixture
def rig(nvml):
    """The whole programme in short, on an emulated H100."""
    gpu = nvml.add("h100", latency_s=1e-4)

    def draw(running):
        gpu.set_power((70.0, 400.0, 600.0)[min(running, 2)])

    return Rig(SwitchedBoard(gpu.uuid, draw), in_a_thread, effort=0.01, patience=0.5)


def test_every_trial_runs_on_the_emulated_gpu_and_fills_the_page(rig, tmp_path, monkeypatch):
    """No trial fails, aimeter and the independent reader agree, and figures and recording are written."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    results = plain(run(rig, [name for name in TRIALS if name != "language model"]))
    trials = results["trials"]
    assert [name for name, figures in trials.items() if "failed" in figures] == []
    assert trials["conservation"]["ratio"] == pytest.approx(1, abs=0.1)
    for row in trials["duty cycle"].values():
        assert row["aimeter_j"] == pytest.approx(row["counter_j"], abs=row["error_j"])

    page.keep(results, tmp_path)
    assert page.kept(tmp_path) == [results]
    for table in page.tables(page.kept(tmp_path)).values():
        head, *rows = table.splitlines()
        assert {line.count("|") for line in rows} == {head.count("|")}

    record(rig, results["device"], tmp_path / "recording")
    header, *lines = (tmp_path / "recording" / "readings.csv").read_text().splitlines()
    assert header == "t_s,channel,value,before_s,after_s"
    assert {line.split(",")[1] for line in lines} == {"counter", "instant", "average", "usage"}
    assert len((tmp_path / "recording" / "calls.csv").read_text().splitlines()) == 1 + len(rig.spans)
    assert json.loads((tmp_path / "recording" / "device.json").read_text())["name"] == "NVIDIA H100 80GB HBM3"


def test_the_page_shows_the_figures_that_are_kept():
    """What stands between its marks is what the results say."""
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text, page.tables(page.kept())) == text
