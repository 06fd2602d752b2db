"""A text that must not be seen: a key, a password."""

from __future__ import annotations


class Secret:
    """Holds a text that neither `repr`, `str`, formatting, copying to JSON nor pickling shows.

    Args:
        text: What is to be kept.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that needs it."""
        return self._text

    def mark(self) -> str:
        """Return three hexadecimal digits: two secrets mostly differ in them, and they are too few to guess one by."""
        import hashlib  # noqa: PLC0415 - loads OpenSSL, and settings are read by every program

        return hashlib.sha256(f"aimeter {self._text}".encode()).hexdigest()[:3]

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, ("",)

    def __deepcopy__(self, _: object) -> Secret:
        return self
