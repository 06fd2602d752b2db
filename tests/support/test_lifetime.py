"""Hooks into forks and exits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aimeter._support.lifetime import when_dropped


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_what_others_stand_on_begins_anew_first():
    """The order in a forked child is that of the layers, whatever of aimeter is used first."""
    program = """if True:
        import os
        order = []
        register = os.register_at_fork
        def note(**hooks):
            order.append(hooks.get("after_in_child", note).__module__)
            register(**hooks)
        os.register_at_fork = note
        import aimeter
        aimeter.{name}
        print(*(name for name in order if name.startswith("aimeter.") and ".adapters." not in name))
    """
    for name in ("track", "Meter, aimeter.track", "attach, aimeter.instrument, aimeter.flush"):
        run = subprocess.run(
            [sys.executable, "-c", program.format(name=name)], capture_output=True, text=True, check=True
        )
        assert run.stdout.split() == [
            "aimeter._sampling.sampler",
            "aimeter._sampling.shared",
            "aimeter._meters.registry",
            "aimeter._api",
        ]


def test_what_is_to_be_done_for_the_dropped_can_be_called_off():
    class Owner:
        pass

    done = []
    for one in ("dropped", "called off"):
        owner = Owner()
        finalizer = when_dropped(owner, done.append, one)
        assert not finalizer.atexit
        if one == "called off":
            finalizer.detach()
        del owner
    assert done == ["dropped"]
