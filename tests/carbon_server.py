"""A local HTTP server that plays providers of carbon intensity: their documented answers, and their faults."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from aimeter.carbon.providers import http


def at(seconds, form="%Y-%m-%dT%H:%M:%SZ"):
    """A time as text, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


class Answer:
    """What the server says: a status, headers and a body; or a way to misbehave."""

    def __init__(self, body=b"", status=200, headers=None, way="whole"):
        if not isinstance(body, bytes):
            body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.body, self.status, self.headers, self.way = body, status, headers or {}, way


class Seen:
    """A request as it came."""

    def __init__(self, handler):
        split = urlsplit(handler.path)
        self.path = split.path
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))
        self.headers = dict(handler.headers)


class CarbonServer:
    """Answers every request with what `answer` returns for it, and remembers the requests."""

    def __init__(self):
        self.seen = []
        self.hanging = 0
        self.answer = lambda seen: Answer(b"{}")
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                seen = Seen(self)
                outer.seen.append(seen)
                answer = outer.answer(seen)
                with contextlib.suppress(OSError):  # when the client has had enough
                    outer.play(self, answer)
                self.close_connection = True

            def do_PUT(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def play(self, handler, answer):
        if answer.way == "hang":
            self.hanging += 1
            self._over.wait(300)
            self.hanging -= 1
            return
        if answer.way == "reset":
            return
        handler.send_response(answer.status)
        for name, text in answer.headers.items():
            handler.send_header(name, text)
        if answer.way == "endless":
            handler.end_headers()
            block = b" " * 65536
            for _ in range(50 * 16):
                handler.wfile.write(block)
            return
        length = 50 * 1024 * 1024 if answer.way == "huge" else len(answer.body)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if answer.way == "drip":
            for one in answer.body:
                handler.wfile.write(bytes([one]))
                time.sleep(0.02)
            return
        handler.wfile.write(answer.body[: len(answer.body) // 2] if answer.way == "short" else answer.body)

    def close(self):
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def hurry(monkeypatch, fault):
    """Have the client give up soon where the fault is that it would wait; elsewhere a slow machine has its time."""
    if fault == "black hole":
        monkeypatch.setattr(http, "READ_S", 0.2)
    if fault == "drips":
        monkeypatch.setattr(http.get, "__kwdefaults__", {"total_s": 0.3, "max_bytes": http.MAX_BYTES})
        monkeypatch.setattr(http.get_json, "__kwdefaults__", {"total_s": 0.3})


FAULTS = {
    "wrong key": lambda: Answer({"message": "token SECRET-KEY is invalid"}, 401),
    "not in the plan": lambda: Answer({"error": {"code": 403, "message": "no access to this zone"}}, 403),
    "wrong zone": lambda: Answer({"message": "zone not found"}, 404),
    "too often": lambda: Answer("slow down", 429, {"Retry-After": "120"}),
    "down": lambda: Answer("oops", 503),
    "moved": lambda: Answer(b"", 302, {"Location": "http://127.0.0.1:9/elsewhere"}),
    "black hole": lambda: Answer(way="hang"),
    "broken off": lambda: Answer(way="reset"),
    "cut short": lambda: Answer('{"data": [1, 2, 3, 4, 5]}', way="short"),
    "drips": lambda: Answer(b" " * 4000, way="drip"),
    "says 50 MB": lambda: Answer(way="huge"),
    "sends 50 MB": lambda: Answer(way="endless"),
    "a compressed bomb": lambda: Answer(
        gzip.compress(b" " * 50_000_000, 1), 200, {"Content-Encoding": "gzip"}
    ),
    "html": lambda: Answer("<!doctype html><html><body>Log in</body></html>"),
    "garbage": lambda: Answer(b"\x00\xff\x13garbage"),
    "nothing": lambda: Answer(b""),
    "deep": lambda: Answer("[" * 100_000),
    "another document": lambda: Answer({"status": "ok", "data": 5}),
    "a list": lambda: Answer([1, 2, 3]),
    "nan": lambda: Answer('{"data": [{"carbonIntensity": NaN, "datetime": "2026-01-01T00:00Z"}]}'),
    "bombs": lambda: Answer('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
}
"""Every way in which a provider may fail, by name."""
