"""ASGI middleware: one row a request, from its first byte to the last one of its body."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any

from .default import default_meter
from .errors import AimeterError
from .settings import load

if TYPE_CHECKING:
    from .call import Call
    from .meter import Meter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SERVER_ERROR = 500


class Middleware:
    """Meter each HTTP request of an ASGI application (https://asgi.readthedocs.io/en/latest/specs/www.html).

    The row is named by method and route template (``GET /items/{id}``) where the framework puts its route into the
    scope, as Starlette and FastAPI do, else by the method alone: paths may hold names and identifiers. Model calls
    inside are child rows. Requests that overlap share the energy. Websockets and lifespan events pass through.

    Args:
        app: The application.
        header: Name of a response header for the request's joules, such as ``x-energy-joules``. Only a response
            that is sent in one piece has it: the header of a streamed body leaves before the energy is spent. The
            response waits for the meters then, up to a tenth of a second or two.
        meter: Meter of the requests; by default the default meter.

    Raises:
        ValueError: The header's name is no token of RFC 9110.
        ConfigurationError: A setting in the environment or in pyproject.toml is unusable.
    """

    def __init__(self, app: App, *, header: str | None = None, meter: Meter | None = None) -> None:
        if meter is None:
            load({})  # so that a slip in the settings is told now, not by a request
        if header is not None and not (
            header.isascii() and header.replace("-", "").replace("_", "").isalnum()
        ):
            message = f"header={header!r} is no name of a header: use letters, digits and dashes"
            raise ValueError(message)
        self.app = app
        self._header = None if header is None else header.lower().encode("ascii")
        self._source = default_meter if meter is None else meter.source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            call = self._source().call(str(scope.get("method", "HTTP")))
        except AimeterError as error:
            _warn_once(f"no request is metered: {error}")
            await self.app(scope, receive, send)
            return
        with call:
            await self.app(scope, receive, _Response(call, scope, send, self._header).send)
            _name(call, scope)


class _Response:
    """What the application sends, on its way out."""

    def __init__(self, call: Call, scope: Scope, send: Send, header: bytes | None) -> None:
        self._call, self._scope, self._send, self._header = call, scope, send, header
        self._start: Message | None = None
        self._status = 0

    async def send(self, message: Message) -> None:
        """Pass a message on; the last one of the body ends the call."""
        kind = message["type"]
        if kind == "http.response.start":
            self._status = int(message["status"])
            if self._header is not None:
                self._start = message  # until it is known whether the body comes in one piece
                return
        last = kind == "http.response.body" and not message.get("more_body", False)
        start, self._start = self._start, None
        if start is not None:
            if last:
                self._finish()
                start = {**start, "headers": [*start.get("headers", ()), *await self._joules()]}
            await self._send(start)
        await self._send(message)
        if last:
            self._finish()

    def _finish(self) -> None:
        if self._call.ended:
            return
        _name(self._call, self._scope)
        self._call.note(http_status=self._status)
        failed = self._status >= _SERVER_ERROR
        self._call.finish("error" if failed else "ok", f"HTTP{self._status}" if failed else None)

    async def _joules(self) -> list[tuple[bytes, bytes]]:
        """Return the header, unless the energy is unknown; the event loop goes on while the meters are awaited."""
        joules = await asyncio.to_thread(lambda: self._call.energy_j)
        if joules is None or self._header is None:
            return []
        return [(self._header, f"{joules:.6g}".encode("ascii"))]


def _name(call: Call, scope: Scope) -> None:
    """Name the row by its route, which routing has put into the scope meanwhile."""
    if call.ended:
        return
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        call._name = f"{call.name.partition(' ')[0]} {template}"  # noqa: SLF001 - fixed for everybody else


@cache
def _warn_once(text: str) -> None:
    logging.getLogger("aimeter").warning(text)
