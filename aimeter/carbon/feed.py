"""A provider's values as rows need them: at once, from memory, while a background thread asks for newer ones.

`Feed.over` is called while rows are made and never waits. If what it has is due, it starts a daemon thread that asks
the provider once; rows made before the answer say which other value stands in for it. So there is no request without
a call, at most one at a time, and none sooner than the values' own period or the back-off allows.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from aimeter._support.clocks import time
from aimeter._support.log import logger
from aimeter.carbon.cache import Cache, Known
from aimeter.carbon.intensity import DETECTED, FALLBACK, HELD, Intensity
from aimeter.carbon.providers.base import DAY_S, HOUR_S, Provider, ProviderFault, checked, utc
from aimeter.carbon.series import Mean, Point, Series, mean, seconds_in, within

FIRST_DELAY_S = 30.0
REFUSED_DELAY_S = 3600.0
LONGEST_DELAY_S = 86400.0
"""After a failure the provider is left alone for half a minute, after a refusal (401, 403, 404 …) for an hour; each
further one doubles that, up to an hour and a day. Where the provider itself asks for longer (Retry-After) it has that,
up to a day."""

_LONGEST_PAST_S = 22 * HOUR_S
"""With the hour before, within the day that some contracts have as the recent past, and none other."""
_LEAST_LIFE_S = 60.0
_LEAST_WAIT_S = 300.0
_LATE = 0.25
"""Part of the period after which a value that is late is asked for again."""
_MOST_VALUES_TOLD = 24
_WHOLE = 1 - 1e-6


class Found(NamedTuple):
    """The intensity of one call, and what the row remarks on it."""

    intensity: Intensity
    remark: Mapping[str, object]


class _Within(NamedTuple):
    """What holds for every call within the time of one value: most calls, one after another."""

    known: Known
    start_s: float
    end_s: float
    found: Found


class Feed:
    """The intensity of one zone over time.

    Args:
        provider: Who is asked.
        zone: The zone as the provider names it.
        fallback: What rows have until there is a value.
        cache: Answers on disk.
        max_age_s: How long after its end the newest value may stand in for one that is not out yet.
        detected: Whether the zone is of a place that was found and not given; rows say so.
        now: Returns the seconds since 1970.
    """

    def __init__(
        self,
        provider: Provider,
        zone: str,
        fallback: Intensity,
        *,
        cache: Cache,
        max_age_s: float,
        detected: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.provider = provider
        self.zone = zone
        self._instead = replace(fallback, method=fallback.method + FALLBACK)
        self._max_age_s = max_age_s
        self._found = DETECTED if detected else ""
        self._now = now
        self._path = cache.path(provider.name, zone, provider.cache_key)
        self._known = Cache.load(self._path)
        self._wanted_s = math.inf
        self._told = False
        self._within_one: _Within | None = None
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a child, where the thread is not and its lock may be held for ever."""
        self._busy = threading.Lock()

    @property
    def known(self) -> Known:
        """What is known now."""
        return self._known

    def over(self, start_s: float, end_s: float) -> Found:
        """Return the intensity of a stretch of time, in seconds since 1970, from what is known now."""
        self.want(start_s)
        known, one = self._known, self._within_one
        if one is not None and one.known is known and one.start_s <= start_s and end_s < one.end_s:
            return one.found
        series = known.series
        common: dict[str, object] = {"provider": self.provider.name, "zone": self.zone}
        if series is not None:
            found = mean(series.points, start_s, end_s)
            if found is not None and found.covered >= _WHOLE:
                result = Found(
                    _intensity(series, found, self._found), common | _values(found, start_s, end_s)
                )
                if len(found.parts) == 1:
                    self._within_one = _Within(known, found.parts[0].start_s, found.parts[0].end_s, result)
                return result
            points = self._extended(series, end_s)
            held = mean(points, start_s, end_s)
            if held is not None and held.covered >= _WHOLE:
                result = Found(
                    _intensity(series, held, self._found + HELD), common | _values(held, start_s, end_s)
                )
                begun_s = series.points[len(points) - 1].end_s
                if start_s >= begun_s:
                    self._within_one = _Within(known, begun_s, begun_s + self._max_age_s, result)
                return result
        reason = known.problem or "it has not answered yet"
        if series is not None and not known.problem:
            reason = "it has no value of that time yet"
        return Found(self._instead, {**common, "reason": reason})

    def _extended(self, series: Series, end_s: float) -> tuple[Point, ...]:
        """Return the values up to a time, the newest one held on to it; none if that is too old by then."""
        begun = bisect_right(series.points, end_s, key=lambda point: point.start_s)
        last = series.points[begun - 1]
        if not begun or end_s - last.end_s > self._max_age_s:
            return ()
        held = last._replace(end_s=max(end_s, last.end_s) + 1.0, estimated=True)
        return (*series.points[: begun - 1], held)

    def want(self, start_s: float | None = None) -> None:
        """Have newer values asked for in the background if they are due."""
        now_s = self._now()
        if start_s is not None:
            self._wanted_s = min(self._wanted_s, start_s)
        if _is_early(self._known, now_s):
            return
        if self._busy.acquire(blocking=False):
            try:
                threading.Thread(target=self._ask, name="aimeter-carbon", daemon=True).start()
            except RuntimeError:  # no thread to be had, or the interpreter is on its way out
                self._busy.release()

    def _ask(self) -> None:
        busy = self._busy
        try:
            self.refresh()
        except BaseException as error:  # noqa: BLE001 - the thread's one boundary: a provider by somebody else may raise anything
            self._fail(ProviderFault(f"{self.provider.name}: it raised {type(error).__name__}"))
        finally:
            busy.release()

    def refresh(self) -> None:
        """Ask the provider once, unless another process did meanwhile; what `want` does in the background."""
        now_s = self._now()
        stored = Cache.load(self._path)
        if _is_early(stored, now_s):
            self._take(stored)
            return
        period_s = self.provider.period_s
        # Of the calls since it was asked last, whatever came of that: their rows are written, and others wait now.
        wanted_s = max(min(self._wanted_s, now_s), now_s - _LONGEST_PAST_S)
        self._wanted_s = math.inf
        try:
            answer = self.provider.series(self.zone, wanted_s - HOUR_S, now_s + period_s)
            answer = checked(answer, self.provider.name)
            self._check_time(answer, wanted_s, now_s + period_s)
        except ProviderFault as fault:
            self._fail(fault)
            return
        newest_s = answer.points[-1].end_s
        # Due again when the newest value ends. If it has ended, the next is late, and is asked for more often.
        wait_s = newest_s - now_s if newest_s > now_s else max(period_s * _LATE, _LEAST_WAIT_S)
        expires_s = now_s + max(min(wait_s, period_s, LONGEST_DELAY_S), _LEAST_LIFE_S)
        self._merge()
        self._known = self._known.with_answer(answer, now_s, expires_s)
        self._told = False
        Cache.store(self._path, self._known)

    def _take(self, stored: Known) -> None:
        if stored.series is None:
            stored = replace(stored, series=self._known.series)
        if stored.problem:
            self._tell(stored.problem, stored.rest_until_s)
        self._known = stored

    def _merge(self) -> Known:
        """Take over what another process has stored since, before this one stores its own; return what is stored."""
        stored, known = Cache.load(self._path), self._known
        if (stored.expires_s, stored.rest_until_s) > (known.expires_s, known.rest_until_s):
            self._known = stored if stored.series is not None else replace(stored, series=known.series)
        return stored

    def _check_time(self, answer: Series, wanted_s: float, end_s: float) -> None:
        """Refuse an answer about another time: last year's, or tomorrow's.

        Raises:
            ProviderFault: No value of it is of use now.
        """
        reach_s = max(self._max_age_s, DAY_S)
        if within(answer.points, wanted_s - reach_s, end_s):
            return
        first, last = answer.points[0], answer.points[-1]
        message = (
            f"{self.provider.name}: its values are of another time, {utc(first.start_s)} to {utc(last.end_s)}"
        )
        raise ProviderFault(message)

    def _fail(self, fault: ProviderFault) -> None:
        now_s = self._now()
        if self._merge().expires_s > now_s and _is_early(self._known, now_s):
            return  # another process had an answer meanwhile
        known = self._known
        least_s, most_s = (
            (REFUSED_DELAY_S, LONGEST_DELAY_S) if fault.refused else (FIRST_DELAY_S, REFUSED_DELAY_S)
        )
        delay_s = min(max(2 * known.delay_s, least_s), most_s)
        wait_s = min(max(delay_s, fault.retry_after_s or 0.0), LONGEST_DELAY_S)
        self._known = replace(
            known, rest_until_s=now_s + wait_s, delay_s=delay_s, problem=" ".join(str(fault).split())
        )
        Cache.store(self._path, self._known)
        self._tell(self._known.problem, self._known.rest_until_s)

    def _tell(self, problem: str, rest_until_s: float) -> None:
        """Log the first failure after a success, and no other."""
        if not self._told:
            self._told = True
            logger.warning(
                "No live carbon intensity: %s. Rows have the newest value or the fallback, and say so; asked again "
                "in %.0f s. `aimeter carbon refill` completes them later.",
                problem,
                max(rest_until_s - self._now(), 0.0),
            )


def _is_early(known: Known, now_s: float) -> bool:
    """Tell whether it is too early to ask again; what lies further ahead than any delay is of a clock set back."""
    return now_s < max(known.expires_s, known.rest_until_s) <= now_s + LONGEST_DELAY_S


def _intensity(series: Series, found: Mean, suffix: str) -> Intensity:
    method = series.kind.describe(estimated=found.estimated) + suffix
    return Intensity(
        found.g_per_kwh, series.source, method, series.zone, series.year, found.lower, found.upper
    )


def _values(found: Mean, start_s: float, end_s: float) -> dict[str, object]:
    """Return the values that a mean is made of, with the times they are of and, if several, how long each counted."""
    parts = found.parts[:_MOST_VALUES_TOLD]
    return {
        "values": [
            {
                "from": utc(part.start_s),
                "g_per_kwh": round(part.g_per_kwh, 3),
                **({"s": round(seconds_in(part, start_s, end_s), 3)} if len(parts) > 1 else {}),
            }
            for part in parts
        ],
        **({"more_values": len(found.parts) - len(parts)} if len(found.parts) > len(parts) else {}),
    }
