"""Idle powers and periods measured on purpose, kept for this machine, and used until they are seen live.

One file holds the calibrations of all machines that share the user's cache folder. A calibration is used on the
machine that it was made on, for the device that it was made of, as long as neither the kernel nor the driver has
changed and it is not too old.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimeter._support import files
from aimeter._support.clocks import time
from aimeter._support.log import logger
from aimeter._support.system import cache_folder, read_text

if TYPE_CHECKING:
    from aimeter._curve.response_fit import Estimate
    from aimeter.sensors.base import Channel

SCHEMA = 1

MAX_AGE_S = 30 * 86400.0
"""Rooms, fans and drivers change: an older calibration is not used."""

_CLOCK_SLACK_S = 86400.0
"""A clock may have been set back by so much since; what lies further in the future is not believed."""

_REMEDY = "Make it anew: aimeter calibrate"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of one channel while no call was open.

    Attributes:
        id: The channel's identifier then; not part of its identity.
        source: The interface it was read through.
        method: ``counter``, ``power`` or ``estimate``.
        device: Identity of the device: a GPU's UUID, a zone's path.
        name: What a person calls it.
        idle_w: Power while nothing ran: median of the means over stretches of a second.
        spread_w: Standard deviation of those means, by the median of their distances from it.
        period_s: Time between updates of the published value; None if that could not be seen.
        jitter_s: Standard deviation of the times of updates around a straight line; None likewise.
        measured_s: When, in seconds since 1970 (UTC).
        latency_s: How late the published value is, learned under a load; None if it was not. Likewise the next ones.
        latency_error_s: Its 95 % half-width.
        window_s: Time over which a published power is the mean.
        window_error_s: Its 95 % half-width.
    """

    id: str
    source: str
    method: str
    device: str
    name: str
    idle_w: float
    spread_w: float
    period_s: float | None
    jitter_s: float | None
    measured_s: float
    latency_s: float | None = None
    latency_error_s: float | None = None
    window_s: float | None = None
    window_error_s: float | None = None

    @property
    def latency(self) -> Estimate | None:
        """The latency as an estimate."""
        return _estimate(self.latency_s, self.latency_error_s)

    @property
    def window(self) -> Estimate | None:
        """The window as an estimate."""
        return _estimate(self.window_s, self.window_error_s)


