"""How a process that meters is forked and ends: every hook into that is set here.

In a forked child what was registered runs in that order, which is the order of imports, and so from what others stand
on upwards: the samplers and their thread (`_sampling.sampler`), the lock around shared ones (`_sampling.shared`), the
meters, whose new identifiers are by their sampler's (`_meters.registry`), and the lock around the default meter
(`_api`). Adapters have locks of their own, which none of these takes, and come wherever they are imported.

At exit what was registered runs once Python's other handlers have: this module is loaded with `aimeter` itself, and
the last handler registered is the first to run, so those of the program can still make calls.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Act = TypeVar("Act", bound=Callable[[], object])

_leaving: list[Callable[[], object]] = []


def after_fork_in_child(act: Act) -> Act:
    """Have `act` run in every forked child; a decorator."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=act)
    return act


def at_exit(act: Act) -> Act:
    """Have `act` run at a normal exit of the process; a decorator. See `reach_children`."""
    _leaving.append(act)
    return act


def reach_children() -> None:
    """Have `at_exit` hold in multiprocessing's children, too, which skip atexit.

    To be called when there is something to do at exit, and again in a forked child: multiprocessing may have been
    imported meanwhile.
    """
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return

    def finalize(_: object = None) -> None:
        util.Finalize(None, _leave, exitpriority=10)

    # A child forgets the finalizers that it was born with, and then does what is registered here.
    util.register_after_fork(_leave, finalize)
    if process.parent_process() is not None:
        finalize()


def when_dropped(owner: object, act: Callable[..., object], *arguments: object) -> weakref.finalize[Any, Any]:
    """Have `act` run once `owner` is gone, but not at exit, and return what can call that off."""
    finalizer = weakref.finalize(owner, act, *arguments)
    finalizer.atexit = False
    return finalizer


def _leave() -> None:
    for act in _leaving:
        act()


@atexit.register
def _leave_at_exit() -> None:
    with suppress(KeyboardInterrupt):  # a second Ctrl-C: whoever leaves wants neither to wait nor to read
        _leave()
