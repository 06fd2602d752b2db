"""Start a command and wait for its end as if nobody were between it and its parent.

The command inherits every stream and stays in this process's group, so a terminal treats the two as one job. On Linux,
signals are not handled while it runs but waited for (sigwaitinfo(2)), which tells where each came from: what the
terminal sends (Ctrl-C) the command has received itself, what another process sends is passed on. Elsewhere an
interrupt is left to the command, which the terminal has sent it, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

_FROM_KERNEL = 0x80
"""``SI_KERNEL`` of ``include/uapi/asm-generic/siginfo.h``: a terminal's signals have it, kill(2)'s do not."""

_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")

if sys.platform == "linux":

    def _numbers(names: Sequence[str]) -> set[signal.Signals]:
        return {getattr(signal, name) for name in names}

    def _watched() -> set[signal.Signals]:
        return _numbers((*_FORWARDED, "SIGCHLD"))

    @contextlib.contextmanager
    def signals_held() -> Iterator[set[int]]:
        """Keep the watched signals waiting, in threads begun inside too; give the mask that was there before."""
        # A parent may have had it ignored, and then there would be no status to read.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _watched())
        try:
            yield set(before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def let_go_of_waiting_signals(mask: set[int]) -> None:
        """Let those signals act that came while there was no command yet: they are meant for this process."""
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.pthread_sigmask(signal.SIG_BLOCK, _watched())

    def run_to_end(program: str, command: list[str], mask: set[int], environment: Mapping[str, str]) -> int:
        """Run the command, passing signals on; return its exit status, or minus the signal that killed it.

        Raises:
            OSError: It cannot be started.
        """
        pid = os.posix_spawn(
            program, command, environment, setsigmask=mask, setsigdef=_numbers(_IGNORED_BY_PYTHON)
        )
        while True:
            news = signal.sigwaitinfo(_watched())
            if news.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
            elif news.si_code != _FROM_KERNEL:
                os.kill(pid, news.si_signo)

else:

    @contextlib.contextmanager
    def signals_held() -> Iterator[set[int]]:
        """Give an empty mask."""
        yield set()

    def let_go_of_waiting_signals(mask: set[int]) -> None:
        """Do nothing: none wait."""

    def run_to_end(
        program: str,
        command: list[str],
        mask: set[int],  # noqa: ARG001 - as on Linux
        environment: Mapping[str, str],
    ) -> int:
        """Run the command; return its exit status, or minus the signal that killed it.

        Raises:
            OSError: It cannot be started.
        """
        process = subprocess.Popen([program, *command[1:]], env=dict(environment))  # noqa: S603 - the user's command
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the command decides what it means
                return process.wait()


def end_by(number: int) -> None:
    """End this process by a signal, so that a shell sees it; return if that is not possible."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - exists on Unix only

        # The command has left its core dump; another one, of aimeter, would overwrite it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)  # SIGKILL has no other
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