def _estimate(value_s: float | None, error_s: float | None) -> Estimate | None:
    if value_s is None or error_s is None:
        return None
    from aimeter._curve.response_fit import Estimate  # noqa: PLC0415 - loads NumPy, which whoever has none of them need not

    return Estimate(value_s, error_s)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a calibration depends on besides the device.

    Attributes:
        identity: Tells machines apart without naming one: no host name, and no way back to the machine's id.
        kernel: Release of the operating system's kernel.
        driver: Version of the NVIDIA driver; None if there is none.
    """

    identity: str
    kernel: str
    driver: str | None


def this_machine(root: Path = Path("/")) -> Machine:
    """Return what a calibration made here and now depends on.

    The machine's id is confidential, so it only serves as the key of a hash of aimeter's own, as machine-id(5)
    asks for. Where there is none, the CPU must do.
    """
    cpu = re.search(r"^model name\s*:\s*(.*)", read_text(root / "proc" / "cpuinfo") or "", re.MULTILINE)
    key = (
        read_text(root / "etc" / "machine-id")
        or read_text(root / "var" / "lib" / "dbus" / "machine-id")
        or ""
    )
    what = f"aimeter {platform.system()} {platform.machine()} {cpu[1] if cpu else ''}"
    identity = hmac.new(key.encode(), what.encode(), hashlib.sha256).hexdigest()[:32]
    from aimeter.sensors.nvml import driver_version  # noqa: PLC0415 - only who has calibrations needs it

    return Machine(identity, platform.release(), driver_version())


def path_of(setting: Path | str) -> Path | None:
    """Return the file that the setting `calibration` means; None if it is ``off``."""
    if isinstance(setting, Path):
        return setting
    return None if setting == "off" else cache_folder() / "calibration.json"


class Calibrations:
    """The calibrations in one file, looked at when the first is asked for. Whatever is in it, nothing raises.

    Args:
        path: The file; None holds none.
        machine: Returns this machine.
        now: Returns the seconds since 1970.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        machine: Callable[[], Machine] = this_machine,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.problem = ""
        """Why the file, or one of its calibrations, is not used; empty if there is none or all is well."""
        self._machine = machine
        self._now = now
        self._usable: list[Calibration] | None = None

    def of(self, channel: Channel) -> Calibration | None:
        """Return the calibration of `channel` if there is one to be used."""
        if self._usable is None:
            self._usable = self._load()
        return next((one for one in self._usable if _key(one) == _key(channel)), None)

    def age_s(self, calibration: Calibration) -> float:
        """Return how old a calibration is."""
        return max(self._now() - calibration.measured_s, 0.0)

    def _load(self) -> list[Calibration]:
        if self.path is None:
            return []
        try:
            machines = _read(self.path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            self._pass_over(logging.WARNING, f"is not used: {error}. {_REMEDY}")
            return []
        machine = self._machine()
        entry = machines.get(machine.identity)
        if entry is None:
            self._pass_over(logging.INFO, f"is not used: it was made on another machine. {_REMEDY}")
            return []
        usable = []
        for one in entry.channels:
            fault = _fault(one, entry, machine, self._now())
            if fault:
                self._pass_over(logging.INFO, f"is not used for {one.id} ({one.name}): {fault}. {_REMEDY}")
            else:
                usable.append(one)
        return usable

    def _pass_over(self, level: int, reason: str) -> None:
        if not self.problem:
            logger.log(level, "The calibration in %s %s", self.path, reason)
            self.problem = reason


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the file holds of one machine."""

    kernel: str
    driver: str | None
    channels: tuple[Calibration, ...]


def _key(one: Calibration | Channel) -> tuple[str, ...]:
    """Return what a channel is known by from run to run, however it is numbered."""
    return one.source, one.method, one.device, one.name


def _fault(one: Calibration, entry: _Entry, machine: Machine, now_s: float) -> str:
    """Return why a calibration is not to be used; empty if it is."""
    if entry.kernel != machine.kernel:
        return f"the kernel was {entry.kernel} then and is {machine.kernel} now"
    if one.source == "nvml" and entry.driver != machine.driver:
        return f"the driver was {entry.driver} then and is {machine.driver} now"
    age_s = now_s - one.measured_s
    if age_s > MAX_AGE_S:
        return f"it is {age_s / 86400:.0f} days old"
    return "it was made in the future" if age_s < -_CLOCK_SLACK_S else ""


def store(path: Path, machine: Machine, measured: Iterable[Calibration]) -> None:
    """Add calibrations made on this machine to the file, in the place of older ones of the same channels.

    A reader of the file sees the old one or the new one.

    Raises:
        OSError: It cannot be written; the old file is untouched.
    """
    try:
        machines = _read(path)
    except (OSError, ValueError):
        machines = {}  # nothing in it can be used
    fresh = tuple(measured)
    made = {_key(one) for one in fresh}
    known = machines.get(machine.identity)
    same = known is not None and (known.kernel, known.driver) == (machine.kernel, machine.driver)
    kept = [one for one in known.channels if _key(one) not in made] if known is not None and same else []
    machines[machine.identity] = _Entry(machine.kernel, machine.driver, (*kept, *fresh))
    text = json.dumps(
        {"schema": SCHEMA, "machines": {key: asdict(one) for key, one in machines.items()}}, indent=1
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        file.write(text.encode())


def _read(path: Path) -> dict[str, _Entry]:
    """Return what the file holds, by the machines' identities.

    Raises:
        OSError: It cannot be read.
        ValueError: It is malformed, or of another schema.
    """
    try:
        document = json.loads(files.read_whole(path).decode("utf-8"))
        schema = document["schema"]
        if schema == SCHEMA:
            return {str(key): _entry(value) for key, value in document["machines"].items()}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        message = "it is malformed"
        raise ValueError(message) from error
    message = f"it has schema {schema!r:.20}, and this version of aimeter knows {SCHEMA}"
    raise ValueError(message)


def _entry(value: Mapping[str, Any]) -> _Entry:
    driver = value["driver"]
    return _Entry(
        str(value["kernel"]),
        None if driver is None else str(driver),
        tuple(_calibration(one) for one in value["channels"]),
    )


_TEXTS = ("id", "source", "method", "device", "name")
_LEARNED = ("latency_s", "latency_error_s", "window_s", "window_error_s")
"""Fields that files written before they were learned do not have."""
_OPTIONAL = ("period_s", "jitter_s", *_LEARNED)


def _calibration(value: Mapping[str, Any]) -> Calibration:
    """Return a calibration from its plain form.

    Raises:
        KeyError: A field is missing.
        TypeError, ValueError: A field cannot be what it holds.
    """
    found: dict[str, Any] = {}
    for field in fields(Calibration):
        key = field.name
        raw = value.get(key) if key in _LEARNED else value[key]
        if key in _TEXTS:
            found[key] = str(raw)
        elif raw is None and key in _OPTIONAL:
            found[key] = None
        else:
            found[key] = _not_negative(raw)
    if 0 in (found["period_s"], found["window_s"]):
        raise ValueError(found)
    return Calibration(**found)


def _not_negative(raw: Any) -> float:  # noqa: ANN401 - whatever JSON may hold
    number = float(raw)
    if isinstance(raw, bool) or not 0 <= number < math.inf:
        raise ValueError(raw)
    return number
