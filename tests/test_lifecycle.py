"""The ends of a process: real ones, ended in every way there is, and the rows that they leave behind."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.programs import finish, off, rows, run, start


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise SystemExit", 0),
        ("with meter.track('leaving'): sys.exit(4)", 4),
        ("with meter.track('leaving'): raise ValueError('mine')", 1),
        # Who runs tests in the background has it ignored.
        (
            "signal.signal(signal.SIGINT, signal.default_int_handler), signal.raise_signal(signal.SIGINT)",
            -signal.SIGINT,
        ),
    ],
)
def test_finished_calls_are_on_disk_after_a_normal_exit(tmp_path, end, status):
    """Nobody saved anything, and the rows of all calls are there; the exit is the caller's own."""
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
    assert {row["coverage"] for row in found if row["name"] == "done"} == {"1.0"}
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
def test_a_killed_process_loses_at_most_its_last_second(tmp_path, end):
    """Rows of calls that ended a second before the kill are on disk, whole, under one header."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter(sensor(period_s=0.1), sensor(period_s=0.02, id="cpu:0"))
    made = 0
    while True:
        with meter.track("work") as call:
            sleep(0.002)
        os.write(1, f"{call.call_id} {call.end_s!r}\\n".encode())
        made += 1
        if END == "os._exit" and made == 1000:
            os._exit(7)
    """.replace("END", repr(str(end)))
    program = start(source, log)
    if end == "os._exit":
        out, _ = finish(program, status=7)
        killed_s = max(float(line.split()[1]) for line in out.splitlines())
    else:
        pieces = []
        while b"".join(pieces).count(b"\n") < 1000:
            pieces.append(os.read(program.stdout.fileno(), 1 << 16))
        killed_s = time.perf_counter()  # one clock for all processes
        program.send_signal(end)
        rest, _ = program.communicate()
        assert program.returncode == -end
        out = (b"".join(pieces) + rest).decode()
    said = [line.split() for line in out.splitlines()]
    written = {row["call_id"] for row in rows(log, torn=True)}
    due = {call_id for call_id, end_s in said if float(end_s) < killed_s - 1.0}
    assert len(due) > 100  # a second has no more than 500
    assert due <= written


def test_flush_with_a_call_open(tmp_path):
    """A flush writes what has finished, and only that; threads and sinks are independent."""
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
        ("work", "0.0", "t0"),
        ("work", "1.0", "t1"),
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
            assert off(call) <= 3
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
    assert max(off(row) for row in found) <= 3


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
    import aimeter._sampling.sampler
    aimeter._sampling.sampler.LINGER_S = 0.1
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
        # What is made by the very last finalisers may come too late for a row.
        assert {"early", "cycle"} <= {row["name"] for row in found} <= {"early", "cycle", "asked", "late"}
        assert {(row["status"], row["items"]) for row in found} == {("ok", "1.0")}
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
    assert max(off({**row, "energy_j": row["window_j"]}) for row in found) <= 3
    assert all(float(row["energy_j"]) <= float(row["window_j"]) for row in found)
