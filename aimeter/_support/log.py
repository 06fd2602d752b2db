"""The library's logger, and warnings that are given once: the same words again and again hide all others."""

from __future__ import annotations

import logging
from contextlib import suppress

logger = logging.getLogger("aimeter")

assumptions = logger.getChild("assumptions")
"""Which grid is assumed where none is known. The commands, which show the grid that they use, leave that out."""

_said: set[object] = set()
"""Keys of the warnings that this process has given, in whatever part of it."""


def warn_once(
    message: str,
    key: object = None,
    *,
    said: set[object] = _said,
    to: logging.Logger = logger,
) -> None:
    """Log a warning, unless one of the same key was; never raises.

    Args:
        message: What went wrong, and the remedy.
        key: What counts as the same, hashable; by default the message itself.
        said: The keys so far, and this one afterwards; by default those of the process.
        to: The logger.
    """
    key = message if key is None else key
    if key not in said:
        said.add(key)
        with suppress(Exception):  # a handler of the program's own may raise anything
            to.warning("%s", message)
