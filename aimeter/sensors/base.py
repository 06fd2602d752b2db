"""What a sensor is: one kind of meter, its channels, and what one reading of it says.

A sensor gives *channels* (``gpu:0``, ``cpu:0``, ``dram:0`` …). A channel delivers either cumulative energy in
joules or a power in watts; it says how it comes by the figure, how often it is renewed and how wrong it may
be. Whatever goes wrong while reading is a typed outcome in the `Reading`, never an exception in the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Kind = Literal["gpu", "cpu", "dram", "other"]
Method = Literal["counter", "power", "estimate"]
Quantity = Literal["energy", "power"]
Clock = Callable[[], float]

MOST_POWER_W = 10_000.0
"""No device that is read as one draws more: a figure above it is garbage, where the device tells no limit of its own.
The largest modules sold draw below 3 kW, and counters have been seen to jump by 1e14 J."""

KINDS: tuple[Kind, ...] = ("gpu", "cpu", "dram", "other")


@dataclass(frozen=True, slots=True)
class Channel:
    """One metered device (or part of one) as a sensor presents it.

    Attributes:
        id: Short and stable within a run, and no other channel's of the same meter: ``gpu:0``, ``cpu:1``, ``dram:0``,
            ``other:0``. The column ``devices`` and the argument of that name of ``track`` have it.
        kind: The column of the row that its energy belongs to.
        method: How the figure comes about: ``counter`` (the device counts energy), ``power`` (a reported power,
            integrated by aimeter) or ``estimate`` (computed from utilisation).
        quantity: What `Reading.value` holds: ``energy`` in joules since an arbitrary origin, or ``power`` in watts.
        name: What a person would call it: ``NVIDIA A100-SXM4-80GB``, ``package-0``.
        device: Identity that survives renumbering: a GPU's UUID, a zone's path.
        source: The interface it is read through: ``nvml``, ``powercap``, ``perf``, ``psutil``.
        period_s: Time between updates of the published value, as documented for the device; 0 if there is always a new
            one: a power then counts as of the moment of each reading.
        window_s: Time over which a published power is the mean, 0 for one of an instant; 0 for energy. At less than 0.9
            of the period, what lies between two windows is not seen, and widens the error.
        latency_s: How late the published value is, as measured on devices of the kind.
        latency_error_s: 95 % half-width of that.
        quantum_j: Smallest increment of the published value in joules; 0 where it is negligible or unknown.
        relative_error: Calibration error as a 95 % half-width relative to the energy (0.05 is 5 %).
        wrap_j: Energy after which a counter starts again from 0; None where it never does.
        max_power_w: Greatest power the device can draw, for plausibility; None if unknown.
        shared: The figure is of the whole device although this process may use only a part of it (MIG).
        covers: Kinds of other devices whose energy is in the figure, so that they are not metered beside it: the CPU
            and its memory in the counter of a Grace Hopper module, and the GPU, too, in the power at the wall.
        note: One line on what the figure covers, or None. Rows have it as ``aimeter.covers`` if `covers` names anything.
    """

    id: str
    kind: Kind
    method: Method
    quantity: Quantity
    name: str
    device: str
    source: str
    period_s: float
    window_s: float = 0.0
    latency_s: float = 0.0
    latency_error_s: float = 0.0
    quantum_j: float = 0.0
    relative_error: float = 0.05
    wrap_j: float | None = None
    max_power_w: float | None = None
    shared: bool = False
    covers: tuple[Kind, ...] = ()
    note: str | None = None


class Outcome(Enum):
    """What became of one attempt to read a channel."""

    OK = "ok"
    AGAIN = "again"
    """No value this time; the next attempt may succeed."""
    GONE = "gone"
    """No value and none to come: the device fell off the bus, the file vanished, permission was withdrawn."""


_EARLY_S = 10.0
"""A reading whose stamps lie further from the clock than this is of another clock."""


class Reading(NamedTuple):
    """One attempt to read one channel, stamped before and after on the monotonic clock."""

    before_s: float
    after_s: float
    outcome: Outcome
    value: float | None
    """Joules or watts, by `Channel.quantity`; None unless the outcome is OK."""
    reason: str = ""
    """Why there is no value, in words fit for a log line."""


def heard(answer: object, channels: int, now_s: float, who: str) -> list[Reading]:
    """Return what a sensor answered as one reading a channel, whatever that was: a failed one says what is wrong.

    Args:
        answer: What `Sensor.read` returned.
        channels: How many channels it is of.
        now_s: The time on the clock that stamps readings.
        who: The sensor's name.
    """
    if not isinstance(answer, list | tuple) or (len(answer) != channels and answer):
        fault = f"{who} answered {type(answer).__name__} where a list of {channels} readings is expected"
        return [Reading(now_s, now_s, Outcome.AGAIN, None, fault) for _ in range(channels)]
    return [_heard(one, now_s, who) for one in answer]


def _heard(one: Any, now_s: float, who: str) -> Reading:  # noqa: ANN401 - whatever somebody's sensor says
    try:
        before_s, after_s, outcome, value, reason = one
        before_s, after_s = float(before_s), float(after_s)
        if not (-math.inf < before_s <= after_s <= now_s + _EARLY_S):
            message = f"stamps of {before_s:.6g} and {after_s:.6g} s at {now_s:.6g} s"
            raise ValueError(message)  # noqa: TRY301 - one way out for whatever is wrong
        if outcome.__class__ is not Outcome:
            message = f"the outcome {outcome!r:.40}"
            raise TypeError(message)  # noqa: TRY301 - the same
        if outcome is Outcome.OK:
            value = float(value)
            if not math.isfinite(value):
                message = f"the value {value}"
                raise ValueError(message)  # noqa: TRY301 - the same
        else:
            value = None
    except (TypeError, ValueError, OverflowError, AttributeError) as fault:
        return Reading(now_s, now_s, Outcome.AGAIN, None, f"{who} gave no reading: {fault}")
    return Reading(before_s, after_s, outcome, value, str(reason))


@runtime_checkable
class Sensor(Protocol):
    """One kind of meter. To add a meter, write these three methods.

    A sensor is read by one thread at a time.
    """

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What it meters; an attribute will do."""
        ...

    def read(self) -> list[Reading]:
        """Read every channel, in the order of `channels`. Never raises for a fault of the device."""
        ...

    def reopen(self) -> None:
        """Make the sensor usable in a forked child, where the parent's handles are not."""
        ...

    def close(self) -> None:
        """Release what the sensor holds. Calling it twice is harmless."""
        ...


