"""Sources of intensity over time: one file each, chosen by name. None is asked unless the user has chosen it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, cast

from aimeter._support.secret import Secret
from aimeter.carbon.providers.base import Forecaster, Provider, ProviderFault, needs_key
from aimeter.errors import ConfigurationError, did_you_mean

__all__ = ["NAMES", "Forecaster", "Provider", "ProviderFault", "provider"]

# ruff: noqa: PLC0415 - a provider's file is loaded when it is chosen

Basis = Literal["lifecycle", "direct"]
Signal = Literal["average", "marginal"]

_Maker = Callable[[str, Secret | None, Basis | None, Signal | None, Mapping[str, str]], Provider]


class _Known(NamedTuple):
    """What can be chosen by name."""

    make: _Maker
    basis: tuple[Basis, ...]
    """What its numbers may include; empty if that cannot be chosen."""
    signal: tuple[Signal, ...] = ("average",)
    key: str = ""
    """The environment variable that has its key, where `carbon_key` is not set; empty if that is not all it takes."""


def provider(
    chosen: object,
    *,
    key: Secret | None = None,
    basis: Basis | None = None,
    signal: Signal | None = None,
    environ: Mapping[str, str],
) -> Provider:
    """Return the provider that a setting means.

    Args:
        chosen: A name of `NAMES`, the path or address of a CSV file, a function, or a provider.
        key: Its key; by default that of the environment.
        basis: What the numbers are to include; None leaves it to the provider.
        signal: Average or marginal; None likewise.
        environ: The environment.

    Raises:
        ConfigurationError: There is no such provider, it has no key, or it does not give what is asked for.
    """
    if isinstance(chosen, Secret):  # an address with a key in it
        chosen = chosen.reveal()
    if not isinstance(chosen, str):
        return _own(chosen)
    name = chosen.strip()
    if "/" in name or "." in name or "\\" in name:
        from aimeter.carbon.providers.file_or_url import FileOrUrl

        return FileOrUrl(name)
    name = name.lower()
    known = _KNOWN.get(name)
    if known is None:
        message = (
            f"The carbon_provider {chosen!r} is unknown.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}; "
            "or give the path or address of a CSV file."
        )
        raise ConfigurationError(message)
    _check(name, "carbon_basis", basis, known.basis)
    _check(name, "carbon_signal", signal, known.signal)
    return known.make(name, key, basis, signal, environ)


def _own(chosen: object) -> Provider:
    if isinstance(chosen, Provider):
        return chosen
    if callable(chosen):
        from aimeter.carbon.providers.user import UserFunction, UserProvider

        return UserProvider(cast("UserFunction", chosen))
    message = f"carbon_provider is {chosen!r}; give a name, a path, an address, a function or a provider."
    raise ConfigurationError(message)


def _check(name: str, setting: str, asked: str | None, given: Sequence[str]) -> None:
    if asked is not None and asked not in given:
        has = " or ".join(sorted(given)) or "what its tables have"
        message = f"{setting} is {asked!r}, and {name} gives {has}: leave it out, or choose another provider."
        raise ConfigurationError(message)


def _key(name: str, key: Secret | None, environ: Mapping[str, str]) -> Secret:
    variable = _KNOWN[name].key
    text = key.reveal() if key is not None else environ.get(variable, "").strip()
    if not text:
        raise needs_key(name, f"AIMETER_CARBON_KEY or {variable}")
    return Secret(text)


def _offline(*_: object) -> Provider:
    from aimeter.carbon.providers.offline import Offline

    return Offline()


def _electricitymaps(
    name: str, key: Secret | None, basis: Basis | None, _: object, environ: Mapping[str, str]
) -> Provider:
    from aimeter.carbon.providers.electricitymaps import ElectricityMaps

    version: Literal["v3", "v4"] = "v3" if name.endswith("v3") else "v4"
    return ElectricityMaps(_key(name, key, environ), basis or "lifecycle", version)


def _watttime(
    name: str, key: Secret | None, _: object, signal: Signal | None, environ: Mapping[str, str]
) -> Provider:
    from aimeter.carbon.providers.watttime import WattTime

    given = key.reveal() if key is not None else ""
    user, colon, password = given.partition(":")
    if not colon:
        user, password = environ.get("WATTTIME_USER", ""), given or environ.get("WATTTIME_PASSWORD", "")
    if not user or not password:
        raise needs_key(name, "WATTTIME_USER and WATTTIME_PASSWORD, or AIMETER_CARBON_KEY=user:password")
    return WattTime(user, Secret(password), signal or "average")


def _gb(*_: object) -> Provider:
    from aimeter.carbon.providers.gb import GreatBritain

    return GreatBritain()


def _rte(*_: object) -> Provider:
    from aimeter.carbon.providers.rte import Rte

    return Rte()


def _entsoe(name: str, key: Secret | None, _: object, __: object, environ: Mapping[str, str]) -> Provider:
    from aimeter.carbon.providers.entsoe import Entsoe

    return Entsoe(_key(name, key, environ))


def _eia930(name: str, key: Secret | None, _: object, __: object, environ: Mapping[str, str]) -> Provider:
    from aimeter.carbon.providers.eia930 import Eia930

    return Eia930(_key(name, key, environ))


_KNOWN = {
    "offline": _Known(_offline, ()),
    "electricitymaps": _Known(_electricitymaps, ("lifecycle", "direct"), key="ELECTRICITYMAPS_TOKEN"),
    "electricitymaps-v3": _Known(_electricitymaps, ("lifecycle", "direct"), key="ELECTRICITYMAPS_TOKEN"),
    "watttime": _Known(_watttime, ("direct",), ("average", "marginal")),
    "gb": _Known(_gb, ("direct",)),
    "rte": _Known(_rte, ("direct",)),
    "entsoe": _Known(_entsoe, ("lifecycle",), key="ENTSOE_TOKEN"),
    "eia930": _Known(_eia930, ("lifecycle",), key="EIA_API_KEY"),
}
"""To add a provider, write its file and add a line here."""

NAMES = tuple(_KNOWN)
"""What `carbon_provider` may be by name; anything with a slash or a dot in it is a file or an address."""

KEYS = {name: known.key for name, known in _KNOWN.items() if known.key}
"""The environment variable that has a provider's key, where `carbon_key` is not set."""
