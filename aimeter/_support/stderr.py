"""Standard error, at an end where nobody is left to be told that it cannot be written."""

from __future__ import annotations

import contextlib
import io
import sys


def tell(text: str) -> None:
    """Write a text on standard error, if that is possible.

    A buffer keeps what could not be written, and Python, which fails at that once more when it ends, gives the program
    another exit status for it. So the file is written itself, wherever there is one.
    """
    stream = sys.stderr
    # Closed by the program, or a pipe that nobody reads; or of somebody's own making.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.flush()
        buffer = getattr(stream, "buffer", None) if isinstance(stream, io.TextIOWrapper) else None
        file = getattr(buffer, "raw", buffer)
        if not isinstance(file, io.FileIO):
            stream.write(text)
            stream.flush()
            return
        left = memoryview(text.encode(stream.encoding, "replace"))
        while left:
            written = file.write(left)
            if not written:  # it does not block, and is full
                return
            left = left[written:]


def terminal() -> bool:
    """Tell whether standard error is a terminal."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):
        return False