@runtime_checkable
class FallsBack(Protocol):
    """What a `Sensor` may offer besides: other ways to read its device, for when the one in use fails for good."""

    def fall_back(self) -> bool:
        """Change to the next best way that gives a value, `channels` with it; False if none does."""
        ...


@runtime_checkable
class Retakes(Protocol):
    """What a `Sensor` may offer besides: to start over with its device, which said that it was gone.

    Tried less and less often while the device stays away, each time after `Sensor.reopen`.
    """

    def retake(self) -> bool:
        """Choose anew how to read the device, `channels` with it; False if it gives no value."""
        ...


@runtime_checkable
class Accompanied(Protocol):
    """What a `Sensor` may offer besides: a second sensor, which tells how the power ran between the steps of its counter."""

    def beside(self) -> Sensor | None:
        """Return a sensor with one channel of power, of the same device; None if there is none that works.

        Its `Channel.period_s` is not 0.
        """
        ...


Status = Literal["used", "unused", "missing", "denied", "dead", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking for one meter found, for `aimeter doctor` and for the one warning a missing meter causes.

    Attributes:
        source: ``nvml``, ``powercap``, ``perf``, ``estimate`` …
        subject: The device, zone or library that was looked for.
        status: ``used``, ``unused`` (works, but another meter covers the same device), ``missing`` (not there),
            ``denied`` (no permission), ``dead`` (there, but never advances) or ``failed`` (any other fault).
        detail: What was found, in one sentence.
        remedy: The exact command or setting that would mend it; empty if there is none.
    """

    source: str
    subject: str
    status: Status
    detail: str
    remedy: str = ""
