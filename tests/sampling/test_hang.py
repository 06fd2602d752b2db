"""Sensors that hang, raise or vanish, and disks that fail, under a running program that never notices."""

from __future__ import annotations

import json
import time

import pytest

from tests.logs.test_log_faults import small_disk
from tests.programs import finish, names, rows, run, start

HANGING = """
class Hanging(FakeSensor):
    '''Answers until it is told to hang, and then not before `released`.'''
    def __init__(self, **more):
        super().__init__(perf_counter, 100.0, **{"period_s": 0.02, "id": "gpu:0", **more})
        self.hangs, self.released = False, threading.Event()
    def read(self):
        if self.hangs:
            self.released.wait()
        return super().read()

class Handler(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
said = []
logging.getLogger("aimeter").addHandler(Handler())
"""


def missing(row):
    return json.loads(row["meta"])["aimeter"].get("missing", {})


def test_a_sensor_that_hangs_delays_no_caller(tmp_path):
    """While a sensor hangs, blocks take no longer, rows are written within seconds, and say what is missing."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
hanging = Hanging()
meter = new_meter(hanging, sensor(50.0, id="cpu:0"))
with meter.track("before") as before:
    sleep(0.1)
assert before.record.coverage == 1
with meter.track("into") as into:
    sleep(0.1)
    hanging.hangs = True
    sleep(0.2)
    begun = perf_counter()
    for _ in range(100):
        with meter.track("inner") as inner:
            pass
    # It hangs for ever, and is given up after a second: each of a hundred callers that waited would take that long.
    assert perf_counter() - begun < 50
    assert into.energy_j > 0
    sleep(0.3)
record = into.record
assert 0 < record.coverage < 0.9, record.coverage
assert "not answered" in record.meta["aimeter"]["missing"]["gpu:0"], record.meta
assert record.gpu_j < 100 * into.duration_s
assert abs(record.cpu_j - 50 * into.duration_s) <= 3 * record.error_j
assert record.error_j > 100 * (into.duration_s - 0.35) # what may have been missed widens the error
with meter.track("during") as during:
    sleep(0.2)
meter.flush()
assert during.record.gpu_j is None
assert during.record.gpu_method == "none"
assert "not answered" in during.record.meta["aimeter"]["missing"]["gpu:0"]
assert abs(during.cpu_j - 50 * during.duration_s) <= 3 * during.error_j
assert during.record.coverage == 1
hanging.hangs = False
hanging.released.set()
until(lambda: [thread.name for thread in of_aimeter()].count("aimeter") <= 1)
def revived():
    with meter.track("after") as after:
        sleep(0.2)
    return after.gpu_j is not None
until(revived)
with meter.track("after") as after:
    sleep(0.2)
assert after.record.coverage == 1
assert "missing" not in after.record.meta["aimeter"]
assert abs(after.gpu_j - 100 * after.duration_s) <= 3 * after.error_j
assert len(said) == 1, said
assert "gpu:0" in said[0] and "not answered" in said[0]
"""
    )
    run(source, log)


def test_a_sensor_that_has_never_answered_is_named_in_rows(tmp_path):
    """It hangs from the first reading on: rows say so, until it answers after all."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
hanging = Hanging()
hanging.hangs = True
meter = new_meter(hanging, sensor(50.0, id="cpu:0"))
with meter.track("during") as during:
    sleep(2.5)
assert "not answered" in during.record.meta["aimeter"]["missing"]["gpu:0"], during.record
assert abs(during.cpu_j - 50 * during.duration_s) <= 3 * during.error_j
hanging.hangs = False
hanging.released.set()
def answers():
    with meter.track("after") as after:
        sleep(0.2)
    return after.gpu_j is not None
until(answers)
with meter.track("after") as after:
    sleep(0.2)
assert "missing" not in after.record.meta["aimeter"], after.record
assert len(said) == 1, said
"""
    )
    run(source, log)


def test_rows_go_on_while_a_sensor_hangs(tmp_path):
    """Nobody flushes and a sensor hangs: the rows are on disk all the same when the process is killed."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
hanging = Hanging()
meter = new_meter(hanging, sensor(50.0, id="cpu:0"))
with meter.track("before"):
    sleep(0.05)
hanging.hangs = True
sleep(0.1)
for _ in range(10):
    with meter.track("during"):
        sleep(0.01)
os.write(1, b"now")
sleep(1000)
"""
    )
    program = start(source, log)
    assert program.stdout.read(3) == b"now"
    end = time.monotonic() + 300
    while names(log, torn=True).count("during") < 10 and time.monotonic() < end:
        time.sleep(0.05)
    program.kill()
    program.communicate()
    assert names(log) == ["before", *["during"] * 10]


