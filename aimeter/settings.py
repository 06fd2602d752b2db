"""Settings: from arguments, the environment and pyproject.toml to one checked, immutable value.

Strongest first: arguments, ``AIMETER_<KEY>`` variables, ``[tool.aimeter]`` in the nearest ``pyproject.toml``
at or above the current folder, defaults. Nothing is guessed: an unknown key or an unusable value in any layer
is an error that names the layer, also where a stronger layer would have overridden it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, NamedTuple

from aimeter._support import files
from aimeter._support.log import warn_once
from aimeter._support.secret import Secret
from aimeter._support.values import (
    Rule,
    auto_or,
    is_number,
    one_of,
    to_count,
    to_file,
    to_flag,
    to_folder,
    to_number,
    to_path,
    to_secret,
    to_sync,
    to_text,
)
from aimeter.carbon.intensity import MAX_G_PER_KWH
from aimeter.errors import ConfigurationError, did_you_mean

PREFIX = "AIMETER_"
TEST_PREFIX = "AIMETER_TEST_"
"""Variables for aimeter's own tests; they are not settings."""

NO_SETTINGS = frozenset({"AIMETER_INSTRUMENT"})
"""Variables that are no settings of a meter, see `aimeter.adapters.instrument`."""

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.001, 60.0


def _named(check: str, low: float) -> Callable[[object, Path], float | str]:
    """Return a converter for a number, or a name that the function `check` of `aimeter.carbon.overheads` knows."""
    number = to_number(low, math.inf)

    def convert(raw: object, folder: Path) -> float | str:
        if isinstance(raw, str):
            try:
                return number(raw, folder)
            except ValueError:
                if is_number(raw):
                    raise
            from aimeter.carbon import overheads  # noqa: PLC0415 - only names need the tables

            name = to_text(raw, folder)
            getattr(overheads, check)(name)
            return name
        return number(raw, folder)

    return convert


def _hardware(raw: object, folder: Path) -> str:
    from aimeter.carbon import overheads  # noqa: PLC0415 - only who asks for it needs the tables

    text = to_text(raw, folder)
    overheads.embodied(text)
    return text


def _provider(raw: object, folder: Path) -> object:
    if not isinstance(raw, str):
        if callable(raw) or hasattr(raw, "series") or isinstance(raw, Secret):
            return raw
        raise TypeError
    text = to_text(raw, folder)
    if "://" in text:
        # What stands behind "?" or before "@" in an address is most likely a key.
        return Secret(text) if "?" in text or "@" in text else text
    return str(to_file(text, folder)) if any(sign in text for sign in "/.\\") else text


def _accepts(
    expected: str, convert: Callable[[object, Path], object], *, optional: bool = False, secret: bool = False
) -> dict[str, Rule]:
    """Return a field's rule as its metadata."""
    return {"rule": Rule(expected, convert, optional, secret)}


