"""What a call is called and what the caller counts and notes: the columns that are not measured."""

from __future__ import annotations

from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

from aimeter._calls.arguments import check_count
from aimeter._calls.stamps import Stamped
from aimeter._support.notes import plain
from aimeter.record import COUNTS

if TYPE_CHECKING:
    from typing import Self

Place = tuple[CodeType, int]
"""A place in the code: code object and index of the instruction, which take no time to find out."""

_MOST_PLACES = 1000
_places: dict[tuple[int, int], tuple[CodeType, str]] = {}


def _name_of(place: Place) -> str:
    """Return file and line of a place in the code."""
    code, instruction = place
    known = _places.get((id(code), instruction))
    if known is None:
        if len(_places) >= _MOST_PLACES:
            _places.clear()
        lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
        known = code, f"block at {Path(code.co_filename).name}:{next(lines, None) or code.co_firstlineno}"
        _places[id(code), instruction] = known  # which keeps the code, and so its id from being used again
    return known[1]


class Labelled(Stamped):
    """What a call bears besides its figures."""

    __slots__ = ("_counts", "_devices", "_name", "_notes", "_remarks", "_weight")

    _name: str | Place
    # These start out unset and are read with a default: creating a call stays cheap.
    _counts: dict[str, float | None]
    _devices: frozenset[str] | None
    _notes: dict[str, object]
    _remarks: dict[str, object]
    _weight: float | None

    @property
    def name(self) -> str:
        """What the call is called in the log."""
        name = self._name
        return name if isinstance(name, str) else _name_of(name)

    @property
    def counts(self) -> dict[str, float | None]:
        """What has been counted so far, by name."""
        return getattr(self, "_counts", None) or {}

    @property
    def notes(self) -> dict[str, object]:
        """What the caller noted so far."""
        return getattr(self, "_notes", None) or {}

    @property
    def remarks(self) -> dict[str, object]:
        """Remarks of aimeter's own on the call."""
        return getattr(self, "_remarks", None) or {}

    @property
    def weight(self) -> float | None:
        """Weight among the calls that share a device; None if it is as that of the call around, else 1."""
        return getattr(self, "_weight", None)

    @property
    def devices(self) -> frozenset[str] | None:
        """Devices that the call says it uses; None if they are as those of the call around, else all."""
        return getattr(self, "_devices", None)

    def count(
        self,
        *,
        items: float | None = None,
        images: float | None = None,
        tokens_in: float | None = None,
        tokens_out: float | None = None,
        steps: float | None = None,
        audio_s: float | None = None,
    ) -> None:
        """Add to the call's counts, in as many steps as it takes; each is 0 or more.

        Raises:
            TypeError: If a count is not a number.
            ValueError: If it is negative or not finite.

        """
        if self._late("count"):
            return
        given = (items, images, tokens_in, tokens_out, steps, audio_s)
        counts = self._counts = self.counts
        for key, value in zip(COUNTS, given, strict=True):
            if value is not None:
                counts[key] = (counts.get(key) or 0) + check_count(key, value)

    def note(self, **notes: object) -> None:
        """Attach facts to the row: ``model`` has a column, everything else goes into ``meta``.

        They are copied as plain values, at most 1,000 in a note, 20 levels deep, 10,000 characters long each and 100,000
        together: what JSON lacks becomes text.
        """
        if not self._late("note"):
            self._notes = {**self.notes, **{key: plain(value) for key, value in notes.items()}}

    def rename(self, name: str) -> None:
        """Call it otherwise: what it is may turn out on the way, as a request's route does."""
        self._name = name

    def remark(self, key: str, value: object) -> None:
        """Add a remark of aimeter's own to ``meta["aimeter"]``."""
        self._remarks = {**self.remarks, key: value}

    def limit(self, weight: float | None, devices: frozenset[str] | None) -> Self:
        """Set the call's weight and devices, before it begins, and return it."""
        self._weight, self._devices = weight, devices
        return self

    def _late(self, what: str) -> bool:
        if self.settled is None:
            return False
        self._meter.warn_once(
            f"late-{what}",
            f"{what}() came after the row of a call named {self.name!r} had been written and was ignored: "
            "call it inside the block.",
        )
        return True
