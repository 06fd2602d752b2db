"""What each tool can show, by its own documentation: every claim names a phrase, which must stand in the version tried.

A description is that of the distribution on PyPI, which is installed with it; other places are files of the package.
aimeter's are pages of its documentation.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.tools import TOOLS
from benchmarks.peers.tools.face import Tool

DOCS = Path(__file__).parents[2] / "docs"
DESCRIPTION = "description"


class Claim(NamedTuple):
    """What the table says, where it is from, and what stands there."""

    text: str
    place: str
    phrase: str


PAGE, LIVE, NOTEBOOK, METRICS, GRAMS, UNITS, SPREAD, COMMAND, HARDWARE = FEATURES = (
    "a page or picture to send",
    "power, live",
    "made for notebooks",
    "Prometheus, OpenTelemetry",
    "grams of CO2e",
    "joules a token or step",
    "an error or a spread",
    "a whole command",
    "beside NVIDIA and RAPL",
)

CLAIMS: Mapping[str, Mapping[str, Claim]] = {
    "aimeter": {
        PAGE: Claim("`aimeter report --html`, also `--png`, `--svg`", "how-to/report.md", "--html"),
        LIVE: Claim("`aimeter watch`, with the calls", "reference/cli.md", "## `aimeter watch`"),
        NOTEBOOK: Claim("`%%aimeter`", "how-to/report.md", "%%aimeter"),
        METRICS: Claim(
            "both; spans carry their calls' joules",
            "how-to/opentelemetry.md",
            "from aimeter.exporters.otel import",
        ),
        GRAMS: Claim("each call, with its error", "reference/columns.md", "`co2e_error_g`"),
        UNITS: Claim("tokens, images, steps, items", "how-to/attach.md", "tokens"),
        SPREAD: Claim("error of each call", "reference/columns.md", "95 % half-width"),
        COMMAND: Claim("`aimeter run`", "how-to/run-a-command.md", "aimeter run"),
    },
    "zeus": {
        LIVE: Claim(
            "GPUs, `python -m zeus.monitor power`", "zeus/monitor/__main__.py", "python -m zeus.monitor"
        ),
        METRICS: Claim("Prometheus, by push", "zeus/metric.py", "via Prometheus"),
        GRAMS: Claim(
            "`CarbonEmissionMonitor`, GPUs", "zeus/monitor/carbon.py", "Measure the carbon emission"
        ),
        COMMAND: Claim(
            "beside it, `python -m zeus.monitor energy`",
            "zeus/monitor/__main__.py",
            "Measure the time and energy of GPUs",
        ),
        HARDWARE: Claim(
            "AMD and Apple GPUs, Jetson", DESCRIPTION, "AMD GPU, Apple Silicon, and NVIDIA Jetson"
        ),
    },
    "pyjoules-context": {
        NOTEBOOK: Claim("a pandas frame", "pyJoules/handler/pandas_handler.py", "class PandasHandler"),
    },
    "codecarbon-task": {
        PAGE: Claim(
            "`carbonboard`, a local web app; dashboard with an account",
            DESCRIPTION,
            "or locally with [carbonboard]",
        ),
        LIVE: Claim(
            "dashboard with an account, `codecarbon monitor`",
            "codecarbon/cli/main.py",
            "Monitor your machine's carbon emissions.",
        ),
        METRICS: Claim(
            "Prometheus by push, Logfire",
            "codecarbon/output_methods/metrics/prometheus.py",
            "push_to_gateway",
        ),
        GRAMS: Claim("each task or run", DESCRIPTION, "carbon intensity of the region"),
        COMMAND: Claim(
            "`codecarbon monitor -- ...`", DESCRIPTION, "codecarbon monitor --no-api -- python train.py"
        ),
        HARDWARE: Claim(
            "AMD GPUs, Apple, Windows; estimates where there is no meter",
            "codecarbon/core/windows_emi.py",
            "EMI",
        ),
    },
    "joules": {
        PAGE: Claim(
            "on wattops.dev, with an account", DESCRIPTION, "Each tracked run appears on the Tracking page"
        ),
        LIVE: Claim("on wattops.dev, `joules agent`", DESCRIPTION, "Live** page"),
        NOTEBOOK: Claim("`joules.connect()`", DESCRIPTION, "In a Kaggle, Colab or Jupyter notebook"),
        METRICS: Claim(
            "Prometheus, from `joules agent` and `joules proxy`",
            DESCRIPTION,
            "http://127.0.0.1:9877/jobs and /metrics",
        ),
        GRAMS: Claim("session or command", DESCRIPTION, "CO₂ 577 g at 370 g/kWh"),
        UNITS: Claim(
            "tokens with `joules bench` and `joules proxy`, steps", DESCRIPTION, "Energy per token of a model"
        ),
        SPREAD: Claim(
            "spread of a name's phases; p-value of `joules compare`",
            DESCRIPTION,
            "median energy and time, quartiles",
        ),
        COMMAND: Claim("`joules run`", DESCRIPTION, "`joules run -- CMD …`"),
        HARDWARE: Claim("AMD and Intel GPUs, Apple, Windows", DESCRIPTION, "Intel GPUs (Arc, Flex, Max)"),
    },
    "codegreen": {
        PAGE: Claim("power over time, `export_plot`", DESCRIPTION, 's.export_plot("infer.html")'),
        LIVE: Claim("samples to a file, `codegreen monitor`", DESCRIPTION, "codegreen monitor -d 30"),
        METRICS: Claim("both, from `codegreen monitor`", DESCRIPTION, "optional OTLP / Prometheus export"),
        SPREAD: Claim(
            "spread of samples in a task, and over `codegreen run --repeat`",
            DESCRIPTION,
            "codegreen run --repeat 20",
        ),
        COMMAND: Claim("`codegreen run`", DESCRIPTION, "codegreen run -- python script.py"),
        HARDWARE: Claim("Apple, Windows", DESCRIPTION, "IOReport on macOS, EMI on Windows"),
    },
}
"""By tool; a feature that its documentation does not name is left out."""


def shown(make: Callable[[], Tool], _devices: object, _options: object) -> dict[str, Any]:
    """Look up each claim of a tool; return by feature whether its phrase is there."""
    name = next(name for name, kind in TOOLS.items() if kind is make)
    found = {
        feature: " ".join(claim.phrase.split()) in " ".join(_text(make, claim.place).split())
        for feature, claim in CLAIMS[name].items()
    }
    return {"shown": found}


def _text(kind: Any, place: str) -> str:
    distribution = importlib.metadata.distribution(kind.distribution)
    if place == DESCRIPTION:
        return distribution.read_text("METADATA") or ""
    own = DOCS / place
    file = own if own.is_file() else Path(str(distribution.locate_file(place)))
    return file.read_text("utf-8")
