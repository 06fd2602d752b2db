"""The call in all its forms: blocks, functions, coroutines, generators, nesting, threads, tasks, exceptions."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import weakref

import pytest

import aimeter
from aimeter.testing import FakeClock, FakeSensor
from tests.programs import run

WATTS = 100.0


@pytest.fixture
def meter(clock):
    meter = aimeter.Meter(sensors=[FakeSensor(clock, WATTS)], clock=clock, region="FR")
    yield meter
    meter.close()


def joules(seconds):
    return pytest.approx(WATTS * seconds, rel=1e-3, abs=1e-3)


def only(meter):
    [row] = meter.records()
    return row


# Blocks


def test_a_block_is_metered(clock, meter):
    """A with-block's call lasts from its begin to its end and carries what was counted and noted."""
    with meter.track("image-gen", images=4, model="sd") as call:
        clock.sleep(2.0)
        call.count(steps=20)
        call.count(steps=5, tokens_in=7)
        call.note(sampler="ddim")
    row = only(meter)
    assert (row.name, row.status, row.images, row.steps, row.tokens_in, row.model) == (
        "image-gen",
        "ok",
        4,
        25,
        7,
        "sd",
    )
    assert row.meta["sampler"] == "ddim"
    assert row.energy_j == joules(2.0)
    assert row.duration_s == pytest.approx(2.0)
    assert call.per("images") == joules(0.5)
    assert call.per("items") is None
    assert call.record is row


def test_a_block_without_a_name_bears_its_place(clock, meter):
    """track() without a name names the file and the line."""
    with meter.track():
        clock.sleep(0.1)
    assert only(meter).name.startswith("block at test_calls.py:")


def test_rows_of_one_place_share_their_name(meter):
    """Which line a place is on is found out once, and kept once, however many calls are made there."""
    names = []
    for _ in range(3):
        names.append(meter.track().name)
        names.append(meter.track().name)
    assert len(set(names)) == 2
    assert len(set(map(id, names))) == 2


def test_code_that_is_made_anew_again_and_again_is_not_kept(meter):
    """A notebook's cells are new code each time they run: each call bears its own place, and old code is let go of."""
    codes = []
    for number in range(2500):
        code = compile("\n" * (number % 7) + "call = meter.track()", f"cell{number}.py", "exec")
        scope = {"meter": meter}
        exec(code, scope)
        assert scope["call"].name == f"block at cell{number}.py:{number % 7 + 1}"
        codes.append(weakref.ref(code))
    assert sum(code() is not None for code in codes) <= 1001


def test_an_async_block_is_metered(clock, meter):
    """async with does what with does."""

    async def main():
        async with meter.track("async") as call:
            clock.sleep(1.0)
        return call

    assert asyncio.run(main()).energy_j == joules(1.0)


