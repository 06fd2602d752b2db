"""Beginning, ending and being interrupted: real processes, ended in every way there is."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from tests.programs import finish, names, rows, run, start

# The ends of a process


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise SystemExit", 0),
        ("with meter.track('leaving'): sys.exit(4)", 4),
        ("with meter.track('leaving'): raise ValueError('mine')", 1),
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT),
    ],
)
def test_f1_finished_calls_are_on_disk_after_a_normal_exit(tmp_path, end, status):
    """F1, F12: nobody saved anything, and the rows of all calls are there; the exit is the caller's own."""
    log = tmp_path / "calls.csv"
    source = f"""
    meter = new_meter(sensor(period_s=0.1))
    for _ in range(20):
        with meter.track("done"):
            pass
    {end}
    """
    _, err = finish(start(source, log), status=status)
    found = rows(log)
    assert [row["name"] for row in found if row["status"] == "ok"] == ["done"] * 20
    assert all(float(row["coverage"]) > 0 for row in found if row["name"] == "done")
    if "leaving" in end:
        [leaving] = [row for row in found if row["name"] == "leaving"]
        assert leaving["status"] == "error"
        assert leaving["error_type"] == ("ValueError" if status == 1 else "SystemExit")
    assert ("ValueError: mine" in err) == (status == 1)
    assert "aimeter" not in err


def test_open_calls_are_written_at_exit(tmp_path):
    """Calls that are open when the interpreter ends have a row that says so, in the main thread or another."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    def work():
        with meter.track("of a daemon thread"):
            with meter.track("finished"):
                pass
            begun.set()
            sleep(1000)
    begun = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    call = meter.track("never left")
    call.__enter__()
    @meter.track
    def numbers():
        yield 1
        yield 2
    generator = numbers()
    next(generator)
    sleep(0.2)
    """
    run(source, log)
    found = {row["name"]: row for row in rows(log)}
    assert {name: row["status"] for name, row in found.items()} == {
        "of a daemon thread": "open",
        "finished": "ok",
        "never left": "open",
        "numbers": "open",
    }
    assert found["finished"]["parent_id"] == found["of a daemon thread"]["call_id"]
    shares = sum(float(row["self_j"]) for row in found.values())
    longest = max(float(row["duration_s"]) for row in found.values())
    assert 5 < float(found["of a daemon thread"]["energy_j"]) <= shares
    assert shares == pytest.approx(100 * longest, abs=sum(float(row["error_j"]) for row in found.values()))


def test_one_row_for_a_call_that_outlives_its_meter(tmp_path):
    """A call that was written as open when its meter was closed is not written again when it ends."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    with meter.track("outer") as outer:
        with meter.track("done"):
            pass
        meter.close()
        assert outer.record.status == "open"
        energy = outer.energy_j
    meter.close()
    with meter.track("late") as late:
        pass
    assert late.record.status == "ok"
    assert outer.energy_j == energy
    assert of_aimeter() == [] or until(lambda: not of_aimeter()) is None
    """
    run(source, log)
    assert [(row["name"], row["status"]) for row in rows(log)] == [
        ("done", "ok"),
        ("outer", "open"),
        ("late", "ok"),
    ]


def test_configuring_anew_loses_no_call(tmp_path):
    """Calls that are open while the default meter is replaced end in the old log, later ones in the new."""
    log = tmp_path / "calls.csv"
    source = """
    aimeter.configure(log=LOG, region="FR")
    with aimeter.track("before"):
        aimeter.configure(log=LOG + ".new.csv", region="FR")
        with aimeter.track("after"):
            pass
    """
    run(source, log)
    assert [(row["name"], row["status"]) for row in rows(log)] == [("before", "ok")]
    assert [(row["name"], row["status"]) for row in rows(tmp_path / "calls.csv.new.csv")] == [("after", "ok")]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, "os._exit"], ids=str)
def test_f1_a_killed_process_loses_at_most_its_last_second(tmp_path, end):
    """F1: rows of calls that ended a second before the kill are on disk, whole, under one header."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter(sensor(period_s=0.1), sensor(period_s=0.02, id="cpu:0"))
    end = perf_counter() + 2
    while True:
        with meter.track("work") as call:
            sleep(0.002)
        os.write(1, f"{call.call_id} {call.end_s!r}\\n".encode())
        if END == "os._exit" and perf_counter() > end:
            os._exit(7)
    """.replace("END", repr(str(end)))
    program = start(source, log)
    if end == "os._exit":
        out, _ = finish(program, status=7)
        killed_s = max(float(line.split()[1]) for line in out.splitlines())
    else:
        pieces = []
        while sum(map(len, pieces)) < 40 * 500:  # about two seconds of calls
            pieces.append(os.read(program.stdout.fileno(), 1 << 16))
        killed_s = time.perf_counter()  # one clock for all processes
        program.send_signal(end)
        rest, _ = program.communicate()
        assert program.returncode == -end
        out = (b"".join(pieces) + rest).decode()
    said = [line.split() for line in out.splitlines()]
    written = {row["call_id"] for row in rows(log, torn=True)}
    due = {call_id for call_id, end_s in said if float(end_s) < killed_s - 1.0}
    assert len(due) > 100
    assert due <= written


