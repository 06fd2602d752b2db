"""The queue of what happens to calls while nobody settles them: it is bounded, and what it does not take is counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aimeter._calls.call import Call
from aimeter._sampling import intake as module
from aimeter._sampling.intake import Intake

MOST = 100
"""Events that may be queued, in place of half a million."""


class Gate:
    """What calls pass where the settling thread is stopped: they are told to slow down, and nobody reads the queue."""

    ready = False

    def __init__(self):
        self.now_s, self.said = 0.0, []
        self.intake = Intake(self, self.now, 0.0)

    def now(self):
        return self.now_s

    def ensure_running(self):
        self.intake.slow_down()

    def warn_once(self, key, message):
        self.said.append((key, message))


@pytest.fixture
def gate(monkeypatch):
    """A gate of a process whose settling has stood still for a minute."""
    monkeypatch.setattr(module, "MOST_BACKLOG", MOST // 2)
    monkeypatch.setattr(module, "MOST_QUEUED", MOST)
    made = Gate()
    made.now_s = 60.0
    return made


def make(gate, count):
    """Make calls that a consumer suspends and resumes once."""
    host = SimpleNamespace(sampler=gate, synchronise=False)
    for _ in range(count):
        with Call(host, "x") as call:
            call.pause(suspended=True)
            call.pause(suspended=False)


@pytest.mark.parametrize("refused", [0, 1, 70])
def test_each_call_that_is_not_metered_is_counted_once(gate, refused):
    """However often it is suspended, and as it begins: memory is bounded, and the program goes on."""
    made = MOST // 4 + 1 + refused
    make(gate, made)
    assert gate.intake.lost_calls == refused
    assert len(gate.intake.queue) == 4 * (made - refused)
    assert bool(gate.said) == bool(refused)


def test_calls_are_metered_again_once_the_backlog_is_gone(gate):
    """Those that began meanwhile are lost for good, and end without a trace; later ones are whole."""
    make(gate, MOST)
    lost = gate.intake.lost_calls
    host = SimpleNamespace(sampler=gate, synchronise=False)
    with Call(host, "lost"):
        assert gate.intake.lost_calls == lost + 1
        gate.intake.queue.clear()
        gate.intake.watch()
    assert not gate.intake.queue
    make(gate, 3)
    assert (gate.intake.lost_calls, len(gate.intake.queue)) == (lost + 1, 4 * 3)