def test_an_exception_passes_unchanged(clock, meter):
    """The caller's exception is the same object, and the row has its type and the energy until then."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, meter.track("fails"):
        clock.sleep(1.0)
        raise error
    assert caught.value is error
    row = only(meter)
    assert (row.status, row.error_type) == ("error", "ValueError")
    assert row.energy_j == joules(1.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_exceptions_outside_exception_are_recorded_too(clock, meter, error):
    """Interrupts and cancellation end a call like any error."""
    with pytest.raises(error), meter.track("stopped"):
        raise error
    assert only(meter).error_type == error.__name__


class Interrupted(FakeClock):
    """A clock that is being read when a signal handler raises, once."""

    armed = False

    def __call__(self):
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return super().__call__()


def test_a_signal_while_a_call_is_stamped_ends_the_call_there():
    """As it begins and as it ends: the exception passes, the row says so, and no call stays open."""
    clock = Interrupted()
    meter = aimeter.Meter(sensors=[FakeSensor(clock, WATTS)], clock=clock, region="FR")
    with meter.track("before"):
        clock.sleep(1.0)
    begins, ends = meter.track("begins"), meter.track("ends")
    clock.armed = True
    with pytest.raises(KeyboardInterrupt), begins:
        clock.sleep(1.0)
    assert aimeter.current_call() is None
    with pytest.raises(KeyboardInterrupt), ends:
        clock.sleep(2.0)
        clock.armed = True
    clock.sleep(5.0)
    for call, seconds in ((begins, 0.0), (ends, 2.0)):
        assert (call.status, call.record.error_type) == ("error", "KeyboardInterrupt")
        assert call.duration_s == pytest.approx(seconds)
        assert call.energy_j == pytest.approx(seconds * WATTS, abs=1e-6)
    with meter.track("after") as after:
        clock.sleep(1.0)
    assert after.parent is None
    assert [row.name for row in meter.records()].count("ends") == 1
    assert meter.sampler.open_calls() == []


def test_a_call_is_used_once(meter):
    """Entering a call twice is a slip with a remedy, not a corrupted measurement."""
    call = meter.track("once")
    with call:
        pass
    with pytest.raises(RuntimeError, match="make a new one"), call:
        pass


def test_the_handle_is_valid_at_all_times(clock, meter):
    """Before the call it knows nothing, inside it what was used so far, after it the final figures, for ever."""
    call = meter.track("handle")
    assert call.energy_j is None
    assert call.record is None
    assert call.duration_s == 0
    with call:
        clock.sleep(1.0)
        assert call.status == "open"
        assert call.energy_j == pytest.approx(100, rel=0.05)
        clock.sleep(1.0)
        assert call.energy_j == pytest.approx(200, rel=0.05)
        assert call.record.status == "open"
    assert call.energy_j == joules(2.0)
    clock.sleep(100.0)
    meter.close()
    assert call.energy_j == joules(2.0)
    assert call.co2e_g == pytest.approx(200 / 3.6e6 * call.record.intensity_g_per_kwh, rel=1e-3)


def test_a_handle_shows_what_it_knows(clock, meter):
    """Its name and how far it has come, and the row once there is one."""
    call = meter.track("shown")
    assert repr(call) == "<aimeter call 'shown', not begun>"
    with call:
        clock.sleep(1.0)
        assert repr(call) == "<aimeter call 'shown', open>"
    meter.flush()
    assert repr(call) == f"<aimeter call {call.settled!r}>"
    assert "100 J" in repr(call)


def test_every_figure_of_the_handle_is_the_rows(clock, meter):
    """The handle and the row never differ."""
    with meter.track("same") as call:
        clock.sleep(1.0)
    row = only(meter)
    names = [
        "energy_j",
        "error_j",
        "resolution_j",
        "self_j",
        "window_j",
        "idle_j",
        "gpu_j",
        "cpu_j",
        "dram_j",
        "other_j",
        "co2e_g",
    ]
    assert [getattr(call, name) for name in names] == [getattr(row, name) for name in names]


# Bad input


@pytest.mark.parametrize("name", [3, 4.5, b"bytes", ["x"]])
def test_a_name_must_be_text(meter, name):
    """A wrong name is a TypeError that shows how it is done."""
    with pytest.raises(TypeError, match="track"):
        meter.track(name)


def test_a_forked_child_has_no_figure_of_its_parents_call(tmp_path):
    """Open or just ended: it is the parent's, so that no device is asked and nobody waits for what never comes."""
    source = """
    probe = sensor()
    meter = new_meter(probe)
    with meter.track("outer") as outer:
        with meter.track("inner") as inner:
            sleep(0.05)
        child = os.fork()
        if not child:
            reads = probe.reads
            assert outer.record is None and outer.energy_j is None and outer.parent is None
            assert inner.record is inner.settled  # known if it was before the fork
            assert "outer" in repr(outer)
            assert (probe.reads, threading.active_count()) == (reads, 1)
            with meter.track("own") as own:
                assert own.parent is None and aimeter.current_call() is own
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert outer.energy_j is not None and inner.energy_j is not None and inner.parent is outer
    """
    run(source, tmp_path / "calls.csv")


def test_an_unknown_count_is_a_slip(meter):
    """A misspelt count is refused with the right spelling."""
    with pytest.raises(TypeError, match="Did you mean 'images'"):
        meter.track("x", image=1)
    with pytest.raises(ValueError, match="Did you mean 'images'"):
        meter.track("x").per("image")


