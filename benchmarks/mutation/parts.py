"""What is changed: the parts of the code that a wrong joule, error, gram or row would come from, and their tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

PARTS: dict[str, tuple[str, ...]] = {
    "curve": ("_curve/curve", "_curve/resolution"),
    "integral": (
        "_curve/trace",
        "_curve/readings",
        "_curve/counter",
        "_curve/learned",
        "_curve/idle",
        "_curve/health",
        "_curve/integrate/knots",
        "_curve/integrate/power",
        "_curve/integrate/average",
        "_curve/integrate/energy",
    ),
    "response": ("_curve/response", "_curve/response_fit"),
    "steps": ("_curve/step_shape",),
    "calibration": ("_curve/calibration",),
    "shares": (
        "_attribution/shares",
        "_attribution/edges",
        "_attribution/energy",
        "_attribution/closing",
    ),
    "attribution": (
        "_attribution/attribution",
        "_attribution/groups",
        "_attribution/figures",
        "_attribution/forgotten",
    ),
    "rows": ("_attribution/rows",),
    "record": ("record",),
    "sampler": (
        "_sampling/sampler",
        "_sampling/readers",
        "_sampling/intake",
        "_sampling/driver",
        "_sampling/pace",
        "_sampling/search",
    ),
    "call": ("_calls/call", "_calls/figures", "_calls/labels", "_calls/stamps"),
    "appended files": ("logs/appendfile",),
    "report": (
        "report/summary",
        "report/tally",
        "report/sums",
        "report/tree",
        "report/division",
        "report/processes",
    ),
    "estimate": ("sensors/estimate",),
    "NVML": ("sensors/nvml", "sensors/nvml_gpu"),
    "powercap": ("sensors/powercap", "sensors/rapl"),
    "visible devices": ("sensors/visible",),
    "carbon tables": ("carbon/tables",),
    "carbon feed": ("carbon/feed",),
    "transformers": ("adapters/transformers", "adapters/generation"),
}
"""Each part is one step on the way from a reading to a row, or a source of its figures. What only shows, asks or sets up
(commands, doctor, demo, providers of the network) is left out: a slip there is seen by whoever uses it."""

ELSEWHERE: tuple[str, ...] = (
    "tests/attribution",
    "tests/test_end_to_end.py",
    "tests/test_promises.py",
    "tests/calls",
    "tests/curve",
    "tests/sensors",
    "tests/report",
    "tests/logs",
    "tests/sampling",
    "tests/test_unseen.py",
)
"""Asked when those of the module's own folder notice nothing: what may reach a part from afar, rows above all."""

NEVER: tuple[str, ...] = (
    "tests/calls/test_injection.py",
    "tests/calls/test_interruptions.py",
    "tests/logs/test_hostile_logs.py",
)
"""Never asked: they trace every instruction themselves, or take minutes, so that each change would."""

NAMED = {
    "record": ("tests/test_record.py", "tests/logs", "tests/report", "tests/test_program_world.py"),
    "adapters/transformers": ("tests/adapters/test_attach_text.py", "tests/adapters/test_attach_labels.py"),
    "adapters/generation": ("tests/adapters/test_attach_text.py", "tests/adapters/test_attach_labels.py"),
    "_curve/calibration": ("tests/calibration", "tests/curve"),
}
"""Whose tests lie where what uses it has its own."""


def modules(part: str) -> list[str]:
    """Return the paths of a part's modules."""
    return [f"aimeter/{name}.py" for name in PARTS[part]]


def near_tests(module: str) -> list[str]:
    """Return where the tests of a module lie: the same folder, or the file of its name, or beside all folders."""
    name = module.removeprefix("aimeter/").removesuffix(".py")
    if name in NAMED:
        return list(NAMED[name])
    name = name.split("/")[0].lstrip("_")
    for path in (f"tests/{name}", f"tests/test_{name}.py"):
        if (ROOT / path).exists():
            return [path]
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("test_*.py"))
