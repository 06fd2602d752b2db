"""Run by Python at start-up, where `aimeter run --instrument` put this folder first on the path."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path


def _run_the_next() -> None:
    """Run the ``sitecustomize`` that would have been found without this folder, if there is one."""
    here = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


try:
    # In an interpreter of another environment there may be no aimeter: the program runs without.
    with contextlib.suppress(ImportError):
        importlib.import_module("aimeter")  # which instruments, as AIMETER_INSTRUMENT asks for it
finally:
    _run_the_next()