@pytest.mark.parametrize("moment", ["at the first reading", "with a backlog", "in a fork"])
def test_exit_while_a_sensor_hangs(tmp_path, moment):
    """The exit waits for a sensor that hangs for two or three seconds at most, and no row is lost."""
    log = tmp_path / "calls.csv"
    body = {
        "at the first reading": """
hanging = Hanging(period_s=0.1)
hanging.hangs = True
meter = new_meter(hanging, sensor(50.0, id="cpu:0"))
assert perf_counter() - begun < 120
for _ in range(5):
    with meter.track("work") as call:
        sleep(0.02)
count = 5
""",
        "with a backlog": """
hanging = Hanging()
meters = [new_meter(hanging, sensor(50.0, id="cpu:0"))] + [new_meter(Hanging())]
for meter in meters:
    with meter.track("work"):
        pass
    meter.flush()
    for source in meter.sampler.readers.sources:
        source.sensor.hangs = True
sleep(0.1)
with meters[0].track("open"):
    for meter in meters:
        for _ in range(1500):
            with meter.track("work"):
                pass
count = 2 * 1501
""",
        "in a fork": """
hanging = Hanging()
meter = new_meter(hanging, sensor(50.0, id="cpu:0"))
hanging.hangs = True
sleep(0.1)
with meter.track("outer"):
    child = os.fork()
if not child:
    with meter.track("work"):
        pass
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
count = 1
""",
    }[moment]
    source = HANGING + "begun = perf_counter()\n" + body + "print(count, perf_counter())"
    program = start(source, log)
    out, _ = finish(program)
    ended_s = time.perf_counter()
    count, left_s = out.split()
    assert ended_s - float(left_s) < 120  # it hangs for ever; two or three seconds on an idle machine
    assert names(log).count("work") == int(count)


def test_a_driver_that_hangs(tmp_path):
    """NVML that does not return for minutes, deep in its C code, delays neither calls nor the exit."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
from tests.emulator.nvml import FakeNvml
fake = FakeNvml()
gpu = fake.add("a100")
gpu.set_power(300.0)
aimeter.configure(log=LOG, region="FR")
with aimeter.track("before") as before:
    sleep(0.3)
assert abs(before.gpu_j - 300 * before.duration_s) <= 3 * before.error_j
with aimeter.track("work") as call:
    sleep(0.3)
    gpu.set(latency_s=300.0)
    until(lambda: any("not answered" in one for one in said))
    for _ in range(100):
        with aimeter.track("inner"):
            pass
print(perf_counter())
"""
    )
    out, _ = finish(start(source, log))
    assert time.perf_counter() - float(out) < 120
    found = {row["name"]: row for row in rows(log)}
    assert names(log) == ["before", *["inner"] * 100, "work"]
    assert float(found["work"]["coverage"]) < 0.8
    assert "not answered" in missing(found["work"])["gpu:0"]


def test_search_that_hangs_or_fails(tmp_path):
    """A driver that hangs while sensors are looked for, or fails in some new way, costs the figures only."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
import aimeter._sampling.search, aimeter.sensors.discover as discover
aimeter._sampling.search.OPEN_TIMEOUT_S = 0.5
answered = threading.Event()
found = discover.discover_cpu
def discover_later(*found_so_far, **options):
    answered.wait()
    return found(*found_so_far, **options)
discover.discover_cpu = discover_later
meter = aimeter.Meter(log=LOG, region="FR")
for _ in range(3):
    with meter.track("blind") as call:
        sleep(0.01)
meter.flush()
assert call.record.energy_j is None and call.record.coverage == 0
answered.set()
def sees():
    with meter.track("seeing") as call:
        sleep(0.3)
    return call.energy_j is not None
until(sees)
assert said == [], said

def fail(*found_so_far, **options):
    raise ZeroDivisionError("in the driver")
discover.discover_cpu = fail
meter = aimeter.Meter(log=LOG, region="FR", powercap="/nowhere")
with meter.track("failed") as call:
    sleep(0.01)
assert call.record.status == "ok" and call.energy_j is None
[line] = said
assert "ZeroDivisionError" in line
"""
    )
    run(source, log)
    assert set(names(log)) == {"blind", "seeing", "failed"}


