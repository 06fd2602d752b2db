"""Never run: one line for each way of calling the API, for the type checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

import aimeter
from aimeter.sensors.base import Channel, Outcome, Reading


@aimeter.track
def plain(a: int, *, b: str = "") -> float:
    return a + len(b)


@aimeter.track("named", images=2, model="m")
async def coroutine(a: int) -> str:
    return str(a)


@aimeter.track()
def generator(a: int) -> Iterator[int]:
    yield a


@aimeter.track("stream")
async def stream(a: int) -> AsyncIterator[int]:
    yield a


class Pipeline:
    @aimeter.track
    def method(self, prompt: str) -> bytes:
        return prompt.encode()


class Board:
    """A sensor whose channels are annotated nowhere, as that of the example."""

    def __init__(self) -> None:
        self.channels = (Channel("other:0", "other", "power", "power", "board", "/board", "hwmon", 0.05),)

    def read(self) -> list[Reading]:
        return [Reading(0.0, 0.0, Outcome.OK, 60.0)]

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def use() -> None:
    assert_type(plain(1, b="x"), float)
    later: Coroutine[Any, Any, str] = coroutine(1)
    later.close()
    assert_type(generator(1), Iterator[int])
    assert_type(stream(1), AsyncIterator[int])
    assert_type(Pipeline().method("x"), bytes)
    plain("1")  # type: ignore[arg-type]
    plain(1, c=2)  # type: ignore[call-arg]
    with aimeter.track("x", items=3) as call:
        assert_type(call.energy_j, float | None)
        assert_type(call.per("items"), float | None)
        call.count(tokens_out=5)
        call.count(tokens=5)  # type: ignore[call-arg]
        call.note(anything=object())
    aimeter.track("x", image=3)  # type: ignore[call-overload]
    meter = aimeter.Meter(log="calls.csv", region="FR")
    aimeter.Meter(sensors=[Board()])
    aimeter.configure(sensors=[Board()])
    aimeter.Meter(sensors=[Pipeline()])  # type: ignore[list-item]
    assert_type(aimeter.measure(plain, 1, b="x", relative_error=0.01, meter=meter), aimeter.Measurement)
    wrapped: Callable[[int], str] = meter.track("y")(str)
    assert_type(wrapped(1), str)
    assert_type(meter.records(), list[aimeter.Record])
    assert_type(aimeter.attach(Pipeline(), "mine", steps=True), Pipeline)
    assert_type(meter.attach(Pipeline(), model="m", parts=False), Pipeline)
    assert_type(aimeter.detach(Pipeline()), Pipeline)
    aimeter.attach(Pipeline(), stepps=True)  # type: ignore[call-arg]
    aimeter.instrument(parts=False, meter=meter)
    aimeter.uninstrument()


async def use_async() -> None:
    async with aimeter.track("x") as call:
        assert_type(call, aimeter.Call)