@dataclass(frozen=True, slots=True)
class Settings:
    """How one meter works. Values are converted and checked when it is built.

    Attributes:
        log: File to append rows to: JSON Lines if its name ends in ``.jsonl`` or ``.ndjson``, else CSV; None
            keeps rows in memory only.
        log_conflict: What to do with a log that holds another schema: ``error``, or ``new_file`` beside it.
        region: Where the electricity comes from, see `aimeter.carbon.location.resolve`; None is unknown.
        intensity_g_per_kwh: Your own carbon intensity in g CO2e/kWh, 0 to 2000; it wins over the region's.
        pue: Power usage effectiveness applied to grams, a number or a name such as ``aws:2024``; 1.0 is the IT
            boundary.
        carbon_provider: Who is asked for intensity over time, see `aimeter.carbon.providers`: a name, the path or
            address of a CSV file, a function or a provider; None asks nobody, and no network is used.
        carbon_zone: The zone as the provider names it, where that does not follow from `region`.
        carbon_key: The provider's key (``user:password`` for WattTime); shown nowhere.
        carbon_basis: ``lifecycle`` or ``direct``; None leaves it to the provider.
        carbon_signal: ``average`` or ``marginal``; None leaves it to the provider.
        carbon_max_age_s: How long after its end a provider's newest value stands in for the next one.
        carbon_cache: Folder of the providers' answers; ``auto`` is in the user's cache folder, ``off`` keeps none.
        market_g_per_kwh: Your intensity by contract, for the market-based columns; 0 to 2000.
        cloud_metadata: True may ask the cloud's metadata service which region this is.
        wue_l_per_kwh: Water used on site, a number or a name such as ``aws:2024``; None leaves it out.
        grid_water_l_per_kwh: Water consumed in generating electricity, a number or ``US``; None leaves it out.
        embodied: Hardware whose making is counted, such as ``8 h100 + gpu-server``; None leaves it out.
        interval_s: Longest time between two readings of a channel around the begins and ends of calls, 0.001 to
            60 s; in the middle of a long call counters are read up to eight times less often.
        sync: ``auto`` waits for the GPUs' queued work before a call's end is stamped; ``off`` does not. False
            and True mean ``off`` and ``auto``.
        memory_rows: Settled rows kept in memory for each meter; 0 keeps none.
        powercap: Root of the powercap tree, for containers that mount it elsewhere.
        calibration: The file that `aimeter calibrate` keeps idle powers in; ``auto`` is the one in the user's cache
            folder, ``off`` uses none. False and True mean ``off`` and ``auto``.
        enabled: False makes calls cost next to nothing and meters none of them.
        run_id: What rows bear as ``aimeter.run`` in `meta`, so that those of one run are told from others in its log.
        summary: True ends the process with a table of its calls on standard error, at a normal exit.

    Raises:
        ConfigurationError: A value is unusable; the text says what is expected.
    """

    log: Path | None = field(default=None, metadata=_accepts("the path of a file", to_path, optional=True))
    log_conflict: Literal["error", "new_file"] = field(
        default="error", metadata=_accepts("'error' or 'new_file'", one_of("error", "new_file"))
    )
    region: str | None = field(
        default=None, metadata=_accepts("a place such as FR, US-VA or aws:us-east-1", to_text, optional=True)
    )
    intensity_g_per_kwh: float | None = field(
        default=None,
        metadata=_accepts(
            f"a number from 0 to {MAX_G_PER_KWH:.0f}, in g CO2e/kWh",
            to_number(0.0, MAX_G_PER_KWH),
            optional=True,
        ),
    )
    pue: float | str = field(
        default=1.0,
        metadata=_accepts("a number of at least 1.0, or a name such as aws:2024", _named("pue", 1.0)),
    )
    carbon_provider: object = field(
        default=None,
        metadata=_accepts(
            "a provider's name, the path or address of a CSV file, a function or a provider",
            _provider,
            optional=True,
        ),
    )
    carbon_zone: str | None = field(
        default=None, metadata=_accepts("the provider's name of a zone", to_text, optional=True)
    )
    carbon_key: Secret | None = field(
        default=None, metadata=_accepts("a key as text", to_secret, optional=True, secret=True)
    )
    carbon_basis: Literal["lifecycle", "direct"] | None = field(
        default=None,
        metadata=_accepts("'lifecycle' or 'direct'", one_of("lifecycle", "direct"), optional=True),
    )
    carbon_signal: Literal["average", "marginal"] | None = field(
        default=None,
        metadata=_accepts("'average' or 'marginal'", one_of("average", "marginal"), optional=True),
    )
    carbon_max_age_s: float = field(
        default=7200.0, metadata=_accepts("seconds, at least 0", to_number(0.0, math.inf))
    )
    carbon_cache: Path | Literal["auto", "off"] = field(
        default="auto",
        metadata=_accepts("'auto', 'off' (or True or False) or the path of a folder", auto_or(to_folder)),
    )
    market_g_per_kwh: float | None = field(
        default=None,
        metadata=_accepts(
            f"a number from 0 to {MAX_G_PER_KWH:.0f}, in g CO2e/kWh",
            to_number(0.0, MAX_G_PER_KWH),
            optional=True,
        ),
    )
    cloud_metadata: bool = field(
        default=False, metadata=_accepts("true or false (or 1, yes, on, 0, no, off)", to_flag)
    )
    wue_l_per_kwh: float | str | None = field(
        default=None,
        metadata=_accepts(
            "a number of at least 0, in L/kWh, or a name such as aws:2024",
            _named("site_water", 0.0),
            optional=True,
        ),
    )
    grid_water_l_per_kwh: float | str | None = field(
        default=None,
        metadata=_accepts(
            "a number of at least 0, in L/kWh, or a country such as US",
            _named("grid_water", 0.0),
            optional=True,
        ),
    )
    embodied: str | None = field(
        default=None, metadata=_accepts("hardware such as '8 h100 + gpu-server'", _hardware, optional=True)
    )
    interval_s: float = field(
        default=0.05,
        metadata=_accepts(
            f"seconds, from {MIN_INTERVAL_S} to {MAX_INTERVAL_S:.0f}",
            to_number(MIN_INTERVAL_S, MAX_INTERVAL_S),
        ),
    )
    sync: Literal["auto", "off"] = field(
        default="auto", metadata=_accepts("'auto' or 'off' (or True or False)", to_sync)
    )
    memory_rows: int = field(default=10_000, metadata=_accepts("a whole number of at least 0", to_count))
    powercap: Path = field(
        default=Path("/sys/class/powercap"), metadata=_accepts("the path of a folder", to_folder)
    )
    calibration: Path | Literal["auto", "off"] = field(
        default="auto",
        metadata=_accepts("'auto', 'off' (or True or False) or the path of a file", auto_or(to_file)),
    )
    enabled: bool = field(
        default=True, metadata=_accepts("true or false (or 1, yes, on, 0, no, off)", to_flag)
    )
    run_id: str | None = field(
        default=None, metadata=_accepts("a text that names the run", to_text, optional=True)
    )
    summary: bool = field(
        default=False, metadata=_accepts("true or false (or 1, yes, on, 0, no, off)", to_flag)
    )

    def __post_init__(self) -> None:
        for key in KEYS:
            value = _checked(key, getattr(self, key), origin="argument", folder=Path())
            object.__setattr__(self, key, value)  # frozen for everybody else


