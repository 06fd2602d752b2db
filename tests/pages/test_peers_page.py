"""The page that compares aimeter with its peers says what the results say, and the comparison counts rightly."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers import environments, page, plots, shown, tables
from benchmarks.peers.cpu import CONTROL, IDLE_W, Cpu
from benchmarks.peers.load import LONGEST_S, SHORTEST_S, plans
from benchmarks.peers.tools import face

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results():
    return json.loads((ROOT / "benchmarks" / "peers" / "results.json").read_text("utf-8"))


def test_the_tables_are_those_of_the_results(results):
    """Filling the page anew from results.json changes nothing."""
    text = page.PAGE.read_text("utf-8")
    assert page.filled(text, tables.tables(results)) == text


def test_the_plots_are_those_of_the_results(results):
    """Drawing the plots anew from results.json changes nothing."""
    for name, drawing in plots.plots(results).items():
        assert (page.PAGE.parent / name).read_text("utf-8") == drawing


def test_each_table_and_plot_has_its_place(results):
    """No table is left out, none stands twice, and every plot is shown."""
    text = page.PAGE.read_text("utf-8")
    assert sorted(page.places(text)) == sorted(tables.tables(results))
    assert all(f"]({name})" in text for name in plots.plots(results))


def test_the_results_are_of_a_full_run(results):
    """Every tool made its calls with both counters, and every bin has enough of them."""
    for counter, runs in results["errors"].items():
        assert len(runs) >= (2 if "late" in counter else 8)
        assert {len(calls) for calls in runs.values()} == {results["machine"]["calls"]}
        for name, low, high in tables.BINS:
            for tool, calls in runs.items():
                assert sum(low <= row[tables.LENGTH] < high for row in calls) >= 15, (tool, name)


def test_the_results_are_of_the_versions_that_the_command_installs(results):
    """A pin that was changed asks for a new run; and what was measured is a commit, without changes beside it."""
    for tool, version in results["versions"].items():
        family = tool.partition("-")[0]
        if family != "aimeter":
            project, _, pinned = environments.REQUIREMENTS[family][0].partition("==")
            assert (project.partition("[")[0], pinned) == (tables.PROJECTS[family], version)
    assert sorted(results["versions"]) == sorted(tables.LABELS)
    assert re.fullmatch("[0-9a-f]{7,}", results["machine"]["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", results["machine"]["date"])


def test_every_claim_stands_in_the_documentation_that_it_names(results):
    """Of the peers as the benchmark found it, of aimeter as it is now."""
    found = {
        tool: {feature for feature, there in seen.items() if there} for tool, seen in results["shown"].items()
    }
    assert found == {tool: set(claims) for tool, claims in shown.CLAIMS.items()}
    for claim in shown.CLAIMS["aimeter"].values():
        assert claim.phrase in (shown.DOCS / claim.place).read_text("utf-8"), claim


def test_rows_of_a_log_are_counted_whatever_its_form(tmp_path):
    """The longest table of several counts, without its heading; phases of a JSON file count; no log has no rows."""
    (csvs := tmp_path / "csvs").mkdir()
    (csvs / "runs.csv").write_text("run\na\n")
    (csvs / "tasks.csv").write_text("task\na\nb\n")
    (json_log := tmp_path / "json").mkdir()
    (json_log / "phases.json").write_text(json.dumps({"phases": [{"started_at": 1.0}, {"started_at": 2.0}]}))
    assert [face.rows(folder) for folder in (csvs, json_log)] == [("CSV", 2), ("JSON", 2)]
    (tmp_path / "empty").mkdir()
    assert face.rows(tmp_path / "empty")[1] == 0


def test_bias_weighs_calls_by_their_joules():
    """Bias is what all calls together are off by; a call without a reading has no part in it."""
    rows = [[0.1, 10.0, 1.0, 5.0], [0.1, 90.0, 1.0, 95.0], [0.1, 50.0, 1.0, None]]
    assert tables.bias(rows, tables.GPU_TRUE, tables.GPU) == pytest.approx(0.0)
    assert tables.relative_errors(rows, tables.GPU_TRUE, tables.GPU) == pytest.approx([-0.5, 5 / 90])


def test_a_percentile_lies_between_the_values_beside_it():
    """The 95th percentile of 1 to 101 is 96; that of one value is the value."""
    assert tables.percentile([float(value) for value in range(1, 102)], 95) == pytest.approx(96.0)
    assert tables.percentile([3.0], 95) == 3.0


def test_every_tool_is_given_the_same_calls():
    """Plans are the same each time, with lengths spread evenly over the logarithm."""
    made = plans(60)
    assert made == plans(60)
    lengths = sorted(plan.length_s for plan in made)
    assert SHORTEST_S < lengths[0] < lengths[-1] < LONGEST_S
    steps = [math.log(b / a) for a, b in itertools.pairwise(lengths)]
    assert max(steps) == pytest.approx(min(steps))


def test_the_emulated_cpu_knows_what_it_drew(tmp_path):
    """Power follows what is sent, and the energy of a span before that is the idle power's."""
    folder = tmp_path / "tree"
    command = [sys.executable, "-m", "benchmarks.peers.cpu", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            cpu = Cpu(folder / CONTROL)
            ready = time.perf_counter()
            cpu.true_energy_j(ready, ready)
            time.sleep(0.1)
            begin = time.perf_counter()
            cpu.set_power(100.0)
            cpu.true_energy_j(begin, begin)  # its answer says that the line before has been read
            changed = time.perf_counter()
            assert cpu.true_energy_j(ready, begin) == pytest.approx((begin - ready) * IDLE_W)
            assert cpu.true_energy_j(changed, changed + 1) == pytest.approx(100.0)
            zone = folder / "class" / "powercap" / "intel-rapl" / "intel-rapl:0"
            assert (zone / "name").read_text() == "package-0\n"
            assert (zone / "subsystem" / "intel-rapl:0").exists()
        finally:
            process.terminate()