def test_a_sensor_that_raises(tmp_path):
    """A sensor that breaks its promise not to raise is left out, once; the others go on."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
class Raising(Hanging):
    def read(self):
        if self.hangs:
            raise RuntimeError("a bug")
        return super().read()
    def close(self):
        raise RuntimeError("another")
raising = Raising()
meter = new_meter(raising, sensor(50.0, id="cpu:0"))
with meter.track("into") as into:
    sleep(0.3)
    raising.hangs = True
    sleep(0.3)
with meter.track("after") as after:
    sleep(0.1)
assert 0.2 < into.record.coverage < 0.8
assert "a bug" in into.record.meta["aimeter"]["missing"]["gpu:0"]
assert "a bug" in after.record.meta["aimeter"]["missing"]["gpu:0"]
assert after.gpu_j is None and abs(after.cpu_j - 50 * after.duration_s) <= 3 * after.error_j
meter.close()
assert len(said) == 1 and "a bug" in said[0], said
"""
    )
    run(source, log)


def test_a_thread_that_is_killed(tmp_path):
    """What ends the thread that meters ends metering not; a sink that exits does not even end the thread."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
import ctypes
class Exiting:
    lost_rows, last_fault = 0, ""
    def write(self, records):
        if any(record.name == "fatal" for record in records):
            sys.exit("a slip of the program's")
    def reopen(self): pass
    def close(self): pass
meter = aimeter.Meter(sensors=[sensor()], sinks=[Exiting()], log=LOG, region="FR")
def named(name):
    return [thread for thread in of_aimeter() if thread.name == name]
def kill(thread):
    # As a debugger or a supervisor does: raised at the thread's next instruction, over and over.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    return not thread.is_alive()
for _ in range(3):
    [killed] = named("aimeter")
    with meter.track("fatal"):
        sleep(0.05)
    meter.flush()
    assert killed.is_alive()
    until(lambda: kill(killed))
    until(lambda: named("aimeter"))
    with meter.track("work") as call:
        sleep(0.05)
    assert off(call) <= 3
"""
    )
    run(source, log)
    assert names(log).count("work") == 3


def test_no_thread_can_be_had(tmp_path):
    """Where the system gives no more threads, calls read the sensors themselves; one log line says so."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
def refuse(*_, **__):
    raise RuntimeError("can't start new thread")
threading._start_new_thread = threading._start_joinable_thread = refuse  # the second from 3.13 on
meter = new_meter(sensor(period_s=0))
for _ in range(3):
    with meter.track("work") as call:
        sleep(0.1)
    assert off(call) <= 3
    assert call.record.coverage == 1
assert len(said) == 1 and "thread" in said[0], said
"""
    )
    run(source, log)
    assert names(log) == ["work"] * 3


def test_a_gpu_that_is_lost_in_mid_call(tmp_path):
    """A GPU falls off the bus in mid-call: the row is covered in part and says why, one log line tells."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
from tests.emulator.nvml import ENERGY, FIELD_AVERAGE, FIELD_INSTANT, FIELD_MODULE, GPU_IS_LOST, POWER, FakeNvml
fake = FakeNvml()
gpu, other = fake.add("a100"), fake.add("a100")
gpu.set_power(300.0), other.set_power(200.0)
aimeter.configure(log=LOG, region="FR")
with aimeter.track("into") as into:
    sleep(1)
    for function in (POWER, FIELD_INSTANT, FIELD_MODULE, FIELD_AVERAGE, ENERGY):
        gpu.fault(function, GPU_IS_LOST)
    lost_s = perf_counter()
    sleep(1)
with aimeter.track("after") as after:
    sleep(0.3)
covered = (lost_s - into.start_s) / into.duration_s
assert abs(into.record.coverage - covered) < 0.2, (into.record.coverage, covered)
truth = gpu.true_energy_j(into.start_s, lost_s) + other.true_energy_j(into.start_s, into.end_s)
assert abs(into.gpu_j - truth) <= 3 * into.error_j, (into.gpu_j, truth, into.error_j)
assert "lost" in into.record.meta["aimeter"]["missing"]["gpu:0"].lower()
assert {name[:5] for name in after.record.devices.split()} == {"cpu:0", "gpu:1"}
assert abs(after.gpu_j - other.true_energy_j(after.start_s, after.end_s)) <= 3 * after.error_j
assert "lost" in after.record.meta["aimeter"]["missing"]["gpu:0"].lower()
aimeter.flush()
assert len([line for line in said if "gpu:0" in line]) == 1, said
"""
    )
    run(source, log)
    assert set(missing(rows(log)[0])) == {"gpu:0"}


