"""Calls by name, each name's under those of the calls around them, in constant memory a name.

A row names the call around it by its id, and mostly comes before that call's own row, as what ends first is written
first. So a call inside another waits until that one's row is there; whoever comes after it finds it among those that
came lately.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from aimeter.report.sums import Sums

if TYPE_CHECKING:
    from aimeter.record import Record

Key = tuple[str, str]
"""Name and model; without a model, "" stands for it."""

_LEFT_OUT = cast("Key", ("", "", "left out"))
"""Where calls stand that are not wanted, until what is inside them takes their place. No name and model is equal to it."""

OTHER_NAMES = "(other names)"
"""Where a summary has no more room for names, the rest has this one."""

DEEPEST = 16
"""Calls that are deeper inside others are told by name only, not where they are: functions may call themselves."""

_REMEMBERED = 4096
"""So many rows at least, and twice as many at most, are remembered to have come, for children that come after them."""

_MOST_WAITING = 100_000
"""Calls for whose children it is remembered that their own row has not come. Of more, the oldest are taken to have come
before what is remembered: in crashes no more than a few calls are lost, but children may outlive thousands."""

MOST_TIMED = 100
"""Names of which it is noted when their energy was used. Where there are more, no table shows it: it would not be all."""

_MOST_ROWS = 100
"""Rows that wait for the one around them are kept as they are up to this number, and added up beyond it."""


class Branch:
    """What the calls of one name and model, in one place among others, come to.

    Attributes:
        sums: The sums.
        parts: Those of the calls inside.
        level: How many calls are around.
    """

    __slots__ = ("level", "merged", "parts", "sums")

    def __init__(self, level: int, sums: Sums) -> None:
        self.sums = sums
        self.parts: Branches = {}
        self.level = level
        self.merged: Branch | None = None

    def last(self) -> Branch:
        """Return the branch into which this one has been merged, or itself."""
        branch = self
        while branch.merged is not None:
            branch = branch.merged
        return branch


Branches = dict[Key, Branch]


class _Inside:
    """The calls inside one whose row has not come, or whose own call around it has not.

    Attributes:
        rows: The first of them, with their place and what is inside each.
        sums: The rest, as a tree of their own.
        branch: Where they are once that is known.
    """

    __slots__ = ("branch", "rows", "sums")

    def __init__(self) -> None:
        self.rows: list[tuple[Record, Key, _Inside]] = []
        self.sums: Branches = {}
        self.branch: Branch | None = None


class Tree:
    """See the module's description. Used by one thread at a time.

    Args:
        most_names: Names told apart, at most.
        over_time: Note when the energy was used, too, as long as the names are few.

    Attributes:
        roots: Calls that nothing encloses.
        elsewhere: Calls inside others of which it is not known any more which they are, or which are too deep.
    """

    def __init__(self, most_names: float, *, over_time: bool = False) -> None:
        self._over_time = over_time
        self._names = 0
        self.roots: Branches = {}
        self.elsewhere: Branches = {}
        self._most_names = self._room = most_names
        self._leaves_out = False
        self._waiting: dict[str, _Inside] = {}
        self._seen: dict[str, Branch | _Inside] = {}
        self._seen_before: dict[str, Branch | _Inside] = {}

    def add(self, record: Record, *, after_parent: bool, wanted: bool = True) -> None:
        """Count one record in.

        Args:
            record: The record.
            after_parent: The row of the call around it is known to have come before.
            wanted: Otherwise it is not counted, and what is inside it is taken to be inside the one around it.
        """
        key = (record.name, record.model or "") if wanted else _LEFT_OUT
        self._leaves_out |= not wanted
        inside = self._waiting.pop(record.call_id, None) if self._waiting else None
        parent_id = record.parent_id
        if parent_id is None:
            found: Branch | _Inside = self._place(record, key, inside, self.roots, 0)
        else:
            around = self._seen.get(parent_id) or self._seen_before.get(parent_id)
            if isinstance(around, _Inside) and around.branch is not None:
                around = around.branch
            if isinstance(around, Branch):
                found = self._place(record, key, inside, *self._inside(around.last()))
            elif around is None and after_parent:
                found = self._place(record, key, inside, self.elsewhere, 0)
            else:
                found = self._wait(record, key, inside or _Inside(), around or self._waited_for(parent_id))
        self._seen[record.call_id] = found
        if len(self._seen) > _REMEMBERED:
            self._seen, self._seen_before = {}, self._seen

    def whole(self) -> tuple[Branches, Branches]:
        """Return what no call encloses, or none whose row has come, and what is elsewhere; neither is to be changed."""
        if not self._waiting and not self._leaves_out:
            return self.roots, self.elsewhere
        copy = Tree(self._most_names, over_time=self._over_time)
        rest = Tree(self._most_names, over_time=self._over_time)
        copy._merge(self.roots, copy.roots, 0)
        rest._merge(self.elsewhere, rest.roots, 0)
        for inside in self._waiting.values():
            for record, key, inner in inside.rows:
                copy._place(record, key, inner, copy.roots, 0, keep=True)
            copy._merge(inside.sums, copy.roots, 0)
        if self._leaves_out:
            copy._close_gaps()
        rest._merge(copy.elsewhere, rest.roots, 0)
        if self._leaves_out:
            rest._close_gaps()
        return copy.roots, rest.roots

    def _close_gaps(self) -> None:
        """Put what is inside calls that are left out into their place."""
        left = [(self.roots, 0)]
        while left:
            home, level = left.pop()
            while gap := home.pop(_LEFT_OUT, None):
                self._merge(gap.parts, home, level)
            left += [(branch.parts, level + 1) for branch in home.values() if branch.parts]

    # Where a call belongs

    def _place(
        self,
        record: Record,
        key: Key,
        inside: _Inside | None,
        home: Branches,
        level: int,
        *,
        keep: bool = False,
    ) -> Branch:
        """Count a record in where it belongs, with all that has waited for it; that goes on waiting if it is kept."""
        placed = branch = self._branch(home, key, level)
        if key is not _LEFT_OUT:
            branch.sums.add(record)
        left = [] if inside is None else [(inside, branch)]
        while left:
            inside, branch = left.pop()
            if not keep:
                inside.branch = branch
            home, level = self._inside(branch)
            for row, its_key, inner in inside.rows:
                part = self._branch(home, its_key, level)
                if its_key is not _LEFT_OUT:
                    part.sums.add(row)
                left.append((inner, part))
            self._merge(inside.sums, home, level, keep=keep)
            if not keep:
                inside.rows, inside.sums = [], {}
        return placed

    def _inside(self, branch: Branch) -> tuple[Branches, int]:
        """Return where the calls inside those of a branch stand, and how many are around them there."""
        return (branch.parts, branch.level + 1) if branch.level < DEEPEST else (self.elsewhere, 0)

    def _wait(self, record: Record, key: Key, inside: _Inside, around: _Inside) -> Branch | _Inside:
        """Keep a row until it is known where the call around it belongs."""
        if len(around.rows) >= _MOST_ROWS:
            return self._place(record, key, inside, around.sums, 0)
        around.rows.append((record, key, inside))
        return inside

    def _waited_for(self, call_id: str) -> _Inside:
        """Return what waits for a call's row."""
        inside = self._waiting.get(call_id)
        if inside is None:
            inside = self._waiting[call_id] = _Inside()
            if len(self._waiting) > _MOST_WAITING:
                oldest = self._waiting.pop(next(iter(self._waiting)))
                for row, key, inner in oldest.rows:
                    self._place(row, key, inner, self.elsewhere, 0)
                self._merge(oldest.sums, self.elsewhere, 0, keep=False)
        return inside

    def _branch(self, home: Branches, key: Key, level: int) -> Branch:
        """Return a branch, a new one if there is room for its name."""
        branch = home.get(key)
        if branch is None and key == _LEFT_OUT:
            branch = home[key] = Branch(level, Sums())
        if branch is None:
            if self._room > 0:
                self._room -= 1
            else:
                key = OTHER_NAMES, ""
            branch = home.get(key)
            if branch is None:
                self._names += 1
                timed = self._over_time and self._names <= MOST_TIMED
                branch = home[key] = Branch(level, Sums.timed() if timed else Sums())
        return branch

    def _merge(self, branches: Branches, home: Branches, level: int, *, keep: bool = True) -> None:
        """Count in what stands in some branches; unless they are kept, who finds one is sent on."""
        left = [(branches, home, level)]
        while left:
            branches, home, level = left.pop()
            for key, branch in branches.items():
                into = self._branch(home, key, level)
                into.sums.merge(branch.sums)
                if branch.parts:
                    deep = level >= DEEPEST
                    left.append(
                        (branch.parts, self.elsewhere, 0) if deep else (branch.parts, into.parts, level + 1)
                    )
                if not keep:
                    branch.merged = into
                if not keep and key != _LEFT_OUT:
                    self._names -= 1
                    self._room += key[0] != OTHER_NAMES
