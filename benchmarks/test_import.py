"""What importing aimeter costs above the interpreter, and what it loads."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.verdict import Finding, slowness


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code], check=True)
    return time.perf_counter() - began


def test_import(note: Callable[[Finding], None], full: bool) -> None:
    """Median over pairs of a process that imports aimeter and one that does not."""
    pairs = [(seconds("import aimeter"), seconds("pass")) for _ in range(40 if full else 15)]
    extra_ms = 1e3 * statistics.median(a - b for a, b in pairs)
    slow = slowness()
    note(Finding("import aimeter, above the interpreter, here", extra_ms, "ms"))
    note(
        Finding(
            "the same at an ordinary machine's speed",
            extra_ms / slow,
            "ms",
            at_most=30,
            note=f"this one: 1/{slow:.1f}",
        )
    )
    code = "import sys, aimeter; print(*{m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True)
    foreign = set(loaded.stdout.split()) - {"aimeter", "__main__"}
    note(
        Finding("modules loaded beyond the standard library", len(foreign), at_most=0, note=" ".join(foreign))
    )
