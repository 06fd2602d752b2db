"""Settings: from arguments, the environment and pyproject.toml to one checked, immutable value.

Strongest first: arguments, ``AIMETER_<KEY>`` variables, ``[tool.aimeter]`` in the nearest ``pyproject.toml``
at or above the current folder, defaults. Nothing is guessed: an unknown key or an unusable value in any layer
is an error that names the layer, also where a stronger layer would have overridden it.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

from aimeter._support import files
from aimeter._support.log import warn_once
from aimeter._support.secret import Secret
from aimeter.carbon.intensity import MAX_G_PER_KWH
from aimeter.errors import ConfigurationError, did_you_mean

PREFIX = "AIMETER_"
TEST_PREFIX = "AIMETER_TEST_"
"""Variables for aimeter's own tests; they are not settings."""

NO_SETTINGS = frozenset({"AIMETER_INSTRUMENT"})
"""Variables that are no settings of a meter, see `aimeter.adapters.instrument`."""

MIN_INTERVAL_S = 0.001
MAX_INTERVAL_S = 60.0


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

    Raises:
        ConfigurationError: A value is unusable; the text says what is expected.
    """

    log: Path | None = None
    log_conflict: Literal["error", "new_file"] = "error"
    region: str | None = None
    intensity_g_per_kwh: float | None = None
    pue: float | str = 1.0
    carbon_provider: object = None
    carbon_zone: str | None = None
    carbon_key: Secret | None = None
    carbon_basis: Literal["lifecycle", "direct"] | None = None
    carbon_signal: Literal["average", "marginal"] | None = None
    carbon_max_age_s: float = 7200.0
    carbon_cache: Path | Literal["auto", "off"] = "auto"
    market_g_per_kwh: float | None = None
    cloud_metadata: bool = False
    wue_l_per_kwh: float | str | None = None
    grid_water_l_per_kwh: float | str | None = None
    embodied: str | None = None
    interval_s: float = 0.05
    sync: Literal["auto", "off"] = "auto"
    memory_rows: int = 10_000
    powercap: Path = Path("/sys/class/powercap")
    calibration: Path | Literal["auto", "off"] = "auto"
    enabled: bool = True

    def __post_init__(self) -> None:
        for key in KEYS:
            value = _checked(key, getattr(self, key), origin="argument", folder=Path())
            object.__setattr__(self, key, value)  # frozen for everybody else


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
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if "[tool.aimeter]" in text:
            message = f"{file} has a section [tool.aimeter] but is malformed: {error}."
            raise ConfigurationError(message) from error
        warn_once(f"{file} is malformed ({error}); it is not searched for settings.")
        return {}
    table = tool.get("aimeter", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        message = f"tool.aimeter in {file} is {table!r}; write a table: [tool.aimeter]."
        raise ConfigurationError(message)
    return table


class _Key(NamedTuple):
    """What a setting accepts."""

    expected: str
    convert: Callable[[object, Path], object]
    """Takes the raw value and the folder of relative paths; raises ValueError, TypeError or OverflowError."""
    optional: bool = False
    """None is a value."""
    secret: bool = False
    """The value is not to be shown, not even where it is wrong."""


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
    shown = "not usable" if rule.secret else repr(raw)
    message = f"The setting {key} is {shown} ({origin}); expected {rule.expected}.{more}"
    raise ConfigurationError(message)


def _number(low: float, high: float) -> Callable[[object, Path], float]:
    def convert(raw: object, _: Path) -> float:
        if isinstance(raw, bool):
            raise TypeError
        value = float(cast("float", raw))  # numbers of any kind, NumPy's too, and text
        if not low <= value <= high or not math.isfinite(value):
            raise ValueError
        return value

    return convert


def _named(check: str, low: float) -> Callable[[object, Path], float | str]:
    """Return a converter for a number, or a name that the function `check` of `aimeter.carbon.overheads` knows."""
    number = _number(low, math.inf)

    def convert(raw: object, folder: Path) -> float | str:
        if isinstance(raw, str):
            try:
                return number(raw, folder)
            except ValueError:
                if _is_number(raw):
                    raise
            from aimeter.carbon import overheads  # noqa: PLC0415 - only names need the tables

            name = _text(raw, folder)
            getattr(overheads, check)(name)
            return name
        return number(raw, folder)

    return convert


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _hardware(raw: object, folder: Path) -> str:
    from aimeter.carbon import overheads  # noqa: PLC0415 - only who asks for it needs the tables

    text = _text(raw, folder)
    overheads.embodied(text)
    return text


def _provider(raw: object, folder: Path) -> object:
    if not isinstance(raw, str):
        if callable(raw) or hasattr(raw, "series") or isinstance(raw, Secret):
            return raw
        raise TypeError
    text = _text(raw, folder)
    if "://" in text:
        # What stands behind "?" or before "@" in an address is most likely a key.
        return Secret(text) if "?" in text or "@" in text else text
    is_file = "/" in text or "." in text or "\\" in text
    return str(_file(text, folder)) if is_file else text


def _secret(raw: object, folder: Path) -> Secret:
    return raw if isinstance(raw, Secret) else Secret(_text(raw, folder))


def _count(raw: object, _: Path) -> int:
    if isinstance(raw, bool):
        raise TypeError
    value = int(raw) if isinstance(raw, str) else operator.index(cast("int", raw))
    if not 0 <= value <= sys.maxsize:
        raise ValueError
    return value


_WORDS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def _flag(raw: object, _: Path) -> bool:
    try:
        return _WORDS[str(raw).strip().lower()]
    except KeyError:
        raise ValueError from None


def _sync(raw: object, folder: Path) -> str:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return "auto"
    return "auto" if _flag(raw, folder) else "off"


def _auto_or(
    place: Callable[[object, Path], Path],
) -> Callable[[object, Path], Path | str]:
    """Return a converter for ``auto``, ``off``, or the path that `place` makes of anything else."""

    def convert(raw: object, folder: Path) -> Path | str:
        if isinstance(raw, bool | str) and str(raw).strip().lower() in {"auto", *_WORDS}:
            return _sync(raw, folder)
        return place(raw, folder)

    return convert


def _choice(*words: str) -> Callable[[object, Path], str]:
    def convert(raw: object, folder: Path) -> str:
        word = _text(raw, folder).lower()
        if word not in words:
            raise ValueError
        return word

    return convert


def _text(raw: object, _: Path) -> str:
    if not isinstance(raw, str):
        raise TypeError
    text = raw.strip()
    if not text:
        raise ValueError
    return text


def _path(raw: object, folder: Path) -> Path:
    text = os.fspath(cast("os.PathLike[str]", raw))
    if not isinstance(text, str):
        raise TypeError
    if not text.strip() or "\0" in text:
        raise ValueError
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:
        raise ValueError from None  # no home folder for ~


# Path.exists would raise where a folder above may not be entered.


def _file(raw: object, folder: Path) -> Path:
    path = _path(raw, folder)
    if os.path.exists(path) and not path.is_file():  # noqa: PTH110 - see above
        message = "It is no regular file."
        raise ConfigurationError(message)
    return path


def _folder(raw: object, folder: Path) -> Path:
    path = _path(raw, folder)
    if os.path.exists(path) and not path.is_dir():  # noqa: PTH110 - see above
        message = "It is no folder."
        raise ConfigurationError(message)
    return path


KEYS: Mapping[str, _Key] = {
    "log": _Key("the path of a file", _path, optional=True),
    "log_conflict": _Key("'error' or 'new_file'", _choice("error", "new_file")),
    "region": _Key("a place such as FR, US-VA or aws:us-east-1", _text, optional=True),
    "intensity_g_per_kwh": _Key(
        f"a number from 0 to {MAX_G_PER_KWH:.0f}, in g CO2e/kWh",
        _number(0.0, MAX_G_PER_KWH),
        optional=True,
    ),
    "pue": _Key("a number of at least 1.0, or a name such as aws:2024", _named("pue", 1.0)),
    "carbon_provider": _Key(
        "a provider's name, the path or address of a CSV file, a function or a provider",
        _provider,
        optional=True,
    ),
    "carbon_zone": _Key("the provider's name of a zone", _text, optional=True),
    "carbon_key": _Key("a key as text", _secret, optional=True, secret=True),
    "carbon_basis": _Key("'lifecycle' or 'direct'", _choice("lifecycle", "direct"), optional=True),
    "carbon_signal": _Key("'average' or 'marginal'", _choice("average", "marginal"), optional=True),
    "carbon_max_age_s": _Key("seconds, at least 0", _number(0.0, math.inf)),
    "carbon_cache": _Key("'auto', 'off' (or True or False) or the path of a folder", _auto_or(_folder)),
    "market_g_per_kwh": _Key(
        f"a number from 0 to {MAX_G_PER_KWH:.0f}, in g CO2e/kWh", _number(0.0, MAX_G_PER_KWH), optional=True
    ),
    "cloud_metadata": _Key("true or false (or 1, yes, on, 0, no, off)", _flag),
    "wue_l_per_kwh": _Key(
        "a number of at least 0, in L/kWh, or a name such as aws:2024",
        _named("site_water", 0.0),
        optional=True,
    ),
    "grid_water_l_per_kwh": _Key(
        "a number of at least 0, in L/kWh, or a country such as US", _named("grid_water", 0.0), optional=True
    ),
    "embodied": _Key("hardware such as '8 h100 + gpu-server'", _hardware, optional=True),
    "interval_s": _Key(
        f"seconds, from {MIN_INTERVAL_S} to {MAX_INTERVAL_S:.0f}", _number(MIN_INTERVAL_S, MAX_INTERVAL_S)
    ),
    "sync": _Key("'auto' or 'off' (or True or False)", _sync),
    "memory_rows": _Key("a whole number of at least 0", _count),
    "powercap": _Key("the path of a folder", _folder),
    "calibration": _Key("'auto', 'off' (or True or False) or the path of a file", _auto_or(_file)),
    "enabled": _Key("true or false (or 1, yes, on, 0, no, off)", _flag),
}
"""Every setting, in the order of `Settings`."""
