"""Recordings of boards are played through the whole product and held against the meter beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.replay.__main__ import main
from benchmarks.replay.play import play
from benchmarks.replay.recordings import load

REST_W, LOAD_W = 130.0, 430.0
START_S = 1_688_840_907.2
LOADS = [(2.0 + 0.9 * k, 2.35 + 0.9 * k) for k in range(12)]


def drew_j(time_s):
    """Return what the made board had drawn by a time, in joules."""
    worked = sum(np.clip(time_s - begin, 0.0, end - begin) for begin, end in LOADS)
    return REST_W * np.asarray(time_s) + (LOAD_W - REST_W) * worked


@pytest.fixture
def shunt_folder(tmp_path):
    """Write a recording in the form of "Part-time Power Measurements": of a board that publishes 5 % too little."""
    folder = tmp_path / "rtx3090_made"
    folder.mkdir()
    times = np.arange(0.0, 14.0, 1e-3)
    ticks = np.round(times * 2.9335e6).astype(np.int64) % 65536
    watts = np.diff(drew_j(np.append(times, 14.0))) / 1e-3
    words = np.zeros((times.size, 9), "<u2")
    words[:, 0] = ticks
    volts = round(12 / 0.007568)
    words[:, 1] = volts << 4
    words[:, 2] = np.round(watts / (volts * 0.007568 * 0.0488)).astype(int) << 4
    words[:, 4] = 0xFFF0  # below zero: nothing flows
    words[:, 3] = volts << 4
    words.tofile(folder / "PMD_data.bin")
    (folder / "PMD_start_ts.txt").write_text(f"{round(START_S * 1e6) + 50_000}\n")
    edges = [round((START_S + edge) * 1e6) for span in LOADS for edge in span for _ in range(2)]
    (folder / "timestamps.csv").write_text("\n".join(["timestamp", *map(str, edges)]))
    head = "timestamp, utilization.gpu [%], power.draw [W], power.draw.average [W], power.draw.instant [W]"
    rows = []
    for read_s in np.arange(0.0, 13.9, 0.007):
        published_s = 0.1 * np.floor((read_s - 0.03) / 0.1) + 0.03
        mean = (drew_j(published_s) - drew_j(published_s - 1.0)) / 1.05
        instant = (drew_j(published_s) - drew_j(published_s - 0.1)) / 0.1 / 1.05
        local = np.datetime64(round((START_S + read_s + 7200) * 1e3), "ms").astype(
            str
        )  # two zones to the east
        stamp = local.replace("-", "/").replace("T", " ")
        rows.append(f"{stamp}, 0, {mean:.2f}, {mean:.2f}, {instant:.2f}")
    (folder / "gpudata.csv").write_text("\n".join([head, *rows]))
    return folder


def test_a_recording_with_a_shunt_meter(shunt_folder):
    """The gain of the board comes out, and the truth lies inside the error, by its instant power and by its mean."""
    recording = load(shunt_folder)
    assert recording.capability == (8, 6)
    assert recording.calls == pytest.approx(np.array(LOADS), abs=1e-5)
    assert recording.drew_j(2.0, 2.35) == pytest.approx(0.35 * LOAD_W, rel=0.01)
    instant, mean = play(recording, "instant"), play(recording, "usage")
    assert instant.calls == len(LOADS)
    assert instant.gain == pytest.approx(1.05, abs=0.02)
    assert instant.inside == 1.0
    assert mean.inside >= 0.95
    assert play(recording, "counter") is None


def test_the_command_names_what_it_played(shunt_folder, capsys):
    """One line for each way of reading."""
    assert main([str(shunt_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["rtx3090_made", "usage"],
        ["rtx3090_made", "instant"],
    ]


def test_a_folder_that_does_not_tell_its_board_is_refused_with_advice(shunt_folder, capsys):
    """Which timings are documented depends on the board."""
    folder = shunt_folder.rename(shunt_folder.with_name("board"))
    with pytest.raises(SystemExit):
        main([str(folder)])
    assert "--capability" in capsys.readouterr().err
    assert main([str(folder), "--capability", "8.6"]) == 0


def test_the_shipped_recordings_hold_their_counter(pytestconfig):
    """What aimeter recorded of real GPUs: read by the counter, by the instant power and by the mean over 1 s."""
    folders = sorted((pytestconfig.rootpath / "benchmarks" / "hardware" / "recordings").iterdir())
    assert folders
    for folder in folders:
        recording = load(folder)
        assert recording.name == json.loads((folder / "device.json").read_text())["name"]
        for way in ("counter", "instant", "usage"):
            assert play(recording, way).inside >= 0.95, (folder, way)