def test_f5_flush_with_a_call_open(tmp_path):
    """F5, F7, F15: a flush writes what has finished, and only that; threads and sinks are independent."""
    log = tmp_path / "calls.csv"
    source = """
    sinks = []
    meters = [aimeter.Meter(sensors=[sensor()], sinks=sinks, log=LOG) for _ in range(3)]
    assert sinks == []
    meter = meters[0]
    def work(index):
        with meter.track("work", items=index):
            sleep(0.05)
    with meter.track("open"):
        threads = [threading.Thread(target=work, args=(index,), name=f"t{index}") for index in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        meter.flush()
        os._exit(0)
    """
    run(source, log)
    assert sorted((row["name"], row["items"], row["thread"]) for row in rows(log)) == [
        ("work", "0", "t0"),
        ("work", "1", "t1"),
    ]


@pytest.mark.parametrize("first", ["main", "handler"])
def test_calls_in_exit_handlers(tmp_path, first):
    """Calls made by exit handlers, registered before or after aimeter's first use, have rows with their energy."""
    log = tmp_path / "calls.csv"
    source = """
    def meter():
        return made[0] if made else made.append(new_meter()) or made[0]
    made = []
    def call(name):
        with meter().track(name) as call:
            sleep(0.05)
        if name == "asked":
            assert 1 < call.energy_j < 100
    atexit.register(call, "last")
    atexit.register(call, "asked")
    if FIRST == "main":
        call("main")
    atexit.register(call, "first")
    """.replace("FIRST", repr(first))
    run(source, log)
    found = rows(log)
    assert [row["name"] for row in found] == ["main"] * (first == "main") + ["first", "asked", "last"]
    assert all(row["status"] == "ok" for row in found)
    for row in found:
        assert float(row["energy_j"]) == pytest.approx(100 * float(row["duration_s"]), rel=0.7)


def test_calls_in_finalisers_at_the_very_end(tmp_path):
    """A call in a __del__ that runs while the interpreter takes itself apart neither hangs nor complains."""
    log = tmp_path / "calls.csv"
    source = """
    class Thing:
        def __init__(self, name):
            self.name = name
        def __del__(self, track=aimeter.track):
            with meter.track(self.name) as call:
                call.count(items=1)
            if self.name == "asked":
                call.energy_j
    import aimeter.sampler
    aimeter.sampler.LINGER_S = 0.1
    meter = new_meter()
    Thing("early")
    cycle = Thing("cycle")
    cycle.itself = cycle
    del cycle
    gc.collect()
    asked, late = Thing("asked"), Thing("late")
    sleep(float(os.environ["PAUSE"]))
    """
    for pause in ("0", "0.8"):  # with and without a thread at work
        run(source, log, environ={"PAUSE": pause})
        found = rows(log)
        assert {"early", "cycle"} <= {row["name"] for row in found}
        log.unlink()


def test_calls_in_threads_that_outlive_the_main_thread(tmp_path):
    """Threads that go on after the main thread has ended are metered to their end."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    def work(number):
        for _ in range(10):
            with meter.track(f"thread {number}"):
                sleep(0.02)
    for number in range(3):
        threading.Thread(target=work, args=(number,)).start()
    """
    run(source, log)
    found = rows(log)
    assert len(found) == 30
    assert all(float(row["energy_j"]) > 0 for row in found)


# Interruptions


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
    from aimeter.call import Call, current
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


# Threads, memory


def test_f6_many_short_meters_leave_nothing(tmp_path):
    """F6: after 400 meters no thread and no open file is left, and each call has its row."""
    log = tmp_path / "calls.csv"
    source = """
    files = len(os.listdir("/proc/self/fd"))
    for number in range(400):
        with new_meter(sensor(period_s=0)) as meter:
            if number % 10 == 0:
                with meter.track("short"):
                    pass
    until(lambda: not of_aimeter())
    assert threading.active_count() == 1
    for number in range(20):
        meter = new_meter(sensor(period_s=0))
        with meter.track("dropped"):
            pass
        del meter
    until(lambda: not of_aimeter())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files, os.listdir("/proc/self/fd")
    """
    run(source, log)
    assert names(log) == ["dropped"] * 20 + ["short"] * 40


