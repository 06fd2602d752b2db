"""Which calls have been read, so that one that stands in several logs, or twice in one, is counted once; in bounded memory."""

from __future__ import annotations

import re
from bisect import bisect_right

_OURS = re.compile("[0-9a-f]{16}-[0-9]{1,18}")
_NUMBERED = re.compile("-[0-9]+$")
"""What ends the identifier of an imported call; others' identifiers are not taken to tell calls apart."""

_MOST = 200_000
"""Stretches of calls, and identifiers of other forms, that are remembered; of more, the oldest processes' are forgotten."""


class Seen:
    """Remembers calls by their identifiers.

    Those of aimeter are the process's own part and a running number, so that a log of one process is one stretch of
    numbers however long it is. Others, such as those of imported logs, are remembered one by one.
    """

    def __init__(self) -> None:
        self._stretches: dict[str, tuple[list[int], list[int]]] = {}
        """By process, where stretches of numbers begin, and where they end."""
        self._count = 0
        self._others: dict[tuple[str, str], int] = {}

    def again(self, call_id: str, start: str, log: int) -> bool:
        """Tell whether a call has been seen, and remember it.

        Args:
            call_id: Its identifier. What other programs wrote need not be unique, so of those
            start: when the call began tells them apart, and
            log: only one that was seen in another log than the one of this number has been seen.
        """
        if _OURS.fullmatch(call_id):
            process, _, number = call_id.partition("-")
            return self._numbered(process, int(number))
        if not _NUMBERED.search(call_id):
            return False
        key = call_id, start
        if self._others.setdefault(key, log) != log:
            return True
        if len(self._others) > _MOST:
            del self._others[next(iter(self._others))]
        return False

    def _numbered(self, process: str, number: int) -> bool:
        begins, ends = self._stretches.setdefault(process, ([], []))
        at = bisect_right(begins, number) - 1
        if at >= 0 and number <= ends[at]:
            return True
        if at >= 0 and number == ends[at] + 1:
            ends[at] = number
            if at + 1 < len(begins) and begins[at + 1] == number + 1:
                ends[at] = ends.pop(at + 1)
                del begins[at + 1]
                self._count -= 1
        elif at + 1 < len(begins) and begins[at + 1] == number + 1:
            begins[at + 1] = number
        else:
            begins.insert(at + 1, number)
            ends.insert(at + 1, number)
            self._count += 1
            if self._count > _MOST:
                self._forget()
        return False

    def _forget(self) -> None:
        """Forget the process that came first, or the first half of the only one."""
        process = next(iter(self._stretches))
        begins, ends = self._stretches[process]
        cut = len(begins) if len(self._stretches) > 1 else len(begins) // 2
        del begins[:cut], ends[:cut]
        self._count -= cut
        if not begins:
            del self._stretches[process]