KEYS: Mapping[str, Rule] = {one.name: one.metadata["rule"] for one in fields(Settings)}
"""What each setting accepts, in the order of `Settings`."""


class _Layer(NamedTuple):
    """Values from one place, by setting."""

    values: Mapping[str, object]
    origin: Callable[[str], str]
    """Names the place of a key, as an error shows it."""
    folder: Path
    """What relative paths start from."""


def load(
    arguments: Mapping[str, object], *, environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Settings:
    """Return the settings that follow from all layers.

    A key that is absent from `arguments` is taken from the layers below. None as an argument counts as given:
    with ``log=None`` nothing is logged to a file, whatever the environment says. An empty variable counts as
    unset.

    Args:
        arguments: What the caller wrote, by key.
        environ: The environment.
        folder: Where relative paths and the search for ``pyproject.toml`` start; by default the current one.

    Raises:
        ConfigurationError: A key is unknown or a value unusable.
    """
    values: dict[str, object] = {}
    for layer in _layers(arguments, environ, folder):
        for key, raw in layer.values.items():
            values[key] = _checked(key, raw, origin=layer.origin(key), folder=layer.folder)
    return Settings(**values)  # type: ignore[arg-type]  # every value was checked for its key


def origins(
    arguments: Mapping[str, object], *, environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> dict[str, str]:
    """Return the place that each setting is taken from, as errors name it; one at its default is absent.

    Args:
        arguments: What the caller wrote, by key; likewise `environ` and `folder`, as for `load`.
        environ: The environment.
        folder: Where the search for ``pyproject.toml`` starts.

    Raises:
        ConfigurationError: The section of ``pyproject.toml`` is malformed.
    """
    layers = _layers(arguments, environ, folder)
    return {key: layer.origin(key) for layer in layers for key in layer.values}


def _layers(
    arguments: Mapping[str, object], environ: Mapping[str, str], folder: Path | None
) -> tuple[_Layer, ...]:
    """Return the layers, weakest first."""
    here = _current_folder() if folder is None else folder.absolute()
    return (
        _project(here),
        _environment(environ, here),
        _Layer(arguments, lambda _: "argument", here),
    )


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:
        return Path()  # the folder was deleted under the process


def _environment(environ: Mapping[str, str], folder: Path) -> _Layer:
    values = {
        name.removeprefix(PREFIX).lower(): text
        for name, text in environ.items()
        if name.startswith(PREFIX)
        and not name.startswith(TEST_PREFIX)
        and name not in NO_SETTINGS
        and text.strip()
    }
    return _Layer(values, lambda key: f"environment variable {PREFIX}{key.upper()}", folder)


def _project(folder: Path) -> _Layer:
    candidates = (parent / "pyproject.toml" for parent in (folder, *folder.parents))
    # Path.exists would raise where a folder above may not be entered.
    file = next((file for file in candidates if os.path.exists(file)), None)  # noqa: PTH110 - see above
    if file is not None and not file.is_file():
        message = f"{file} is no regular file. Settings are read from files: move it away."
        raise ConfigurationError(message)
    table = {} if file is None else _table(file)
    return _Layer(table, lambda _: f"[tool.aimeter] in {file}", folder if file is None else file.parent)


def _table(file: Path) -> Mapping[str, object]:
    """Return ``[tool.aimeter]`` of a pyproject.toml, empty if it has none.

    A file that cannot be read, or is malformed and has no section for aimeter, is somebody else's business:
    one warning, and no settings.
    """
    try:
        text = files.read_whole(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        warn_once(f"{file} cannot be read ({error}); it is not searched for settings.")
        return {}
    if "aimeter" not in text:
        return {}
    import tomllib  # noqa: PLC0415 - needed only where a project mentions aimeter

    try:
        tool = tomllib.loads(text).get("tool", {})
    except (ValueError, RecursionError) as error:  # also what Python says of an integer without end
        if "[tool.aimeter]" in text:
            message = f"{file} has a section [tool.aimeter] but is malformed: {error}."
            raise ConfigurationError(message) from error
        warn_once(f"{file} is malformed ({error}); it is not searched for settings.")
        return {}
    table = tool.get("aimeter", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        message = f"tool.aimeter in {file} is {_shown(table)}; write a table: [tool.aimeter]."
        raise ConfigurationError(message)
    return table


def _shown(raw: object) -> str:
    try:
        return repr(raw)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        return "not usable"


def _checked(key: str, raw: object, *, origin: str, folder: Path) -> object:
    """Return the value of one setting, converted, or raise ConfigurationError with its origin."""
    rule = KEYS.get(key)
    if rule is None:
        message = f"Unknown setting {key!r} ({origin}).{did_you_mean(key, KEYS)} Known: {', '.join(KEYS)}."
        raise ConfigurationError(message)
    if raw is None and rule.optional:
        return None
    more = ""
    try:
        return rule.convert(raw, folder)
    except ConfigurationError as error:
        more = f" {error}"
    except (ValueError, TypeError, OverflowError):
        pass
    shown = "not usable" if rule.secret else _shown(raw)
    message = f"The setting {key} is {shown} ({origin}); expected {rule.expected}.{more}"
    raise ConfigurationError(message)
