"""Processes that divide: each call has one row, in the process that began it, and nobody waits for a ghost."""

from __future__ import annotations

import textwrap

import pytest

from tests.emulator.nvml import FakeNvml
from tests.programs import names, rows, run


@pytest.fixture
def gpu(tmp_path):
    """The environment of programs that have one emulated GPU, drawing 300 W."""
    fake = FakeNvml()
    fake.add("a100").set_power(300.0)
    yield fake.environ(tmp_path, base={})
    fake.unplug()


def test_fork_in_mid_call(tmp_path):
    """A call that is open in a fork has one row, the parent's; the child's own calls have theirs."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()

    @meter.track("stream")
    def numbers():
        yield 1
        yield 2

    with meter.track("done"):
        pass
    with meter.track("outer") as outer:
        stream = numbers()
        next(stream)
        with meter.track("inner") as inner:
            outer_id = outer.call_id
            child = os.fork()
            if not child:
                assert inner.energy_j is None and inner.record is None
                inner.count(items=1)
                inner.note(place="child")
                with meter.track("in the child"):
                    sleep(0.05)
            else:
                sleep(0.1)
        assert list(stream) == [2]
    with meter.track("in the child" if not child else "in the parent") as after:
        assert after.parent is None
        sleep(0.05)
    assert abs(after.energy_j - 100 * after.duration_s) <= after.error_j
    if not child:
        assert [row.name for row in meter.records()] == ["in the child"] * 2
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(os.getpid(), child)
    """
    parent, child = run(source, log).split()
    found = rows(log)
    assert sorted((row["name"], row["status"], row["pid"]) for row in found) == sorted(
        [
            ("done", "ok", parent),
            ("in the child", "ok", child),
            ("in the child", "ok", child),
            ("in the parent", "ok", parent),
            ("inner", "ok", parent),
            ("outer", "ok", parent),
            ("stream", "ok", parent),
        ]
    )
    assert all(row["parent_id"] == "" for row in found if row["pid"] == child)
    [inner] = [row for row in found if row["name"] == "inner"]
    assert (inner["items"], "child" in inner["meta"]) == ("", False)


def test_200_forks_while_threads_make_calls(tmp_path):
    """Forking at any moment of the sampler's work deadlocks neither process, and loses or doubles no row."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter(sensor(period_s=0), interval_s=0.005)
    over = False
    made = 0
    def work():
        global made
        while not over:
            with meter.track("thread"):
                made += 1
            sleep(0.0005)
    worker = threading.Thread(target=work)
    worker.start()
    children = []
    for number in range(200):
        with meter.track("parent"):
            pid = os.fork()
        if not pid:
            signal.alarm(300)  # ends a child that is deadlocked
            with meter.track("child" if number % 8 < 2 else "leaving") as call:
                pass
            if number % 8 == 0:
                assert call.energy_j >= 0
                sys.exit(0)
            if number % 8 == 1:
                meter.flush()
            os._exit(0)
        children.append(pid)
        while len(children) > 6:
            assert os.waitpid(children.pop(0), 0)[1] == 0
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    over = True
    worker.join()
    meter.flush()
    print(os.getpid(), made)
    """
    parent, made = run(source, log).split()
    written = rows(log)
    assert len({row["call_id"] for row in written}) == len(written)
    found = [(row["name"], row["pid"] == parent, row["status"]) for row in written]
    counts = {some: found.count(some) for some in set(found)}
    # A child that leaves by os._exit at once may or may not come to write its row.
    assert counts.pop(("leaving", False, "ok"), 0) <= 150
    assert counts == {
        ("parent", True, "ok"): 200,
        ("thread", True, "ok"): int(made),
        ("child", False, "ok"): 50,
    }


def test_a_child_without_calls_touches_no_sensor(tmp_path):
    """A forked child that makes no call starts no thread, reads nothing and writes nothing, and ends at once."""
    log = tmp_path / "calls.csv"
    source = """
    probe = sensor()
    meter = new_meter(probe)
    with meter.track("parent"):
        child = os.fork()
        if not child:
            before = probe.reads
    if not child:
        meter.flush()
        meter.close()
        assert probe.reads == before
        assert threading.active_count() == 1
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    run(source, log)
    assert names(log) == ["parent"]


def test_a_fork_that_python_warns_of_as_an_error(tmp_path):
    """Python's warning that threads run (from 3.12 on) harms neither process, not even where warnings are errors."""
    log = tmp_path / "calls.csv"
    source = """
    meter = new_meter()
    with meter.track("parent"):
        try:
            child = os.fork()
        except DeprecationWarning:
            child = -1  # there is one all the same
    with meter.track("after") as after:
        sleep(0.05)
    assert abs(after.energy_j - 100 * after.duration_s) <= after.error_j
    if child:
        assert os.waitpid(child, 0)[1] == 0
    """
    run(source, log, environ={"PYTHONWARNINGS": "error"})
    assert names(log) == ["after", "after", "parent"]


