"""A real Prometheus scrapes a real server with two workers, and Grafana's queries run on what it has."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from aimeter.exporters.prometheus import PrometheusSink
from aimeter.report import read
from tests.programs import environment

if TYPE_CHECKING:
    from aimeter.record import Record

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "grafana"
DASHBOARD = json.loads((EXAMPLE / "dashboard.json").read_text("utf-8"))
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$name": ".*", "$model": ".*", "$budget_wh": "100"}

needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")


def filled(query: str) -> str:
    """Return a panel's query as Grafana sends it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def got(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def until(found: Any, timeout_s: float = 120) -> Any:
    """Ask until something is found: other programs start, and are slow."""
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            if result := found():
                return result
        except (OSError, urllib.error.URLError):
            pass
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Scraped(NamedTuple):
    """Where things are: Prometheus, the server that it scrapes, and the server's log."""

    prometheus: str
    server: str
    log: Path


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Run the example's server with two workers under load, and a Prometheus that scrapes it."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    folder = tmp_path_factory.mktemp("scraped")
    (folder / "counts").mkdir()
    log, port, prometheus_port = folder / "calls.csv", free_port(), free_port()
    config = (EXAMPLE / "prometheus.yml").read_text("utf-8")
    (folder / "prometheus.yml").write_text(
        config.replace("server:8000", f"127.0.0.1:{port}").replace("5s", "500ms"), "utf-8"
    )
    settings = {
        "AIMETER_LOG": str(log),
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "counts"),
        "AIMETER_REGION": "FR",
    }
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "server:app", "--port", str(port), "--workers", "2"],
            cwd=EXAMPLE,
            env=environment(settings) | {"PYTHONDONTWRITEBYTECODE": "1"},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ),
        subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{prometheus_port}",
            ],
            env={"PATH": os.environ["PATH"]},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ),
    ]
    try:
        server = f"http://127.0.0.1:{port}"
        until(lambda: got(f"{server}/answer?question=warm&tokens=1"))
        with ThreadPoolExecutor(4) as pool:
            questions = [f"{server}/answer?question=why+{k}&tokens=20" for k in range(40)]
            assert len(list(pool.map(got, questions))) == 40
        yield Scraped(f"http://127.0.0.1:{prometheus_port}", server, log)
    finally:
        for program in programs:
            program.terminate()
        for program in programs:
            program.wait(60)


def asked(prometheus: str, query: str) -> list[dict[str, Any]]:
    answer = json.loads(got(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    assert answer["status"] == "success"
    return list(answer["data"]["result"])


def value(prometheus: str, query: str) -> float:
    found = asked(prometheus, query)
    return float(found[0]["value"][1]) if found else 0.0


@needs_prometheus
def test_what_prometheus_has_is_what_the_log_has(scraped: Scraped):
    """Two workers' calls, joules, grams and tokens are those of the log's rows, each once."""

    def settled() -> list[Record] | None:
        rows = list(read(scraped.log))
        return rows if value(scraped.prometheus, "sum(aimeter_calls_total)") == len(rows) > 40 else None

    rows = until(settled)
    assert len({row.pid for row in rows}) == 2
    sums = {
        "aimeter_tokens_total{direction='out'}": sum(row.tokens_out or 0 for row in rows),
        "aimeter_tokens_total{direction='in'}": sum(row.tokens_in or 0 for row in rows),
        "aimeter_call_energy_joules_total": sum(row.energy_j or 0 for row in rows),
        "aimeter_co2e_grams_total": sum(row.co2e_g or 0 for row in rows),
    }
    for metric, total in sums.items():
        assert value(scraped.prometheus, f"sum({metric})") == pytest.approx(total, rel=1e-6), metric


@needs_prometheus
def test_every_query_of_the_dashboard_runs(scraped: Scraped):
    """And those on what this server does have an answer."""
    # Nobody makes images; of several workers' devices, what is no call's is left to the query.
    may_be_empty = {"Joules an image A", "Who uses it B", "Estimated part A"}

    def answered() -> bool:
        got(f"{scraped.server}/answer?question=more&tokens=5")  # a rate is one of what goes on
        return (
            not {title for title in QUERIES if not asked(scraped.prometheus, filled(QUERIES[title]))}
            - may_be_empty
        )

    until(answered)


def test_the_dashboard_asks_for_metrics_there_are():
    """Names and labels are those that the sink registers; panels do not overlap, and each says its unit."""
    registry = CollectorRegistry()
    PrometheusSink(registry)
    known = set(registry._names_to_collectors)
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"]
        grid = panel["gridPos"]
        own = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not own & places
        places |= own
    for query in QUERIES.values():
        assert set(re.findall(r"aimeter_\w+", query)) <= known
