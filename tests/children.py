"""Real processes for tests: a function run in a forked child, what became of it, and how many files one holds."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path


def start(work: Callable[[], object]) -> int:
    """Run `work` in a forked child that ends without any clean-up, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001  a child must end here, whatever happened in it
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    """Return how the child ended: its exit status, or the negated number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(work: Callable[[], object]) -> None:
    """Run `work` in a child; what fails there fails here."""
    assert wait(start(work)) == 0


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