def test_calls_faster_than_they_can_be_settled(tmp_path):
    """When nothing can be settled, memory is bounded, calls go on, and the lost are counted and told once."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
import aimeter._meters.delivery, aimeter._sampling.sampler
aimeter._sampling.intake.MOST_BACKLOG, aimeter._sampling.intake.MOST_QUEUED = 2000, 10_000
from aimeter.sinks import CsvLog
write, blocked = CsvLog.write, threading.Event()
def slow(log, records):
    blocked.wait()
    write(log, records)
CsvLog.write = slow
meter = aimeter.Meter(sensors=[sensor()], log=LOG, region="FR")
with meter.track("outer") as outer:
    for _ in range(4):
        for _ in range(7500):
            with meter.track("inner") as inner:
                pass
        sleep(0.3)  # the queue is looked at four times a second
    assert len(meter.sampler.intake.queue) < 20_000, len(meter.sampler.intake.queue)
    aimeter._meters.delivery.FLUSH_TIMEOUT_S = aimeter._sampling.sampler.SETTLING_TIMEOUT_S = 0.3
    for ask in (lambda: inner.energy_j, lambda: outer.energy_j, lambda: meter.flush(0.3)):
        began = perf_counter()
        ask()
        assert perf_counter() - began < 120
blocked.set()
aimeter._sampling.sampler.SETTLING_TIMEOUT_S = 10.0
meter.flush()
print(meter.lost_rows)
assert len(said) == 1 and "not metered" in said[0], said
with meter.track("after") as after:
    sleep(0.1)
assert off(after) <= 3
meter.close()
assert off(outer) <= 3
"""
    )
    lost = int(run(source, log))
    assert lost > 5000
    assert names(log) == ["after", *["inner"] * (30_000 - lost), "outer"]


def test_a_loop_of_calls_without_a_pause_is_slowed_to_the_pace_of_settling(tmp_path):
    """Every call gets its row, and after the first moment, in which nobody looks, settling catches up while they go on."""
    log = tmp_path / "calls.csv"
    source = (
        HANGING
        + """
import aimeter._sampling.intake
aimeter._sampling.intake.MOST_BACKLOG, aimeter._sampling.intake.MOST_QUEUED = 2000, 50_000
meter = aimeter.Meter(sensors=[sensor(period_s=0.1)], log=LOG, region="FR", memory_rows=10)
calls, over = [0, 0, 0], False
def make(number):
    while not over:
        with meter.track("call"):
            calls[number] += 1
threads = [threading.Thread(target=make, args=(number,)) for number in range(3)]
for thread in threads: thread.start()
while sum(calls) < 20_000 or (backlog := meter.sampler.intake.backlog) > 2 * 2000:
    if sum(calls) > 200_000:
        print(f"never slowed: {backlog} wait", file=sys.stderr, flush=True)
        os._exit(1)
    sleep(0.05)
over = True
for thread in threads: thread.join()
meter.close()
assert not said, said
assert meter.lost_rows == 0
print(sum(calls))
"""
    )
    made = run(source, log)
    assert len(names(log)) == int(made)


# The disk


@pytest.mark.parametrize("fault", ["deleted", "rotated", "folder removed", "too large", "full", "read-only"])
def test_faults_of_the_disk_in_a_running_program(tmp_path, fault):
    """The program runs on, one log line says what happened, and the rows follow when the disk is well again."""
    log = tmp_path / "logs" / "calls.csv"
    source = (
        HANGING
        + f"""
import resource, shutil, subprocess
from pathlib import Path
fault, folder, log = {fault!r}, Path(LOG).parent, Path(LOG)
meter = new_meter(sensor(period_s=0))
calls = 0
def call(count):
    global calls
    for _ in range(count):
        with meter.track("work", items=calls):
            calls += 1
    meter.flush()
call(10)
if fault == "deleted":
    log.unlink()
elif fault == "rotated":
    log.rename(folder / "calls.old")
elif fault == "folder removed":
    shutil.rmtree(folder)
elif fault == "too large":
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 700, limits[1]))
elif fault == "full":
    (folder / "ballast").write_bytes(bytes(48 * 1024))
    call(60)
else:
    os.sync()
    meter.hand_over()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
call(10)
call(10)
if fault == "folder removed":
    folder.mkdir()
elif fault == "too large":
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
elif fault == "full":
    (folder / "ballast").unlink()
elif fault == "read-only":
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
call(1)
meter.close()
found = [int(float(line.split(",")[26])) for line in log.read_text().splitlines()[1:]]
lost = 10 if fault in ("deleted", "rotated", "folder removed") else 0
assert found == list(range(lost, calls)), (found, calls)
assert meter.lost_rows == 0
if fault == "rotated":
    assert len((folder / "calls.old").read_text().splitlines()) == 11
assert len(said) == (0 if fault in ("deleted", "rotated") else 1), said
"""
    )
    if fault in {"full", "read-only"}:
        with small_disk(log.parent):
            run(source, log, script=tmp_path / "program.py")
    else:
        log.parent.mkdir()
        run(source, log, script=tmp_path / "program.py")
