"""Signs for those that an encoding has not, such as ASCII, in which a container's terminal often is."""

from __future__ import annotations

import codecs

SIGNS = "aimeter-signs"
"""The name of the error handler that `register` makes known."""

_INSTEAD = {
    **dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#", strict=True)),
    **dict.fromkeys("▉▊▋▌", "#"),
    **dict.fromkeys("▍▎▏", "."),
    **dict.fromkeys("├│", "|"),
    **dict.fromkeys("━╸╺", "="),
    "└": "`",
    "─": "-",
    "±": "+-",
    "µ": "u",
    "…": "...",
}


def in_signs_of(encoding: str, text: str) -> str:
    """Return a text that can be written in an encoding: ``12 +- 3 uJ`` in ASCII, and ``?`` for what has no stand-in."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        before, rest = text[: error.start], text[error.end :]
        return before + _stand_ins(error) + in_signs_of(encoding, rest)
    except LookupError:  # no such encoding: whoever writes in it will say so
        pass
    return text


def register() -> None:
    """Make the handler known to Python's streams."""
    codecs.register_error(SIGNS, _handle)


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _stand_ins(error), error.end


def _stand_ins(error: UnicodeEncodeError) -> str:
    return "".join(_INSTEAD.get(sign, "?") for sign in error.object[error.start : error.end])
