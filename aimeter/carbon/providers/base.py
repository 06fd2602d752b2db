"""What a source of intensity over time is, and how one fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from aimeter.carbon.location import Zone
from aimeter.carbon.series import Kind, Point, Series, tidy
from aimeter.errors import ConfigurationError

HOUR_S = 3600.0
HALF_HOUR_S = 1800.0
DAY_S = 86400.0


class ProviderFault(Exception):  # noqa: N818 - a fault of theirs, which is never the caller's error
    """A provider that gave no usable answer.

    Its text is made here, and holds neither keys nor addresses with keys.

    Attributes:
        refused: The provider understood, and will say the same again: wrong key, wrong zone, not in the plan.
        retry_after_s: How long it asked to be left alone; None if it did not say.
        status: Of its answer by HTTP; None if there was none.
    """

    def __init__(
        self,
        reason: str,
        *,
        refused: bool = False,
        retry_after_s: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.refused = refused
        self.retry_after_s = retry_after_s


class NoValuesError(ProviderFault):
    """A provider that answered, and had nothing usable to say of that time and place."""


@runtime_checkable
class Provider(Protocol):
    """A source of intensity. An implementation is one file in this folder, or the user's own class.

    Attributes:
        name: What it goes by in settings, rows and the cache.
        period_s: How long its values usually hold; it is asked again no sooner.
        cache_key: Tells its answers for a zone from those of another with the same name; None keeps them off the
            disk.
    """

    @property
    def name(self) -> str:
        """See the class; likewise the next two."""
        ...

    @property
    def period_s(self) -> float:
        """In seconds."""
        ...

    @property
    def cache_key(self) -> str | None:
        """Never on disk as it is, for it may hold an address with a key."""
        ...

    def zone_of(self, zone: Zone) -> str:
        """Return what the provider calls a zone.

        Raises:
            ConfigurationError: It has no name for it; the text says what to set.
        """
        ...

    def series(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return what it knows of an interval, in seconds since 1970; it may return more, or less.

        Called in a background thread, or by a command; never while a call waits.

        Raises:
            ProviderFault: It gave no usable answer.
        """
        ...


@runtime_checkable
class Forecaster(Provider, Protocol):
    """A provider that looks ahead."""

    def forecast(self, zone: str, start_s: float, end_s: float) -> Series:
        """Return what it expects for an interval that lies ahead; see `Provider.series`."""
        ...


def no_zone(provider: str, zone: Zone, example: str) -> ConfigurationError:
    """Return the error for a zone that a provider's names are not known of."""
    message = (
        f"The name that {provider} has for {zone.name} ({zone.code}) is not known here: set carbon_zone= or "
        f"AIMETER_CARBON_ZONE to it, such as {example}."
    )
    return ConfigurationError(message)


def needs_key(provider: str, variables: str) -> ConfigurationError:
    """Return the error for a provider that has no key."""
    message = f"{provider} needs a key: set {variables}, or carbon_key=."
    return ConfigurationError(message)


def utc(seconds: float, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """Return seconds since 1970 as text in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def epoch(text: object) -> float:
    """Return an ISO 8601 time as seconds since 1970; without an offset it is taken as UTC.

    Raises:
        ValueError: It is no such time.
    """
    if not isinstance(text, str):
        message = f"no time: {text!r:.40}"
        raise ValueError(message)  # noqa: TRY004 - the answer's value is wrong, not the program
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def answer(zone: str, kind: Kind, source: str, points: Iterable[Point]) -> Series:
    """Return the series of an answer.

    Raises:
        NoValuesError: No point of it is usable.
    """
    usable = tidy(points, kind)
    if not usable:
        message = f"{source} has no usable value"
        raise NoValuesError(message)
    return Series(zone, kind, source, usable)


def checked(series: Series, name: str) -> Series:
    """Return an answer with its usable values in order, whoever made it.

    Raises:
        ProviderFault: It has none, or they belong in another column.
    """
    if series.kind.accounting == "market-based":
        message = f"{name}: its values are market-based: set market_g_per_kwh for those"
        raise ProviderFault(message, refused=True)
    points = tidy(series.points, series.kind)
    if not points:
        message = f"{name}: it has no usable value"
        raise NoValuesError(message)
    return replace(series, points=points)
