"""Run the programme; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aimeter
from benchmarks.hardware import page
from benchmarks.hardware.board import CudaBoard
from benchmarks.hardware.reader import in_a_process
from benchmarks.hardware.trials import TRIALS, Figures, Rig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials on the first GPU; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hardware", description=__doc__)
    parser.add_argument(
        "--effort", type=float, default=1.0, help="less than 1 shortens the trials in proportion"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(TRIALS), metavar="TRIAL", help=f"of {', '.join(TRIALS)}"
    )
    parser.add_argument("--json", metavar="FILE", default="hardware.json", help="where to put all numbers")
    parser.add_argument("--record", metavar="FOLDER", help="where to put what the meters published")
    parser.add_argument("--write", action="store_true", help="add this device to the page in the docs")
    given = parser.parse_args(arguments)
    rig = Rig(CudaBoard(), in_a_process, given.effort)
    results = run(rig, given.only or list(TRIALS))
    Path(given.json).write_text(json.dumps(plain(results), indent=1) + "\n", "utf-8")
    print(page.report(results))
    if given.record:
        record(rig, results["device"], Path(given.record))
    if given.write:
        page.keep(plain(results))
        page.write()
    return int(any("failed" in figures for figures in results["trials"].values()))


def run(rig: Rig, trials: Sequence[str]) -> dict[str, Any]:
    """Run trials in order; one that fails costs the others nothing."""
    results: dict[str, Figures] = {}
    for name in trials:
        began_s = time.monotonic()
        try:
            results[name] = TRIALS[name](rig)
        except Exception as error:  # noqa: BLE001 - the others are still worth having
            traceback.print_exc()
            results[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return {"device": device(rig.board.uuid), "trials": results}


def device(uuid: str) -> dict[str, Any]:
    """Return what the device is, without anything that tells one from another of its kind."""
    import pynvml as nv

    nv.nvmlInit()
    try:
        handle = nv.nvmlDeviceGetHandleByUUID(uuid)
        least, most = nv.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        return {
            "name": nv.nvmlDeviceGetName(handle),
            "capability": list(nv.nvmlDeviceGetCudaComputeCapability(handle)),
            "driver": nv.nvmlSystemGetDriverVersion(),
            "limits_w": [least / 1e3, most / 1e3],
            "python": platform.python_version(),
            "system": platform.system(),
            "aimeter": aimeter.__version__,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
    finally:
        nv.nvmlShutdown()


def record(rig: Rig, device: dict[str, Any], folder: Path) -> None:
    """Write what the meters published around the work of the trial of the publications.

    ``readings.csv`` has a row for each new value, with the begin of the last reading that gave the one before and the end
    of the first that gave this one; ``calls.csv`` the begins and ends of the work. Seconds of one monotonic clock that
    begins at 0 with the recording; joules of the counter, watts of the powers.
    """
    if rig.recording is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    zero_s = min(seen.changes[0].before_s for seen in rig.recording.seen.values())
    rows = sorted(
        (one.at_s - zero_s, name, one.value, one.before_s - zero_s, one.after_s - zero_s)
        for name, seen in rig.recording.seen.items()
        for one in seen.changes
    )
    lines = [
        f"{at:.5f},{name},{value:.3f},{before:.5f},{after:.5f}" for at, name, value, before, after in rows
    ]
    (folder / "readings.csv").write_text(
        "\n".join(["t_s,channel,value,before_s,after_s", *lines, ""]), "utf-8"
    )
    calls = [f"{begin - zero_s:.5f},{end - zero_s:.5f}" for begin, end in rig.spans]
    (folder / "calls.csv").write_text("\n".join(["begin_s,end_s", *calls, ""]), "utf-8")
    (folder / "device.json").write_text(json.dumps(device, indent=1) + "\n", "utf-8")


def plain(value: Any) -> Any:
    """Return figures as JSON can carry them: rounded to six digits, what is no number as null."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    sys.exit(main())
