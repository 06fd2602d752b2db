"""A function of the user's own as a provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from aimeter.carbon.location import Zone
from aimeter.carbon.providers.base import HOUR_S, ProviderFault, answer
from aimeter.carbon.series import Kind, Point, Series

Answer = float | Iterable[tuple[datetime, float]] | Series
UserFunction = Callable[[str, datetime, datetime], Answer]
"""``f(zone, start, end)`` in UTC. Gives one number in g CO2e/kWh for the whole interval, pairs of a time and the
number from then on, or a `Series`."""


@dataclass(frozen=True, slots=True)
class UserProvider:
    """Wraps a function.

    Args:
        function: See `UserFunction`. It is called in a background thread, whenever values are due.
        period_s: How often it is asked.
    """

    function: UserFunction
    period_s: float = HOUR_S

    @property
    def name(self) -> str:
        """The function's own name."""
        return f"function {getattr(self.function, '__name__', type(self.function).__name__)}"

    @property
    def cache_key(self) -> None:
        """None: what it says is not kept."""
        return None

    def zone_of(self, zone: Zone) -> str:
        """Return the zone's code as aimeter has it."""
        return zone.code

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Ask the function.

        Raises:
            ProviderFault: It raised, or gave something else.
        """
        start, end = (datetime.fromtimestamp(seconds, UTC) for seconds in (start_s, end_s))
        trouble = ""
        try:
            found = self.function(zone, start, end)
            if isinstance(found, Series):
                return found
            points = _points(found, start_s, end_s)
        except ProviderFault:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code may raise anything
            trouble = f"{self.name}: it raised {type(error).__name__}"
        if trouble:  # out here, as what it raised may hold a key of its own
            raise ProviderFault(trouble)
        return answer(zone, Kind("lifecycle", "unstated"), self.name, points)

    forecast = series


def _points(found: float | Iterable[tuple[datetime, float]], start_s: float, end_s: float) -> list[Point]:
    if isinstance(found, int | float):
        return [Point(start_s, max(end_s, start_s + 1.0), float(found))]
    begun = sorted((_utc(moment).timestamp(), float(value)) for moment, value in found)
    ends = [start for start, _ in begun[1:]] + [max(end_s, begun[-1][0] + HOUR_S)] if begun else []
    return [Point(start, end, value) for (start, value), end in zip(begun, ends, strict=True)]


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