@pytest.mark.parametrize(
    ("value", "error"), [("4", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
def test_a_count_is_a_number(meter, value, error):
    """Counts are numbers from 0 on, at track() and at count() alike."""
    with pytest.raises(error, match="images"):
        meter.track("x", images=value)
    with pytest.raises(error, match="images"):
        meter.track("x").count(images=value)


def test_numbers_of_numpy_are_numbers(meter):
    """What a tensor library calls a number is one."""
    import numpy as np

    with meter.track("x", images=np.int64(3)) as call:
        call.count(tokens_out=np.float32(2))
    assert (only(meter).images, only(meter).tokens_out) == (3, 2)


def test_a_class_is_not_decorated(meter):
    """Decorating a class would break it, so it is refused."""
    with pytest.raises(TypeError, match="not <class"):
        meter.track("x")(int)


def test_a_count_after_the_row_is_ignored_and_said(clock, meter, caplog):
    """What comes after the row was written cannot be in it; one log line says so."""
    with meter.track("x") as call:
        clock.sleep(0.1)
    meter.flush()
    call.count(images=1)
    call.count(images=1)
    assert only(meter).images is None
    assert [r.message for r in caplog.records if "inside the block" in r.message].__len__() == 1


# Functions


def test_bare_and_called_decorators_keep_the_function(clock, meter):
    """Name, signature, docstring, result and arguments survive; the name in the log is the function's."""

    @meter.track
    def bare(a: int, b: int = 2) -> int:
        """Add."""
        clock.sleep(0.5)
        return a + b

    @meter.track()
    def called():
        return 1

    @meter.track("named", items=3)
    def named():
        return 2

    assert (bare(1), bare(1, b=5), called(), named()) == (3, 6, 1, 2)
    assert bare.__doc__ == "Add."
    assert list(inspect.signature(bare).parameters) == ["a", "b"]
    names = [row.name for row in meter.records()]
    assert names[0].endswith("bare")
    assert "<locals>" not in names[0]
    assert names[2].endswith("called")
    assert names[3] == "named"
    assert [row.items for row in meter.records()] == [None, None, None, 3]


def test_methods_of_every_kind(meter):
    """Methods, class methods and static methods, below or above the decorator."""

    class Model:
        @meter.track
        def method(self):
            return self

        @classmethod
        @meter.track("class")
        def of_class(cls):
            return cls

        @meter.track("class, outside")
        @classmethod
        def of_class_too(cls):
            return cls

        @meter.track("static")
        @staticmethod
        def static(a):
            return a

    model = Model()
    assert model.method() is model
    assert Model.of_class() is Model
    assert Model.of_class_too() is Model
    assert model.static(4) == 4
    assert len(meter.records()) == 4


def test_callables_that_are_no_functions(clock, meter):
    """partial objects and instances with __call__, plain and async."""

    class Model:
        async def __call__(self):
            clock.sleep(0.5)
            return "async"

    assert meter.track("partial")(functools.partial(int, "7"))() == 7
    assert asyncio.run(meter.track("instance")(Model())()) == "async"
    assert meter.records()[1].energy_j == joules(0.5)


def test_recursion_and_exceptions_do_not_corrupt(clock, meter):
    """Each invocation has a fresh state; a recursion nests, an exception closes."""

    @meter.track("fib")
    def down(n):
        clock.sleep(0.1)
        if n == 0:
            raise ZeroDivisionError
        down(n - 1)

    with pytest.raises(ZeroDivisionError):
        down(3)
    rows = meter.records()
    assert [row.error_type for row in rows] == ["ZeroDivisionError"] * 4
    assert sorted(row.energy_j for row in rows) == [joules(0.1 * i) for i in (1, 2, 3, 4)]
    assert sum(row.self_j for row in rows) == joules(0.4)


def test_a_deep_recursion_is_no_recursion_of_ours(clock, meter):
    """1,000 calls inside one another are 1,000 rows."""
    import sys

    @meter.track("deep")
    def down(n):
        if n:
            down(n - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        down(999)
        assert len(meter.records()) == 1000
    finally:
        sys.setrecursionlimit(limit)


# Coroutines and tasks


def test_a_coroutine_is_metered_while_it_runs(clock, meter):
    """The call lasts for the coroutine, not for its creation."""

    @meter.track("co")
    async def work():
        clock.sleep(0.5)
        await asyncio.sleep(0)
        return 5

    assert inspect.iscoroutinefunction(work)
    pending = work()
    clock.sleep(3.0)
    assert asyncio.run(_await(pending)) == 5
    assert only(meter).energy_j == joules(0.5)
    assert only(meter).duration_s == pytest.approx(0.5)


async def _await(awaitable):
    return await awaitable


def test_tasks_are_siblings_and_children_of_their_own_calls(clock, meter):
    """Each task has its own context: overlapping tasks share, and are children of the call that made them."""

    async def step(name):
        async with meter.track(name):
            await asyncio.sleep(0)
            clock.sleep(1.0)
            await asyncio.sleep(0)

    async def main():
        async with meter.track("outer"):
            await asyncio.gather(step("a"), step("b"))

    asyncio.run(main())
    rows = {row.name: row for row in meter.records()}
    assert rows["a"].parent_id == rows["b"].parent_id == rows["outer"].call_id
    assert rows["a"].energy_j + rows["b"].energy_j == joules(2.0)
    assert rows["outer"].energy_j == joules(2.0)
    assert rows["outer"].self_j == pytest.approx(0, abs=0.01)


def test_cancellation_ends_the_call(clock, meter):
    """A cancelled task's call ends as an error with the name CancelledError."""

    @meter.track("slow")
    async def slow():
        clock.sleep(1.0)
        await asyncio.sleep(10)

    async def main():
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (only(meter).status, only(meter).error_type) == ("error", "CancelledError")
    assert only(meter).energy_j == joules(1.0)


# Generators


def test_a_generator_is_metered_from_first_next_to_its_end(clock, meter):
    """The call lasts from the first next; what the consumer does meanwhile is told apart."""

    @meter.track("gen")
    def numbers(n):
        for i in range(n):
            clock.sleep(0.5)
            yield i
        return "done"

    made = numbers(3)
    clock.sleep(5.0)
    seen = []
    for i in made:
        seen.append(i)
        clock.sleep(2.0)
    row = only(meter)
    assert seen == [0, 1, 2]
    assert row.status == "ok"
    assert row.energy_j == joules(1.5)
    assert row.duration_s == pytest.approx(7.5)
    assert row.meta["aimeter"]["suspended_s"] == pytest.approx(6.0)
    assert row.window_j == joules(7.5)


def test_a_generator_that_nobody_starts_is_no_call(meter):
    """Creating a generator costs nothing and leaves no row."""

    @meter.track
    def numbers():
        yield 1

    numbers()
    assert meter.records() == []


def test_send_throw_and_return_pass_through(clock, meter):
    """The generator protocol is untouched: send, throw, return value, yield from."""

    @meter.track("echo")
    def echo():
        got = []
        while True:
            try:
                item = yield len(got)
            except KeyError:
                return got
            got.append(item)

    def around():
        return (yield from echo())

    generator = around()
    assert next(generator) == 0
    assert generator.send("a") == 1
    with pytest.raises(StopIteration) as stop:
        generator.throw(KeyError())
    assert stop.value.value == ["a"]
    assert only(meter).status == "ok"


def test_an_early_break_closes_the_call(clock, meter):
    """A consumer that stops early closes the generator: its clean-up runs and the row says closed."""
    cleaned = []

    @meter.track("gen")
    def numbers():
        try:
            while True:
                clock.sleep(0.5)
                yield 1
        finally:
            clock.sleep(0.25)
            cleaned.append(True)

    for _ in numbers():
        break
    assert cleaned == [True]
    row = only(meter)
    assert (row.status, row.error_type) == ("closed", None)
    assert row.energy_j == joules(0.75)


def test_a_generator_may_answer_to_being_closed(clock, meter):
    """GeneratorExit thrown in is the generator's to answer: by ending, by raising, or by yielding once more."""

    @meter.track("stubborn")
    def stubborn():
        try:
            yield 1
        except GeneratorExit:
            yield "not yet"

    generator = stubborn()
    next(generator)
    assert generator.throw(GeneratorExit()) == "not yet"
    generator.close()
    refusing = stubborn()
    next(refusing)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        refusing.close()
    assert meter.records()[0].status == "closed"


def test_a_generator_based_coroutine_stays_awaitable(clock, meter):
    """types.coroutine() functions are metered as the coroutines that they are."""
    import types

    @meter.track("old")
    @types.coroutine
    def old():
        clock.sleep(0.5)
        yield from asyncio.sleep(0).__await__()
        return 7

    async def main():
        return await old()

    assert asyncio.run(main()) == 7
    assert only(meter).energy_j == joules(0.5)


def test_a_generator_that_raises(clock, meter):
    """An exception of the body is the consumer's, and the row's."""

    @meter.track("gen")
    def numbers():
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        list(numbers())
    assert only(meter).error_type == "LookupError"


def test_the_consumers_work_is_not_the_generators(clock, meter):
    """Calls of the body are children of the generator; calls of the consumer are not."""

    @meter.track("gen")
    def numbers():
        for i in range(2):
            with meter.track("inside"):
                clock.sleep(0.5)
            yield i

    with meter.track("outer"):
        for _ in numbers():
            with meter.track("consumer"):
                clock.sleep(1.0)
            clock.sleep(0.25)
    rows = meter.records()
    by_name = {row.name: row for row in rows}
    gen, outer = by_name["gen"], by_name["outer"]
    assert {row.parent_id for row in rows if row.name == "inside"} == {gen.call_id}
    assert {row.parent_id for row in rows if row.name == "consumer"} == {outer.call_id}
    assert gen.energy_j == joules(1.0)
    assert outer.energy_j == joules(3.5)
    assert outer.self_j == joules(0.5)
    assert sum(row.self_j for row in rows) == joules(3.5)


def test_an_async_generator_is_metered(clock, meter):
    """Async generators: asend and athrow pass through, suspension is told apart, an early end closes."""

    @meter.track("agen")
    async def numbers():
        got = "none"
        try:
            while True:
                clock.sleep(0.5)
                got = yield got
        except KeyError:
            clock.sleep(0.25)
            yield "caught"

    async def main():
        generator = numbers()
        assert await generator.__anext__() == "none"
        clock.sleep(2.0)
        assert await generator.asend("x") == "x"
        assert await generator.athrow(KeyError()) == "caught"
        await generator.aclose()

    asyncio.run(main())
    row = only(meter)
    assert inspect.isasyncgenfunction(numbers)
    assert row.status == "closed"
    assert row.energy_j == joules(1.25)
    assert row.meta["aimeter"]["suspended_s"] == pytest.approx(2.0, abs=1e-3)


def test_an_async_generator_may_end_in_another_task(clock, meter):
    """Begun in one task and finished in another, which has another context, nothing is raised."""

    @meter.track("agen")
    async def numbers():
        with meter.track("inside"):
            yield 1
            yield 2

    async def main():
        generator = numbers()
        first = await asyncio.create_task(generator.__anext__())
        second = await asyncio.create_task(generator.__anext__())
        rest = [i async for i in generator]
        return first, second, rest

    assert asyncio.run(main()) == (1, 2, [])
    assert {row.name for row in meter.records()} == {"agen", "inside"}


def test_a_function_can_count_in_its_own_call(clock, meter):
    """current_call() is the innermost open call: a decorated function counts and notes in its own row."""

    @meter.track("chat")
    def chat(n):
        aimeter.current_call().count(tokens_out=n)
        aimeter.current_call().note(model="m")

    assert aimeter.current_call() is None
    chat(7)
    assert (only(meter).tokens_out, only(meter).model) == (7, "m")


# Threads


def test_threads_have_calls_of_their_own(clock, meter):
    """Two overlapping threads are two readings, neither lost nor counted for the other."""
    entered, release = threading.Barrier(3), threading.Barrier(3)

    def work(name):
        with meter.track(name):
            entered.wait()
            release.wait()

    threads = [threading.Thread(target=work, args=(name,), name=f"thread-{name}") for name in "AB"]
    for thread in threads:
        thread.start()
    entered.wait()
    clock.sleep(2.0)
    meter.flush()
    release.wait()
    for thread in threads:
        thread.join()
    rows = {row.name: row for row in meter.records()}
    assert set(rows) == {"A", "B"}
    assert rows["A"].parent_id is rows["B"].parent_id is None
    assert sum(row.energy_j for row in rows.values()) == pytest.approx(rows["A"].window_j, rel=0.01)
    assert rows["A"].thread == "thread-A"


def test_threads_with_the_same_function_are_independent(clock, meter):
    """One decorated function in many threads at once."""

    @meter.track("same")
    def work():
        return threading.get_ident()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = meter.records()
    assert len({row.call_id for row in rows}) == 20


def test_the_context_can_be_taken_along(clock, meter):
    """A thread that runs in a copy of the context is a child of the call around its start."""
    with meter.track("outer") as outer:
        context = contextvars.copy_context()

        def work():
            with meter.track("inner"):
                pass

        thread = threading.Thread(target=context.run, args=(work,))
        thread.start()
        thread.join()
    rows = {row.name: row for row in meter.records()}
    assert rows["inner"].parent_id == outer.call_id


# Switched off


def test_switched_off_nothing_is_metered(clock):
    """enabled=False: every form works, nothing is read and nothing is logged."""
    sensor = FakeSensor(clock, WATTS)
    meter = aimeter.Meter(sensors=[sensor], clock=clock, enabled=False, region="FR")

    @meter.track
    def numbers():
        yield 1

    with meter.track("x", images=1) as call:
        call.count(images=2)
        call.note(a=1)
        assert list(numbers()) == [1]
        assert meter.track("f")(lambda: 3)() == 3
    assert call.energy_j is None
    assert meter.records() == []
    assert sensor.reads == 0


def test_meters_do_not_mix(clock):
    """Two meters in one process have rows of their own."""
    first = aimeter.Meter(sensors=[FakeSensor(clock, WATTS)], clock=clock, region="FR")
    second = aimeter.Meter(sensors=[FakeSensor(clock, WATTS)], clock=clock, region="DE")
    with first.track("a"), second.track("b"):
        clock.sleep(1.0)
    assert [row.name for row in first.records()] == ["a"]
    assert [row.zone for row in second.records()] == ["DE"]


def test_a_handle_is_copied_as_itself_and_not_pickled(clock, meter):
    """A call happened once: copies are the same handle, and what can be pickled is its record."""
    import copy
    import pickle

    with meter.track("x") as call:
        clock.sleep(0.1)
    assert copy.copy(call) is call
    assert copy.deepcopy([call])[0] is call
    with pytest.raises(TypeError, match="pickle its record"):
        pickle.dumps(call)
    assert pickle.loads(pickle.dumps(call.record)) == call.record


def test_a_count_beyond_a_float_is_refused(meter):
    """A count that no column can hold is a slip at once, not the loss of a row later."""
    with pytest.raises(ValueError, match="items"):
        meter.track("x", items=10**400)


def test_two_meters_wait_for_gpus_as_each_is_told(clock):
    """sync= is a meter's own setting, whichever was made last."""
    off = aimeter.Meter(clock=clock, region="FR", sensors=[FakeSensor(clock, WATTS)], sync="off")
    on = aimeter.Meter(clock=clock, region="FR", sensors=[FakeSensor(clock, WATTS)])
    assert (off.synchronise, on.synchronise) == (False, True)


def test_decorating_makes_no_meter(monkeypatch):
    """Decorators run at import, before configure(): the meter is made when the first call begins."""
    from aimeter import _api as default

    monkeypatch.setattr(default, "_meter", None)

    @aimeter.track
    def bare():
        return 1

    @aimeter.track("named", items=2)
    def named():
        return 2

    @aimeter.track()
    def unnamed():
        return 3

    assert default._meter is None
    meter = aimeter.configure(log=None, region="FR")
    assert (bare(), named(), unnamed()) == (1, 2, 3)
    with aimeter.track("block"):
        pass
    rows = meter.records()
    assert [row.name.rpartition(".")[2] for row in rows] == ["bare", "named", "unnamed", "block"]
    assert rows[1].items == 2


def test_a_shorter_interval_takes_effect_and_ends_with_its_meter():
    """The shared sampler runs at the shortest interval that a meter in use asks for."""
    slow = aimeter.Meter(region="FR", interval_s=0.05)
    quick = aimeter.Meter(region="FR", interval_s=0.01)
    assert slow.sampler is quick.sampler
    assert {trace.readings.interval_s for trace in slow.sampler.readers.traces} == {0.01}
    quick.close()
    assert slow.sampler.pace.interval_s >= 0.05
    slow.close()
