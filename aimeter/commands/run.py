"""Meter a whole command: its streams, its exit status and its signals pass through."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from aimeter import autoload
from aimeter._support import stderr
from aimeter._support.units import quantity
from aimeter.commands import child
from aimeter.commands.calls import Calls
from aimeter.meter import Meter
from aimeter.settings import load

if TYPE_CHECKING:
    from aimeter.record import Record

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""What a shell returns for such a command (POSIX.1-2024, Shell Command Language, 2.8.2)."""

SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a command."""


class CannotRunError(Exception):
    """The command cannot be started; `status` is what a shell would return."""

    def __init__(self, program: str, reason: str, status: int) -> None:
        super().__init__(f"{program}: {reason}")
        self.status = status


def run(
    command: list[str],
    *,
    name: str | None,
    quiet: bool,
    settings: Mapping[str, object],
    instrument: bool = False,
) -> int:
    """Run `command` as one call and return how it ended: its exit status, or minus the signal that killed it.

    Args:
        command: Program and arguments. The arguments are nowhere written down: they may hold secrets.
        name: What the call is called in the log; by default the program's base name.
        quiet: Do not print the line that sums the call up.
        settings: Settings given as options; they go before all other layers.
        instrument: Have a Python command meter its own model calls. The log is then that of those calls, and holds
            no row of the command: the same joules would be in it twice.

    Raises:
        CannotRunError: There is no such program, or it cannot be executed.
        ConfigurationError: A setting is unusable or the log cannot be written; the command was not started.
    """
    program = _find(command[0])
    label = Path(command[0]).name
    given = load(settings)
    calls = Calls(given, shown=not quiet) if instrument else None
    environment: Mapping[str, str] = os.environ
    ours: dict[str, object] = {**settings, "summary": False}
    if calls is not None:
        told = {key: getattr(given, key) for key in settings}  # checked, and a relative path made absolute
        environment = autoload.environment(os.environ, {**told, **calls.settings})
        ours["log"] = None
    try:
        status, record = _metered(program, command, name or label, ours, environment)
        if not quiet:
            for text in () if calls is None or record is None else calls.told(record, status):
                stderr.tell(f"{text}\n")
            row = "" if given.log is None else f", row in {given.log}"
            stderr.tell(f"{sum_up(name or label, record, row if calls is None else calls.kept)}\n")
    finally:
        if calls is not None:
            calls.close()
    return status


def _metered(
    program: str,
    command: list[str],
    name: str,
    settings: Mapping[str, object],
    environment: Mapping[str, str],
) -> tuple[int, Record | None]:
    """Run a command as one call; return how it ended, and its row."""
    with child.signals_held() as mask, Meter(**settings) as meter:  # type: ignore[arg-type]
        child.let_go_of_waiting_signals(mask)
        with meter.track(name) as call:
            try:
                status = child.run_to_end(program, command, mask, environment)
            except OSError as error:
                raise CannotRunError(command[0], error.strerror or str(error), NOT_EXECUTABLE) from error
            call.note(
                command=Path(command[0]).name, exit_status=status if status >= 0 else SIGNALLED - status
            )
            if status:
                call.finish("error", f"ExitStatus{status}" if status > 0 else _signal_name(-status))
        return status, call.record


def end_like(status: int) -> NoReturn:
    """End this process as the command ended, by the same signal if need be, so that the shell sees it."""
    if status < 0:
        child.end_by(-status)
        # Still here: the first process of a container cannot kill itself.
        status = SIGNALLED - status
    sys.exit(status)


def sum_up(name: str, record: Record | None, kept: str = "") -> str:
    """Return what the command took, in one line that ends with what is said of the log."""
    if record is None:
        return f"aimeter: {name}: not metered, because the setting `enabled` is false"
    seconds = quantity(record.duration_s, "s", largest=0)
    if record.energy_j is None:
        return f"aimeter: {name}: energy unknown, no meter works here (see `aimeter doctor`), {seconds}{kept}"
    methods = {"gpu": record.gpu_method, "cpu": record.cpu_method, "dram": record.dram_method}
    how = [f"{kind} {method}" for kind, method in methods.items() if method != "none"]
    if record.other_j is not None:
        how.append("other")  # no column says how
    parts = [f"{quantity(record.energy_j, 'J', record.error_j)} ({', '.join(how)})"]
    if record.co2e_g is not None:
        assumed = ", assumed" if "assumed" in (record.intensity_method or "") else ""
        grams = f"{quantity(record.co2e_g, 'g', largest=3)} CO2e"
        parts.append(f"{grams} ({record.zone or 'own'} {record.intensity_g_per_kwh:.3g} g/kWh{assumed})")
    parts.append(seconds)
    if record.coverage < 1:
        parts.append(f"only {record.coverage:.0%} of the time covered")
    return f"aimeter: {name}: {', '.join(parts)}{kept}"


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is not None:
        return found
    if os.path.dirname(program) and os.path.exists(program):  # noqa: PTH110, PTH120 - Path("./x") forgets the "./"
        reason = "is a directory" if Path(program).is_dir() else "permission denied"
        raise CannotRunError(program, reason, NOT_EXECUTABLE)
    raise CannotRunError(program, "command not found", NOT_FOUND)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # most real-time signals have no name