def test_b13_the_sampler_ends_and_begins_again(tmp_path):
    """B13: a while after the last call no thread is left; the next call starts it, again and again."""
    log = tmp_path / "calls.csv"
    source = """
    import aimeter.sampler
    aimeter.sampler.LINGER_S = 0.2
    probe = sensor()
    meter = new_meter(probe)
    for _ in range(3):
        with meter.track("work") as call:
            sleep(0.1)
        assert abs(call.energy_j - 100 * call.duration_s) <= call.error_j
        assert call.record.coverage == 1
        assert of_aimeter()
        until(lambda: not of_aimeter())
        before = probe.reads
        sleep(0.3)
        assert probe.reads == before
    """
    run(source, log)
    assert names(log) == ["work"] * 3


def test_f8_calls_grow_neither_threads_nor_memory(tmp_path):
    """F8: over 50,000 calls, from several threads, the number of threads and the memory stay what they were."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter(log=None, memory_rows=100)
    most = 0
    def work(count):
        global most
        for number in range(count):
            with meter.track("work", items=1):
                with meter.track("inner"):
                    pass
            if number % 100 == 0:
                most = max(most, len(of_aimeter()))
    def both(count):
        threads = [threading.Thread(target=work, args=(count,)) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        meter.flush()
        assert (meter.lost_rows, len(meter.sampler.queue)) == (0, 0)
        gc.collect()
        with open("/proc/self/statm") as statm:
            return len(gc.get_objects()), int(statm.read().split()[1]) * 4096
    both(1250)
    objects, memory = both(1250)
    for _ in range(4):
        objects_now, memory_now = both(2500)
    assert objects_now - objects < 1000, (objects, objects_now)
    assert memory_now - memory < 20e6, (memory, memory_now)
    print(most, len(of_aimeter()))
    """
    most, now = map(int, run(source, log).split())
    assert now <= most <= 2


# What it leaves alone


def test_f13_import_does_nothing(tmp_path):
    """F13: importing aimeter loads the standard library, opens nothing, starts nothing, sets nothing."""
    source = """
    import subprocess
    program = '''
import logging, sys, threading, os, signal
before = set(sys.modules), os.listdir("/proc/self/fd"), list(logging.root.handlers), logging.root.level
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
events = []
sys.addaudithook(lambda event, args: events.append((event, args)))
import aimeter
assert threading.active_count() == 1
foreign = {name.split(".")[0] for name in set(sys.modules) - before[0]} - set(sys.stdlib_module_names)
assert foreign == {"aimeter"}, foreign
assert (before[1], before[2], before[3]) == (
    os.listdir("/proc/self/fd"), logging.root.handlers, logging.root.level)
assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
logger = logging.getLogger("aimeter")
assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
assert logger.propagate and logger.level == logging.NOTSET
harmless = {"import", "open", "exec", "compile", "marshal.loads", "object.__getattr__", "os.listdir", "os.scandir",
    "sys._getframe", "marshal.load", "code.__new__", "object.__setattr__", "builtins.id", "object.__delattr__"}
assert {event for event, _ in events} <= harmless, {event for event, _ in events} - harmless
opened = [args[0] for event, args in events if event == "open"]
assert all(str(path).endswith((".py", ".pyc")) for path in opened), opened
'''
    done = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
    """
    run(source, tmp_path / "calls.csv")


def test_f13_nothing_is_printed_or_taken_over(tmp_path):
    """F13: at work, and with much going wrong, aimeter prints nothing, starts no process and sets no signal."""
    log = tmp_path / "calls.csv"
    source = """
    events = []
    def watch(event, args):
        if event in {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty",
                     "signal.signal", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"}:
            events.append((event, args))
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    sys.addaudithook(watch)
    aimeter.configure(log=LOG)
    with aimeter.track("work"):
        sleep(0.1)
    aimeter.flush()
    broken = new_meter(sensor(), FakeSensor(perf_counter, lambda t: 1 / 0, id="cpu:0"))
    with broken.track("half") as call:
        sleep(0.1)
    assert call.gpu_j > 0 and call.cpu_j is None
    broken.close()
    assert events == []
    assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}
    assert not logging.root.handlers and logging.lastResort is not None
    """
    assert run(source, log) == ""
    assert names(log) == ["half", "work"]


# asyncio


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
    assert float(main["energy_j"]) == pytest.approx(100 * float(main["duration_s"]), rel=0.3)


def test_recursion(tmp_path):
    """A10, B17: a function that calls itself has a row for each call, however deep."""
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
