"""The ASGI middleware: one row a request, from its first byte to the last of its body."""

from __future__ import annotations

import asyncio
import types

import pytest

import aimeter
from aimeter.asgi import Middleware
from aimeter.testing import FakeClock, FakeSensor

WATT = 100.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def meter(clock):
    with aimeter.Meter(sensors=[FakeSensor(clock, WATT)], clock=clock, region="FR") as made:
        yield made


def serve(app, *, path="/", kind="http", method="GET", on_send=lambda message: None):
    """Send one request, and return what was sent back."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        on_send(message)
        sent.append(message)

    asyncio.run(app({"type": kind, "path": path, "method": method}, receive, send))
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
