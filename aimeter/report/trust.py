"""What the figures of a set of calls are worth, in one plain sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimeter.record import MeasuredBy
    from aimeter.report.summary import SummaryRow

_DEVICES = {"gpu": "the GPU", "cpu": "the CPU", "dram": "the memory"}
_ESTIMATED_CPU = "the CPU with its share of the server around it"
"""The model of `aimeter.sensors.estimate` is of a server's power at the wall, divided among its CPUs."""
_WORST_FIRST: tuple[MeasuredBy, ...] = ("estimate", "power", "counter")
_HOW = {  # of one kind of device, of several
    "counter": ("counted by its own energy meter", "counted by their own energy meters"),
    "power": ("added up from the power that it reports", "added up from the power that they report"),
    "estimate": (
        "estimated from how busy it was because no energy meter of it could be read",
        "estimated from how busy they were because no energy meter of them could be read",
    ),
}
_GOOD_FOR = {
    "counter": "good enough to report with that error",
    "power": "good enough to report with that error",
    "estimate": "good enough to compare calls on this machine but not to report as a measurement",
}


def trust_sentence(total: SummaryRow) -> str:
    """Say what the figures of these calls mean and how far they can be trusted.

    Where one kind of device was measured in several ways the worst counts. The error is that of all calls
    together, added up as in `aimeter.report.sums`.
    """
    if total.energy_j is None:
        return (
            "The joules are unknown, because no energy meter could be read on this machine and nothing could "
            "be estimated either, while times and counts are right: `aimeter doctor` says what is missing."
        )
    by_method = _devices_by_method(total)
    devices = [
        _ESTIMATED_CPU if (method, device) == ("estimate", _DEVICES["cpu"]) else device
        for method, group in by_method.items()
        for device in group
    ] or ["the metered devices"]
    worst = next(iter(by_method), "counter")
    left_out = (
        f" ({total.unknown} of {total.calls} calls, without any figure, are left out)"
        if total.unknown
        else ""
    )
    return (
        f"The joules are what {_joined(devices)} drew while each call was open, idle power included"
        f"{_how(by_method)}: over all calls {_error(total)}{left_out}, {_GOOD_FOR[worst]}."
    )


def _devices_by_method(total: SummaryRow) -> dict[MeasuredBy, list[str]]:
    """Return the kinds of device by the worst method used for each, the worst first."""
    groups: dict[MeasuredBy, list[str]] = {}
    for kind, device in _DEVICES.items():
        seen = total.methods.get(kind, ())
        worst = next((method for method in _WORST_FIRST if method in seen), None)
        if worst is not None:
            groups.setdefault(worst, []).append(device)
    return {method: groups[method] for method in _WORST_FIRST if method in groups}


def _how(by_method: dict[MeasuredBy, list[str]]) -> str:
    if not by_method:
        return ""
    phrases = {method: _HOW[method][len(devices) > 1] for method, devices in by_method.items()}
    if len(phrases) == 1:
        return ", " + next(iter(phrases.values()))
    owned = {method: _joined([f"{device}'s" for device in devices]) for method, devices in by_method.items()}
    return " (" + "; ".join(f"{owned[method]} {phrase}" for method, phrase in phrases.items()) + ")"


def _error(total: SummaryRow) -> str:
    if total.energy_error_j is None or not total.energy_j:
        return "their error is unknown"
    percent = 100 * total.energy_error_j / total.energy_j
    return f"they are right to within ±{percent:{'.0f' if percent >= 1 else '.1g'}} % (95 % confidence)"


def _joined(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
