"""`track` as a decorator: one wrapper for each kind of function, a fresh call for each invocation."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from aimeter._calls.context import open_call
from aimeter._support.notes import class_name

if TYPE_CHECKING:
    from aimeter._calls.protocols import Metered

P = ParamSpec("P")
R = TypeVar("R")

NewCall = Callable[[], "Metered"]


def decorate(function: Callable[P, R], new_call: NewCall) -> Callable[P, R]:
    """Return `function` metered: every invocation is a call of its own, made by `new_call`.

    A coroutine's call lasts from its first step to its end, not its creation. A generator's lasts from the
    first ``next`` to its end or close; the time in which its consumer holds it suspended is told apart. Of what
    `contextlib.contextmanager` has made, the call lasts as long as the ``with`` statement.

    Raises:
        TypeError: If it is a class, or not callable at all.
    """
    if isinstance(function, staticmethod | classmethod):
        return cast("Callable[P, R]", type(function)(decorate(function.__func__, new_call)))
    if inspect.isclass(function) or not callable(function):
        message = f"track() meters functions, methods and blocks, not {function!r}: decorate its __call__ or a method"
        raise TypeError(message)
    wrap: Callable[[Callable[..., Any], NewCall], Callable[..., Any]]
    if _makes(contextlib.contextmanager, function):
        wrap = _context_manager
    elif _makes(contextlib.asynccontextmanager, function):
        wrap = _async_context_manager
    elif _is(inspect.isasyncgenfunction, function):
        wrap = _async_generator
    elif _is(_is_generator_based_coroutine, function):
        wrap = _coroutine
    elif _is(inspect.isgeneratorfunction, function):
        wrap = _generator
    elif _is(inspect.iscoroutinefunction, function):
        wrap = _coroutine
    else:
        wrap = _function
    return cast("Callable[P, R]", functools.wraps(function)(wrap(function, new_call)))


def name_of(function: Callable[..., Any]) -> str:
    """Return the name under which a function is metered if none is given."""
    name = (
        getattr(function, "__qualname__", None)
        or getattr(function, "__name__", None)
        or type(function).__qualname__
    )
    return str(name).replace("<locals>.", "")


def _is_generator_based_coroutine(function: Any) -> bool:  # noqa: ANN401 - asked of anything
    """Return whether types.coroutine() made the generator function awaitable."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - an instance with such a method


def _makes(maker: Callable[[Any], Any], function: Any) -> bool:  # noqa: ANN401 - asked of anything
    """Return whether a decorator of contextlib has made the function: all that one makes share their code."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__code__", None) is maker(lambda: None).__code__


def _context_manager(
    function: Callable[..., Any], new_call: NewCall
) -> Callable[..., contextlib.AbstractContextManager[Any]]:
    @contextlib.contextmanager
    def metered(*args: object, **kwargs: object) -> Generator[Any, None, None]:
        with new_call(), function(*args, **kwargs) as value:
            yield value

    return metered


def _async_context_manager(
    function: Callable[..., Any], new_call: NewCall
) -> Callable[..., contextlib.AbstractAsyncContextManager[Any]]:
    @contextlib.asynccontextmanager
    async def metered(*args: object, **kwargs: object) -> AsyncGenerator[Any, None]:
        async with new_call(), function(*args, **kwargs) as value:
            yield value

    return metered


def _function(function: Callable[..., Any], new_call: NewCall) -> Callable[..., Any]:
    def metered(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the types survive in decorate()
        with new_call():
            return function(*args, **kwargs)

    return metered


def _coroutine(function: Callable[..., Any], new_call: NewCall) -> Callable[..., Any]:
    async def metered(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the types survive in decorate()
        with new_call():
            return await function(*args, **kwargs)

    return metered


class _Stretches:
    """The call of a generator: it runs between a resumption and the next yield, and is suspended otherwise.

    The context variable follows: calls made by the generator's body are its children, calls made by its
    consumer are not.
    """

    def __init__(self, call: Metered) -> None:
        self.call = call
        self._outer = open_call.get()
        call.__enter__()
        self._inner: Metered | None = call

    def suspend(self) -> None:
        self._inner = open_call.get()
        open_call.set(self._outer)
        self.call.pause(suspended=True)

    def resume(self) -> None:
        self._outer = open_call.get()
        open_call.set(self._inner)
        self.call.pause(suspended=False)

    def finish(self, status: str, error: BaseException | None = None) -> None:
        self.call.finish(status, None if error is None else class_name(type(error)))
        open_call.set(self._outer)


def _ended(thrown: object) -> str:
    """Return the status of a generator that returned, maybe in answer to being closed."""
    return "closed" if isinstance(thrown, GeneratorExit) else "ok"


def _generator(function: Callable[..., Any], new_call: NewCall) -> Callable[..., Any]:
    def metered(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401 - as above
        generator = function(*args, **kwargs)
        stretches = _Stretches(new_call())
        step, value = generator.send, None
        while True:
            try:
                item = step(value)
                stretches.suspend()  # in here, as a signal handler may raise in it
            except StopIteration as stop:
                stretches.finish(_ended(value))
                return stop.value
            except GeneratorExit:
                # The consumer closed it, and it obeyed.
                stretches.finish("closed")
                raise
            except BaseException as error:
                stretches.finish("error", error)
                raise
            try:
                value = yield item
                step = generator.send
                stretches.resume()
            except BaseException as error:  # noqa: BLE001 - the consumer threw it in: it is the generator's
                step, value = generator.throw, error
                stretches.resume()

    return metered


def _async_generator(function: Callable[..., Any], new_call: NewCall) -> Callable[..., Any]:
    async def metered(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:  # noqa: ANN401 - as above
        generator = function(*args, **kwargs)
        stretches = _Stretches(new_call())
        step, value = generator.asend, None
        while True:
            try:
                item = await step(value)
                stretches.suspend()  # in here, as a signal handler may raise in it
            except StopAsyncIteration:
                stretches.finish("ok")
                return
            except BaseException as error:
                stretches.finish("error", error)
                raise
            try:
                value = yield item
                step = generator.asend
                stretches.resume()
            except GeneratorExit:
                # Closed, not thrown in: a loop that shuts down may have closed the generator on its own, and
                # CPython's athrow() gives None then, as if it had yielded.
                stretches.resume()
                try:
                    await generator.aclose()
                except BaseException as error:
                    stretches.finish("error", error)
                    raise
                stretches.finish("closed")
                raise
            except BaseException as error:  # noqa: BLE001 - the consumer threw it in: it is the generator's
                step, value = generator.athrow, error
                stretches.resume()

    return metered
