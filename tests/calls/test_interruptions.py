"""Calls that are interrupted, interrupt others, or end elsewhere than they began: signals, tasks, recursion."""

from __future__ import annotations

import sys

import pytest

from tests.programs import names, off, rows, run


def test_signal_handlers_that_make_calls(tmp_path):
    """A handler that fires at any moment and makes calls of its own deadlocks nothing and loses no row."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    inside = 0
    def handler(*_):
        global inside
        with meter.track("signal") as call:
            inside += 1
        if inside % 5 == 0:
            call.energy_j
        if inside % 7 == 0:
            meter.flush()
        if inside % 11 == 0:
            meter.records(), meter.summary(), call.call_id
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    made = 0
    end = perf_counter() + 10
    while inside < 80 and perf_counter() < end:
        for _ in range(200):
            with meter.track("main") as call:
                made += 1
        if made % 1000 == 0:
            call.energy_j
        else:
            meter.flush()
            meter.records()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print(made, inside)
    """
    made, inside = map(int, run(source, log).split())
    found = names(log)
    assert (found.count("main"), found.count("signal")) == (made, inside)
    assert inside > 5


def test_signal_handler_in_the_first_call(tmp_path):
    """A handler that fires while the default meter is being made gets a meter, too."""
    log = tmp_path / "calls.csv"
    source = """
    made = 0
    def handler(*_):
        global made
        with aimeter.track("signal"):
            made += 1
        signal.setitimer(signal.ITIMER_REAL, 0.02)
    # Load all modules: an import that a signal interrupts is Python's own problem.
    aimeter.track, aimeter.Meter(log=None, powercap="/nowhere").close()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    with aimeter.track("main"):
        sleep(0.1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    aimeter.flush()
    print(made)
    """
    made = int(run(source, log, environ={"AIMETER_LOG": str(log)}))
    found = names(log)
    assert made > 1
    assert (found.count("main"), found.count("signal")) == (1, made)


def test_keyboard_interrupt(tmp_path):
    """An interrupt in a block ends the call with that error, and passes unchanged."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with meter.track("outer"):
            with meter.track("inner"):
                sleep(30)
    except KeyboardInterrupt:
        print("interrupted")
    with meter.track("after"):
        pass
    """
    assert run(source, log) == "interrupted\n"
    assert [(row["name"], row["error_type"], row["parent_id"] != "") for row in rows(log)] == [
        ("inner", "KeyboardInterrupt", True),
        ("outer", "KeyboardInterrupt", False),
        ("after", "", False),
    ]


def test_interrupted_at_any_instruction_of_entering_and_leaving():
    """An exception that a signal raises inside aimeter passes, and leaves no call open and no wrong parent."""
    import aimeter
    from aimeter._calls.call import Call, current
    from aimeter.testing import FakeClock, FakeSensor

    clock = FakeClock()
    meter = aimeter.Meter(sensors=[FakeSensor(clock)], clock=clock, region="FR")
    for method in (Call.__enter__, Call.__exit__):
        for instruction in _after_calls(method):
            call = meter.track("interrupted")
            with pytest.raises(KeyboardInterrupt), _Interrupting(method.__code__, instruction), call:
                clock.sleep(0.01)
            clock.sleep(0.01)
            with meter.track("after") as after:
                clock.sleep(0.01)
            assert after.energy_j == pytest.approx(1.0)
            assert after.parent is None
            assert call.ended
            assert meter.sampler.open_calls() == []
    assert current.get() is None or current.get().ended
    meter.close()


def _after_calls(method):
    """Return the offsets of the instructions that follow a call: there CPython looks for signals."""
    import dis

    instructions = list(dis.get_instructions(method))
    calls = [instruction.opname == "CALL" for instruction in instructions]
    return [
        after.offset for after, is_after_call in zip(instructions[1:], calls, strict=False) if is_after_call
    ]


class _Interrupting:
    """Raise KeyboardInterrupt once, when one instruction of a function is reached, or after the block."""

    def __init__(self, code, instruction):
        self.code, self.instruction, self.done = code, instruction, False

    def __enter__(self):
        self.before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # 3.12 asks for it when tracing begins, in whatever frame
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(self.before)
        if not self.done:
            raise KeyboardInterrupt  # not reached on this way through the method

    def trace(self, frame, event, _):
        if frame.f_code is not self.code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti == self.instruction and not self.done:
            self.done = True
            raise KeyboardInterrupt
        return self.trace


def test_asyncio(tmp_path):
    """Tasks, cancellation, a call that spans tasks, and generators that the loop closes for their consumers."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()

    @meter.track("task")
    async def task(number):
        async with meter.track("inner"):
            await asyncio.sleep(0.01)
        return number

    @meter.track("endless")
    async def endless():
        with meter.track("waiting"):
            await asyncio.sleep(1000)

    @meter.track("stream")
    async def stream():
        while True:
            with meter.track("chunk"):
                await asyncio.sleep(0)
            yield 1

    async def close(call):
        await asyncio.sleep(0.01)
        call.__exit__(None, None, None)

    abandoned = []

    async def main():
        with meter.track("main") as main:
            assert await asyncio.gather(*(task(number) for number in range(50))) == list(range(50))
            cancelled = asyncio.create_task(endless())
            await asyncio.sleep(0.05)
            cancelled.cancel()
            try:
                await cancelled
            except asyncio.CancelledError:
                pass
            timed = None
            try:
                async with asyncio.timeout(0.05):
                    await endless()
            except TimeoutError:
                timed = True
            assert timed
            spanning = meter.track("spanning")
            spanning.__enter__()
            await asyncio.create_task(close(spanning))
            with meter.track("sibling") as sibling:
                assert sibling.parent is main, sibling.parent
            async for _ in stream():
                break
            left = stream()
            await anext(left)
            abandoned.append(left)  # still suspended when the loop shuts down
    asyncio.run(main())
    meter.flush()
    assert meter.sampler.open_calls() == []
    """
    run(source, log)
    found = rows(log)
    by_id = {row["call_id"]: row for row in found}
    parents = {(row["name"], by_id[row["parent_id"]]["name"] if row["parent_id"] else "") for row in found}
    assert parents == {
        ("main", ""),
        ("task", "main"),
        ("inner", "task"),
        ("endless", "main"),
        ("waiting", "endless"),
        ("spanning", "main"),
        ("sibling", "main"),
        ("stream", "main"),
        ("chunk", "stream"),
    }
    statuses = {(row["name"], row["status"], row["error_type"]) for row in found if row["status"] != "ok"}
    assert statuses == {
        ("endless", "error", "CancelledError"),
        ("waiting", "error", "CancelledError"),
        ("stream", "closed", ""),
    }
    counts = {name: names(log).count(name) for name in ("task", "inner", "endless", "stream", "chunk")}
    assert counts == {"task": 50, "inner": 50, "endless": 2, "stream": 2, "chunk": 2}
    [main] = [row for row in found if row["name"] == "main"]
    assert off(main) <= 3


def test_recursion(tmp_path):
    """A function that calls itself has a row for each call, however deep."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    @meter.track
    def down(depth):
        return 0 if depth == 0 else 1 + down(depth - 1)
    assert down(400) == 400
    @meter.track("broken")
    def broken():
        return 1 + broken()
    try:
        broken()
    except RecursionError:
        pass
    meter.flush()
    assert meter.sampler.open_calls() == []
    """
    run(source, log)
    found = rows(log)
    assert names(log).count("down") == 401
    assert sum(row["parent_id"] == "" for row in found if row["name"] == "down") == 1
    assert all(row["error_type"] == "RecursionError" for row in found if row["name"] == "broken")