def test_identifiers_are_unique_in_every_process(tmp_path):
    """Children of children, and meters closed before the fork, give each call an identifier of its own."""
    log = tmp_path / "calls.csv"
    source = """
    closed, meter = new_meter(), new_meter()
    closed.close()
    def work(depth):
        for one in (closed, meter):
            with one.track("work"):
                pass
        for _ in range(2 if depth else 0):
            child = os.fork()
            if not child:
                work(depth - 1)
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
    work(2)
    """
    run(source, log)
    assert names(log) == ["work"] * 2 * 7


def test_a_sink_that_fails_in_a_child_stops_no_other(tmp_path):
    """Whatever a sink of the program's own does at a fork, the log goes on."""
    log = tmp_path / "calls.csv"
    source = """
    class Broken:
        lost_rows, last_fault = 0, ""
        def write(self, records): raise OSError("write")
        def reopen(self): raise OSError("reopen")
        def close(self): raise OSError("close")
    meter = aimeter.Meter(sensors=[sensor()], sinks=[Broken()], log=LOG)
    with meter.track("parent"):
        child = os.fork()
    if not child:
        with meter.track("child"):
            pass
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    """
    run(source, log)
    assert names(log) == ["child", "parent"]


def test_nvml_after_a_fork(tmp_path, gpu):
    """NVML's state does not survive a fork: the child initialises it anew, and its calls have their joules."""
    log = tmp_path / "calls.csv"
    source = """
    aimeter.configure(log=LOG, region="FR")
    def call(name):
        for first in (True, False):
            with aimeter.track(name) as call:
                sleep(0.3)
            assert abs(call.gpu_j - 300 * call.duration_s) <= 3 * call.error_j, (call.gpu_j, call.error_j)
            assert call.record.gpu_method == "counter"
            # The first one may begin before the driver is awake, which its error holds.
            assert first or call.record.coverage == 1
    call("before")
    with aimeter.track("around"):
        child = os.fork()
    call("after")
    if child:
        assert os.waitpid(child, 0)[1] == 0
    """
    run(source, log, environ=gpu)
    assert names(log) == ["after"] * 4 + ["around"] + ["before"] * 2


POOLS = {
    "Process": """
        workers = [context.Process(target=work, args=(number,)) for number in range(3)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
    """,
    "Pool": """
        with context.Pool(2) as pool:
            pool.map(work, range(3), chunksize=1)
            pool.close()
            pool.join()
    """,
    "ProcessPoolExecutor": """
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(work, range(3)))
    """,
}


METHODS = [(method, pool) for method in ("fork", "spawn", "forkserver") for pool in ("Process", "Pool")]


@pytest.mark.parametrize(("method", "pool"), [*METHODS, ("fork", "ProcessPoolExecutor")])
def test_multiprocessing(tmp_path, gpu, method, pool):
    """multiprocessing's children skip atexit; the rows of their finished calls are written all the same.

    Settings reach them through the environment, or through `configure` in the main module.
    """
    log = tmp_path / "calls.csv"
    source = f"""
    import multiprocessing
    if os.environ.get("CONFIGURED"):
        aimeter.configure(pue=1.5)

    def work(number):
        with aimeter.track("work", items=number):
            with aimeter.track("inner"):
                sleep(0.01)
        if number == 1:
            with aimeter.track("broken"):
                with aimeter.track("open").__class__(aimeter.default_meter(), "more"):
                    pass

    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        with aimeter.track("main"):
            {textwrap.indent(textwrap.dedent(POOLS[pool]), " " * 12).strip()}
    """
    environ = {**gpu, "AIMETER_LOG": str(log), "AIMETER_REGION": "SE"}
    if pool != "Pool":
        environ["CONFIGURED"] = "1"
    run(source, log, environ=environ)
    found = rows(log)
    [main] = [row for row in found if row["name"] == "main"]
    inner = [row for row in found if row["name"] != "main"]
    assert sorted(row["name"] for row in inner) == [
        "broken",
        "inner",
        "inner",
        "inner",
        "more",
        "work",
        "work",
        "work",
    ]
    assert sorted(row["items"] for row in inner if row["name"] == "work") == ["0.0", "1.0", "2.0"]
    assert main["pid"] not in {row["pid"] for row in inner}
    assert len({row["machine"] for row in found}) == 1
    # Processes, which are divided among each other, are told apart by the first part of their calls' identifiers.
    samplers = {(row["pid"], row["call_id"][:8]) for row in found}
    assert len(samplers) == len({pid for pid, _ in samplers}) == len({sampler for _, sampler in samplers})
    assert {row["zone"] for row in found} == {"SE"}
    assert {row["pue"] for row in found} == ({"1.5"} if pool != "Pool" else {"1.0"})
    # On a busy machine a call may be over before GPUs are found.
    assert {row["gpu_method"] for row in found if "gpu:0" in row["devices"]} == {"counter"}
    by_id = {row["call_id"]: row for row in found}
    assert all(by_id[row["parent_id"]]["name"] == "work" for row in inner if row["name"] == "inner")
    assert all(row["parent_id"] == "" for row in inner if row["name"] == "work")
