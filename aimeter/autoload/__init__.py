"""The environment in which a Python program meters its own model calls, with no change to its code.

The folder of this package comes first on ``PYTHONPATH``; Python imports the ``sitecustomize`` in it at start-up
(https://docs.python.org/3/library/site.html), and so do the program's own Python children.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from aimeter.settings import PREFIX

FOLDER = Path(__file__).parent


def environment(inherited: Mapping[str, str], settings: Mapping[str, object]) -> dict[str, str]:
    """Return an environment for a command that is to be instrumented.

    Args:
        inherited: The environment to start from.
        settings: Settings that were given as options, and are to hold for the command's own calls.
    """
    paths = [str(FOLDER), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        **{PREFIX + key.upper(): str(value) for key, value in settings.items()},
        "PYTHONPATH": os.pathsep.join(paths),
        f"{PREFIX}INSTRUMENT": "1",
    }
