"""ASGI middleware: one row a request, from its first byte to the last one of its body."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from aimeter._api import default_meter
from aimeter._support.log import warn_once

from .settings import load

if TYPE_CHECKING:
    from aimeter._calls.call import Call

    from .meter import Meter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SERVER_ERROR = 500
_HOLD_S = 0.2
_MARK = "aimeter"
"""Key in the scope of a request that is metered already."""

_BODY = frozenset(("http.response.body", "http.response.zerocopysend", "http.response.pathsend"))
"""Messages that carry a body; https://asgi.readthedocs.io/en/latest/extensions.html has the latter two."""


class Middleware:
    """Meter each HTTP request of an ASGI application (https://asgi.readthedocs.io/en/latest/specs/www.html).

    The row is named by method and route template (``GET /items/{id}``) where the framework puts its route into the
    scope, as Starlette and FastAPI do, else by the method alone: paths may hold names and identifiers. Model calls
    inside are child rows. Requests that overlap share the energy. Websockets and lifespan events pass through, and
    so do requests that a Middleware further out meters.

    Args:
        app: The application.
        header: Name of a response header for the request's joules, such as ``x-energy-joules``; a second one, whose
            name ends in ``-error``, has their 95 % half-width. Both are left out where that is as large as the joules.
            Only a response in one piece has them: the header of a streamed body leaves before the energy is spent. The
            response waits for the meters then, up to a tenth of a second or two. The start of a response whose
            body does not follow within 0.2 s leaves without it.
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
        if scope["type"] != "http" or _MARK in scope:
            await self.app(scope, receive, send)
            return
        try:
            call = self._source().call(str(scope.get("method", "HTTP")))
        except Exception as error:  # noqa: BLE001 - as at the limit of open files; the request is served
            warn_once(f"no request is metered: {error}")
            await self.app(scope, receive, send)
            return
        scope[_MARK] = True
        response = _Response(call, scope, send, self._header)
        with call:
            try:
                await self.app(scope, receive, response.send)
            except (Exception, asyncio.CancelledError) as error:
                with contextlib.suppress(Exception):  # the application's own exception matters more
                    await response.release()
                response.describe(None if isinstance(error, asyncio.CancelledError) else _SERVER_ERROR)
                raise
            await response.release()
            response.finish()


class _Response:
    """What the application sends, on its way out."""

    def __init__(self, call: Call, scope: Scope, send: Send, header: bytes | None) -> None:
        self._call, self._scope, self._send, self._header = call, scope, send, header
        self._start: Message | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._overdue = False
        self._status: int | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on; the last one of the body ends the call."""
        kind = message["type"]
        last = kind in _BODY and not message.get("more_body", False)
        if kind == "http.response.start":
            self._status = int(message["status"])
            self.describe()
            if self._header is not None:
                self._start = message  # until it is known whether the body comes in one piece
                self._releasing = asyncio.create_task(self._release_later())
                return
        elif last and self._start is not None:
            start, self._start = self._start, None
            self.finish()
            await self._send({**start, "headers": await self._with_joules(start.get("headers", ()))})
        await self.release()
        await self._send(message)
        if last:
            self.finish()

    async def release(self) -> None:
        """Send the start if it is held back, or wait for it if it is on its way."""
        releasing, self._releasing = self._releasing, None
        start, self._start = self._start, None
        if start is not None:
            await self._send(start)
        if releasing is not None:
            if start is None and self._overdue:
                await releasing
            else:
                releasing.cancel()

    async def _release_later(self) -> None:
        await asyncio.sleep(_HOLD_S)
        start, self._start = self._start, None
        if start is not None:
            self._overdue = True
            await self._send(start)

    def describe(self, otherwise: int | None = None) -> None:
        """Name the row by its route, which routing has put into the scope meanwhile, and note the status.

        Args:
            otherwise: The status if the application has sent none.
        """
        if self._call.ended:
            return
        template = _template(self._scope)
        if template is not None:
            self._call.rename(f"{self._call.name.partition(' ')[0]} {template}")
        status = otherwise if self._status is None else self._status
        if status is not None:
            self._call.note(http_status=status)

    def finish(self) -> None:
        """End the call, unless it has ended."""
        if self._call.ended:
            return
        self.describe()
        failed = self._status is not None and self._status >= _SERVER_ERROR
        self._call.finish("error" if failed else "ok", f"HTTP{self._status}" if failed else None)

    async def _with_joules(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers with the joules and their error, unless that says nothing; the event loop goes on meanwhile."""
        if self._header is None:
            return list(headers)
        record = await asyncio.to_thread(lambda: self._call.record)
        own = self._header, self._header + b"-error"
        others = [(name, value) for name, value in headers if bytes(name).lower() not in own]
        if record is None or record.energy_j is None or record.error_j is None:
            return others
        if record.error_j >= record.energy_j:
            return others
        told = zip(own, (record.energy_j, record.error_j), strict=True)
        return [*others, *((name, f"{joules:.6g}".encode("ascii")) for name, joules in told)]


def _template(scope: Scope) -> str | None:
    """Return the path of the route that was taken, with parameters by name; None if it is unknown."""
    route = scope.get("route")
    context = (scope.get("fastapi") or {}).get("effective_route_context")
    if getattr(context, "original_route", None) is route is not None:
        route = context  # of a router that FastAPI includes; the route itself lacks the prefix
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    mounts = _mounts(scope)
    return "".join(mounts) if hasattr(route, "routes") and mounts else "".join((*mounts, path))


def _mounts(scope: Scope) -> list[str]:
    """Return the paths of the mounts that led to a route, as Starlette's routers match them.

    The scope itself has the matched path only, which may hold names and identifiers: it is matched once more.
    """
    found: list[str] = []
    if "app_root_path" not in scope:
        return found
    rest = str(scope.get("root_path", "")).removeprefix(scope["app_root_path"]) + "/"
    routes = getattr(scope.get("router"), "routes", ())
    while rest != "/":
        pairs = ((mount, mount.path_regex.match(rest)) for mount in routes if hasattr(mount, "routes"))
        taken = next(((mount, match["path"]) for mount, match in pairs if match is not None), None)
        if taken is None:
            break
        found.append(taken[0].path)
        routes, rest = taken[0].routes, f"/{taken[1]}"
    return found
