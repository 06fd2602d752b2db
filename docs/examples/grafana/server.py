"""A server that makes up text, metered: each request is a call, with the tokens it read and made.

    uvicorn server:app --port 8000                                   # one process
    PROMETHEUS_MULTIPROC_DIR=$(mktemp -d) uvicorn server:app --workers 2

Its metrics are at /metrics, beside the application's own.
"""

from __future__ import annotations

import hashlib
import os

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector

import aimeter
from aimeter.exporters.prometheus import PrometheusSink

aimeter.add_sink(PrometheusSink())


def metrics() -> CollectorRegistry | None:
    """Return where the counts of all workers add up; None if there is but one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return None
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry


app = FastAPI()
app.mount("/metrics", make_asgi_app(registry=metrics()))


@app.get("/answer")
def answer(question: str, tokens: int = 64) -> dict[str, str]:
    """Answer with as many words as asked for; the work of a model is hashing here."""
    words = question.split()
    with aimeter.track("answer", model="hash-1", tokens_in=len(words), tokens_out=tokens):
        state = question.encode()
        made = []
        for _ in range(tokens):
            for _ in range(2000):
                state = hashlib.sha256(state).digest()
            made.append(state.hex()[:6])
    return {"answer": " ".join(made)}
