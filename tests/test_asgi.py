"""The ASGI middleware: one row a request, from its first byte to the last of its body."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import re
import types

import pytest

import aimeter
from aimeter.asgi import Middleware
from aimeter.testing import FakeSensor
from tests.fakes import WATT


def serve(app, *, path="/", kind="http", method="GET", on_send=lambda message: None):
    """Send one request, and return what was sent back."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        on_send(message)
        sent.append(message)

    scope = {"type": kind, "path": path, "method": method, "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return sent


def answering(clock, *, status=200, route=None, pieces=(b"hello",), after_s=0.0):
    """Make an application that works a second before each piece of its body."""

    async def app(scope, receive, send):
        if route is not None:
            scope["route"] = types.SimpleNamespace(path=route)
        await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
        for place, piece in enumerate(pieces, 1):
            clock.sleep(1.0)
            await send({"type": "http.response.body", "body": piece, "more_body": place < len(pieces)})
        clock.sleep(after_s)

    return app


def test_a_request_is_a_row(meter, clock):
    """One row, named by the route and never by the path, which may hold names."""
    sent = serve(Middleware(answering(clock, route="/users/{id}"), meter=meter), path="/users/ann")
    (row,) = meter.records()
    assert (row.name, row.status, row.meta["http_status"]) == ("GET /users/{id}", "ok", 200)
    assert row.energy_j == pytest.approx(WATT)
    assert "ann" not in str(row)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["headers"] == [(b"a", b"b")]


def test_a_streamed_body_is_metered_to_its_end(meter, clock):
    """The row lasts to the last piece; what the application does after it is not the request's."""
    app = Middleware(answering(clock, pieces=(b"a", b"b", b"c"), after_s=7.0), meter=meter)
    sent = serve(app, method="POST")
    (row,) = meter.records()
    assert (row.name, row.energy_j) == ("POST", pytest.approx(3 * WATT))
    assert [message.get("body") for message in sent[1:]] == [b"a", b"b", b"c"]


def test_joules_in_a_header(meter, clock):
    """On request a response in one piece tells its joules; a streamed one cannot."""
    app = Middleware(answering(clock), header="X-Energy-Joules", meter=meter)
    start, body = serve(app)
    (row,) = meter.records()
    assert start["headers"][0] == (b"a", b"b")
    name, value = start["headers"][1]
    assert name == b"x-energy-joules"
    assert float(value) == pytest.approx(row.energy_j)
    name, value = start["headers"][2]
    assert name == b"x-energy-joules-error"
    assert float(value) == pytest.approx(row.error_j)
    assert body["body"] == b"hello"
    app = Middleware(answering(clock, pieces=(b"a", b"b")), header="X-Energy-Joules", meter=meter)
    assert serve(app)[0]["headers"] == [(b"a", b"b")]


def test_streamed_pieces_leave_at_once(meter, clock):
    """With the header asked for, the start of a stream leaves before its second piece is made."""
    times = []
    app = Middleware(answering(clock, pieces=(b"a", b"b")), header="x-energy", meter=meter)
    start = clock.now_s
    serve(app, on_send=lambda message: times.append((message["type"], clock.now_s - start)))
    assert times == [("http.response.start", 1.0), ("http.response.body", 1.0), ("http.response.body", 2.0)]


def test_without_a_meter_there_is_no_header(clock):
    """Unknown joules are no header, not 0."""
    with aimeter.Meter(sensors=[], clock=clock, region="FR") as meter:
        assert serve(Middleware(answering(clock), header="x-energy", meter=meter))[0]["headers"] == [
            (b"a", b"b")
        ]


def test_joules_that_say_nothing_are_no_header(clock):
    """Where the error is as large as the joules, there is neither."""
    sensor = FakeSensor(clock, WATT, relative_error=1.2)
    with aimeter.Meter(sensors=[sensor], clock=clock, region="FR") as meter:
        start, _ = serve(Middleware(answering(clock), header="x-energy", meter=meter))
        assert meter.records()[0].error_j > meter.records()[0].energy_j
        assert start["headers"] == [(b"a", b"b")]


def test_errors(meter, clock):
    """A server error is an error; an exception is the server's to handle, and an error too."""

    async def broken(scope, receive, send):
        clock.sleep(2.0)
        raise LookupError

    serve(Middleware(answering(clock, status=503), meter=meter))
    serve(Middleware(answering(clock, status=404), meter=meter))
    with pytest.raises(LookupError):
        serve(Middleware(broken, meter=meter))
    rows = meter.records()
    assert [(row.status, row.error_type) for row in rows] == [
        ("error", "HTTP503"),
        ("ok", None),
        ("error", "LookupError"),
    ]
    assert rows[2].energy_j == pytest.approx(2 * WATT)


def test_model_calls_are_children_and_requests_share(meter, clock):
    """Calls inside a request are its children; requests that overlap divide the energy."""

    async def app(scope, receive, send):
        with meter.track("model"):
            await asyncio.sleep(0)
            clock.sleep(1.0)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    async def both():
        async def nothing(*_):
            pass

        scopes = [{"type": "http", "method": "GET", "path": "/"} for _ in range(2)]
        await asyncio.gather(*(Middleware(app, meter=meter)(scope, nothing, nothing) for scope in scopes))

    asyncio.run(both())
    rows = meter.records()
    requests = {row.call_id: row for row in rows if row.name == "GET"}
    assert {row.parent_id for row in rows if row.name == "model"} == set(requests)
    assert sum(row.energy_j for row in requests.values()) == pytest.approx(2 * WATT)


def test_other_connections_pass_through(meter):
    """Websockets and lifespan events are no requests."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        serve(Middleware(app, meter=meter), kind=kind)
    assert seen == ["lifespan", "websocket"]
    assert meter.records() == []


@pytest.mark.parametrize("header", ["", "x y", "x:y", "ä"])
def test_a_header_that_is_none_is_refused(header):
    """A slip is told when the middleware is made."""
    with pytest.raises(ValueError, match="no name of a header"):
        Middleware(None, header=header)


def test_what_fails_keeps_its_route_and_status(meter, clock):
    """A row that fails bears its route and the status that was sent; 500 if none was sent and it raised."""

    def failing(error, *messages):
        async def app(scope, receive, send):
            scope["route"] = types.SimpleNamespace(path="/boom")
            for message in messages:
                await send(message)
            raise error

        return Middleware(app, meter=meter)

    start = {"type": "http.response.start", "status": 200, "headers": []}
    piece = {"type": "http.response.body", "body": b"a", "more_body": True}
    for error, *messages in ((LookupError(),), (LookupError(), start, piece)):
        with pytest.raises(LookupError):
            serve(failing(error, *messages))
    for messages in ((), (start,)):
        with pytest.raises(asyncio.CancelledError):
            serve(failing(asyncio.CancelledError(), *messages))
    rows = meter.records()
    assert {row.name for row in rows} == {"GET /boom"}
    assert {row.status for row in rows} == {"error"}
    assert [row.meta.get("http_status") for row in rows] == [500, 200, None, 200]


class Mounted:
    """A mount as Starlette has it: with routes of its own, and an expression for the paths that it takes."""

    def __init__(self, path, expression, routes):
        self.path, self.routes = path, routes
        self.path_regex = re.compile(f"^{expression}/(?P<path>.*)$")


@pytest.mark.parametrize("template", ["/items/{id}", None])
def test_the_prefix_of_a_mount(meter, clock, template):
    """The mounts' templates come before the route's; the server's own prefix and the matched path do not."""
    route = types.SimpleNamespace(path=template)
    inner = Mounted("/{user}", "/(?P<user>[^/]+)", [route])
    outer = Mounted("/api", "/api", [inner])

    async def app(scope, receive, send):
        scope.update(app_root_path="/proxy", root_path="/proxy/api/ann", route=route if template else inner)
        scope["router"] = types.SimpleNamespace(routes=[types.SimpleNamespace(path="/"), outer])
        await answering(clock)(scope, receive, send)

    serve(Middleware(app, meter=meter))
    assert [row.name for row in meter.records()] == [f"GET /api/{{user}}{template or ''}"]


def test_a_real_router(meter):
    """Starlette's own routes: mounted ones have their prefix, and one that raises its name and status."""
    starlette = pytest.importorskip("starlette.applications", reason="Starlette is not installed")
    routing, responses = (importlib.import_module(f"starlette.{name}") for name in ("routing", "responses"))

    async def item(request):
        return responses.PlainTextResponse("hello")

    async def boom(request):
        raise LookupError

    mount = routing.Mount("/api", routes=[routing.Route("/items/{id}", item)])
    app = Middleware(starlette.Starlette(routes=[mount, routing.Route("/boom", boom)]), meter=meter)
    serve(app, path="/api/items/3")
    with pytest.raises(LookupError):
        serve(app, path="/boom")
    assert [(row.name, row.meta["http_status"]) for row in meter.records()] == [
        ("GET /api/items/{id}", 200),
        ("GET /boom", 500),
    ]


def test_a_real_included_router(meter, clock):
    """FastAPI's routers that are included have their prefix."""
    fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
    router, app = fastapi.APIRouter(), fastapi.FastAPI()
    router.get("/items/{id}")(lambda: "hello")
    app.include_router(router, prefix="/v1")
    serve(Middleware(app, meter=meter), path="/v1/items/3")
    assert [row.name for row in meter.records()] == ["GET /v1/items/{id}"]


@pytest.mark.parametrize("end", ["wait", "raise", "return"])
def test_a_start_without_a_body_leaves(meter, end):
    """With the header asked for, the start leaves soon, and also if the application raises or returns after it."""
    left = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if end == "raise":
            raise LookupError
        if end == "wait":
            await asyncio.wait_for(left.wait(), 30)
            await send({"type": "http.response.body", "body": b"late"})

    sent = []

    async def send(message):
        await asyncio.sleep(0)
        sent.append(message)
        left.set()

    async def main():
        with contextlib.suppress(LookupError):
            await Middleware(app, header="x-energy", meter=meter)({"type": "http"}, None, send)

    asyncio.run(main())
    kinds = [message["type"] for message in sent]
    assert kinds == ["http.response.start", "http.response.body"][: 2 if end == "wait" else 1]
    assert sent[0]["headers"] == []


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_files_end_a_response(meter, clock, kind):
    """A file that the server sends is the end of a response, as a body is."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        clock.sleep(1.0)
        await send({"type": f"http.response.{kind}", "path": "a", "file": None})
        clock.sleep(7.0)

    start, _ = serve(Middleware(app, header="x-energy", meter=meter))
    assert meter.records()[0].energy_j == pytest.approx(WATT)
    assert [name for name, _ in start["headers"]] == [b"x-energy", b"x-energy-error"]


def test_a_header_that_is_there_is_replaced(meter, clock):
    """There is one header of that name, with this request's joules."""
    (start, _) = serve(Middleware(answering(clock), header="A", meter=meter))
    (name, value), _ = start["headers"]
    assert (name, float(value)) == (b"a", pytest.approx(WATT))


def test_a_middleware_inside_another(meter, clock):
    """A request is one row, however many middlewares it passes."""
    serve(Middleware(Middleware(answering(clock), meter=meter), meter=meter))
    assert len(meter.records()) == 1
