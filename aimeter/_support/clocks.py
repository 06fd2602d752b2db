"""The machine's own clocks, also where a program has put something else in the place of `time.sleep` or `time.time`.

Test suites do: `monkeypatch.setattr(time, "sleep", ...)`, a mock that counts calls, freezegun, which goes through the
attributes of all modules. Sampling neither spins nor stops for that, and is counted in nobody's mock.
"""

from __future__ import annotations

from importlib import util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import time
else:
    # An instance of the built-in module that nobody else has.
    _spec = util.find_spec("time")
    time = util.module_from_spec(_spec)
    _spec.loader.exec_module(time)

__all__ = ["time"]
