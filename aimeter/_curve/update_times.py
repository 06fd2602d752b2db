"""When a staircase steps: its period and phase, learned from looks that came too early and looks that came too late.

A counter that is renewed every T moves at times t0 + k T. Each observed move brackets one of them: it lies after
the last look that did not show it and before the first that did. One bracket is as wide as the looks are apart;
but all of them together must leave room for one straight line through (k, t), and that room shrinks as steps are
seen. So the times of a steady sensor's steps are soon known to a fraction of a millisecond, from hardly more looks
than there are steps: the next look is planned where it halves what is unknown, and once little is unknown,
wherever it suits.

A sensor that is not steady contradicts what was expected of it. It is then believed step by step, and more jitter
is allowed for.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

_REMEMBERED = 32
"""Steps that the period is learned from."""

_LEAST_JITTER_S = 2e-5
"""A sensor is taken to be as steady as this until it shows otherwise."""

_CLEAR = 0.45
"""A bracket wider than this part of the period does not tell which step it is of."""

_NARROW, _NARROW_S = 1 / 400, 2.5e-4
"""Steps known to this part of the period, or to this time, are known well enough."""

_LOOSE = 1 / 64
"""The same in the middle of a long call, in which hardly any step is looked at."""

_MORE = 3
"""Where steps come faster than readings are wanted, so many times more readings are made rather than steps missed."""

_VERIFY_EVERY = 24
"""Every so many steps are looked at closely although their times are known, in case the sensor has changed."""

_VERIFY_FIRST = 8
"""So are the first ones from which they are known: a sensor that is not steady should show it soon. Where steps may pass
unseen, so many must have been seen to come when they were expected, not merely by then: else each may be taken for the
one before for ever."""

_LOOKS = 8
"""As long as nothing is known, looks are this part of a period apart."""


class Interval(NamedTuple):
    """A time that lies between two others, in seconds."""

    earliest_s: float
    latest_s: float

    @property
    def middle_s(self) -> float:
        """The best estimate."""
        return (self.earliest_s + self.latest_s) / 2

    @property
    def half_s(self) -> float:
        """How far off the best estimate may be."""
        return (self.latest_s - self.earliest_s) / 2


class UpdateTimes:
    """The steps of one channel.

    Args:
        period_s: Period that the device is documented to have.
        silent: Whether a step may pass without a trace, as of a power that is the same as before.

    Attributes:
        period_s: The period as it is known now; until steps can be foretold, a bound from above.
        jitter_s: How far a step may lie from the straight line.
    """

    def __init__(self, period_s: float, *, silent: bool = False) -> None:
        self.period_s = period_s
        self._silent = silent
        self.jitter_s = _LEAST_JITTER_S
        self._documented_s = period_s
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=_REMEMBERED)
        self._shortest_s, self._longest_s = 0.0, math.inf
        self._last: Interval | None = None
        self._steps = 0
        self._verified = 0
        self._sure = False

    @property
    def known(self) -> bool:
        """Whether steps can be foretold."""
        return len(self._seen) > 1 and self._longest_s < math.inf

    @property
    def learned_period(self) -> Interval | None:
        """Between which times the period lies, by the steps seen; None until steps can be foretold."""
        return Interval(max(self._shortest_s, 0.0), self._longest_s) if self.known else None

    def forget(self) -> None:
        """Start anew, keeping the period: after a pause the phase is lost."""
        self._seen.clear()
        self._shortest_s, self._longest_s = 0.0, math.inf
        self._last = None
        self._verified = 0

    def next_look_s(
        self, looked_s: float, interval_s: float, takes_s: float = 0.0, *, sparing: bool = False
    ) -> float:
        """Return when to look next.

        Args:
            looked_s: Time of the last look.
            interval_s: How often to look at a staircase whose steps are known.
            takes_s: How long a look takes; the value may be of any moment in it.
            sparing: Nothing depends on the single step just now, as in the middle of a long call.
        """
        if self._sure and self.known and looked_s - takes_s > self._at(1).latest_s:
            self._doubt()  # it should have come
        expected = self._expect(looked_s)
        if expected is None:
            return looked_s + self.period_s / _LOOKS
        after = expected.latest_s + _LEAST_JITTER_S
        before = expected.earliest_s - _LEAST_JITTER_S
        narrow = _LOOSE if sparing else _NARROW
        if expected.half_s > max(narrow * self.period_s, _NARROW_S, 1.5 * self.jitter_s, takes_s):
            halving = expected.middle_s - takes_s / 2
            return halving if looked_s < halving else after
        verified = self._verified if self._silent else len(self._seen)
        if (self._steps % _VERIFY_EVERY == 0 or verified < _VERIFY_FIRST) and looked_s < before:
            return before
        if self.period_s < interval_s:
            passed_over = math.ceil(interval_s / ((1 if sparing else _MORE) * self.period_s)) - 1
            wanted = self._expect(after + (passed_over - 0.5) * self.period_s) if passed_over else expected
            return after if wanted is None else wanted.latest_s + _LEAST_JITTER_S
        # Looks at several staircases fall together on a grid, unless a step is due just then.
        suits = math.ceil(after / interval_s) * interval_s
        following = self._expect(after)
        return suits if following is None or suits < following.earliest_s else after

    def passed(self, by_s: float) -> Interval | None:
        """Return when the newest step was that has surely come by `by_s`, unseen because nothing changed.

        It counts as seen from then on. None if there is none, or if steps cannot be foretold.
        """
        if not self.known or self._last is None:
            return None
        ahead = math.floor((by_s - self._last.latest_s) / self.period_s) + 1
        while ahead > 0 and self._at(ahead).latest_s > by_s:
            ahead -= 1
        if ahead < 1:
            return None
        step = self._at(ahead)
        if 2 * step.half_s > self.period_s:
            self.forget()
            return None
        self._seen.append((self._seen[-1][0] + ahead, *step))
        self._last = step
        self._verified = min(self._verified, _VERIFY_FIRST - 1)
        return step

    def see(self, bracket: Interval) -> Interval:
        """Take note of a step seen within `bracket`, and return when it was, as narrowly as is known."""
        self._steps += 1
        self._sure = not self._silent
        if self._last is None:
            return self._begin(bracket)
        if not self.known:
            return self._acquire(bracket, self._last)
        ahead = max(math.floor((bracket.latest_s - self._last.earliest_s) / self.period_s), 1)
        expected = self._at(ahead)
        while expected.earliest_s > bracket.latest_s and ahead > 1:
            ahead -= 1
            expected = self._at(ahead)
        before = self._at(ahead - 1) if ahead > 1 else None
        if (
            before is not None
            and expected.latest_s > bracket.latest_s
            and before.latest_s > bracket.earliest_s
        ):
            # Whether the newest step had come yet cannot be told.
            self._sure = False
            return Interval(max(before.earliest_s, bracket.earliest_s), bracket.latest_s)
        self._verified += 2 * bracket.half_s < _CLEAR * self.period_s
        return self._take(ahead, bracket, expected)

    def _acquire(self, bracket: Interval, last: Interval) -> Interval:
        """Find the period: by counting steps that are seen one by one."""
        since = bracket.latest_s - last.earliest_s
        if self._silent and since > 1.5 * self.period_s:
            return self._begin(bracket)
        if since > 2 * self.period_s:
            self.period_s = since
            return self._begin(bracket)
        if bracket.earliest_s <= last.latest_s:
            # Already there at the first look since the last step: the true period is no longer than that. One
            # that a pause of the sensor had stretched goes straight back to what is documented.
            stretched = self.period_s > 2 * self._documented_s
            self.period_s = self._documented_s if stretched else min(self.period_s, since)
            return self._begin(bracket)
        if 2 * max(bracket.half_s, last.half_s) > _CLEAR * self.period_s:
            return self._begin(bracket)
        return self._take(1, bracket, Interval(last.latest_s, math.inf))

    def _take(self, ahead: int, bracket: Interval, expected: Interval) -> Interval:
        narrowed = Interval(
            max(bracket.earliest_s, expected.earliest_s), min(bracket.latest_s, expected.latest_s)
        )
        number = self._seen[-1][0] + ahead
        slack = 2 * self.jitter_s
        least, most = bracket.earliest_s - slack, bracket.latest_s + slack
        # This runs for every step of every device: plain tuples and names, no attribute.
        shortest = max(self._shortest_s, *[(least - late) / (number - n) for n, _, late in self._seen])
        longest = min(self._longest_s, *[(most - early) / (number - n) for n, early, _ in self._seen])
        if narrowed.half_s < 0 or shortest > longest:
            self._doubt()
            return self._begin(bracket)
        self._shortest_s, self._longest_s = shortest, longest
        self._seen.append((number, *narrowed))
        self._last = narrowed
        self.period_s = (max(shortest, 0.0) + longest) / 2
        return narrowed

    def _doubt(self) -> None:
        """Allow for more jitter, and find the steps anew."""
        self.jitter_s = min(4 * self.jitter_s, self.period_s / _LOOKS)
        self.forget()

    def _begin(self, bracket: Interval) -> Interval:
        self.forget()
        self._seen.append((0, *bracket))
        self._last = bracket
        return bracket

    def _at(self, ahead: int) -> Interval:
        """Return when the step so many ahead of the last one seen is."""
        last = self._last or Interval(-math.inf, math.inf)
        return Interval(
            last.earliest_s + ahead * self._shortest_s - self.jitter_s,
            last.latest_s + ahead * self._longest_s + self.jitter_s,
        )

    def _expect(self, after_s: float) -> Interval | None:
        """Return when the first step not seen by `after_s` will be; None if it cannot be foretold."""
        if not self.known or self._last is None:
            return None
        ahead = max(math.floor((after_s - self._last.latest_s) / self._longest_s), 1)
        expected = self._at(ahead)
        while expected.latest_s <= after_s:
            ahead += 1
            expected = self._at(ahead)
        if 2 * expected.half_s > self.period_s:
            return None
        return Interval(max(expected.earliest_s, after_s), expected.latest_s) if ahead == 1 else expected
