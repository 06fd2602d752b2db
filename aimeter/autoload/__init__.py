"""The environment in which a Python program meters its own model calls, with no change to its code.

The folder of this package comes first on ``PYTHONPATH``; Python imports the ``sitecustomize`` in it at start-up
(https://docs.python.org/3/library/site.html), and so do the program's own Python children.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from aimeter.settings import PREFIX, Settings

FOLDER = Path(__file__).parent


def environment(inherited: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return an environment for a command that is to be instrumented.

    Args:
        inherited: The environment to start from.
        settings: Settings of ours that the command is to have: where its rows go, and where the power is from.
    """
    paths = [str(FOLDER), *filter(None, [inherited.get("PYTHONPATH")])]
    told = {"LOG": settings.log, "REGION": settings.region, "PUE": settings.pue}
    return {
        **inherited,
        **{PREFIX + key: str(value) for key, value in told.items() if value is not None},
        "PYTHONPATH": os.pathsep.join(paths),
        f"{PREFIX}INSTRUMENT": "1",
    }
