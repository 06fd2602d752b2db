"""Asking a provider over HTTP: a small answer, soon, or a fault that gives no secret away.

Whatever the other side does (refuse, hang, drip, send 50 MB or a log-in page), the outcome is bytes within the
limits or one `ProviderFault` whose text is made here. `requests` names the whole address in its exceptions, keys
included, so those are never passed on, not even as the cause.

This module is loaded when a provider that needs it is chosen, and not in the thread that asks: a fork in the middle of an
import would leave the child with half a module.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, quote_plus, urljoin, urlsplit

import requests

from aimeter._support.clocks import time
from aimeter._version import __version__
from aimeter.carbon.providers.base import ProviderFault

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

CONNECT_S = 2.0
READ_S = 2.0
"""The longest silence, as advised for data that nobody should wait for."""
TOTAL_S = 15.0
"""The longest answer in time: a server that drips a byte a second never falls silent."""
MAX_BYTES = 4 * 1024 * 1024
"""The longest answer in size. Ten days of five-minute values are some 300 kB."""

_MOST_REDIRECTS = 5
_BLOCK = 65536
_EXCERPT = 120
_SHORT_SECRET = 4
"""A key with fewer characters is masked where a value stands: elsewhere it would spoil the host program's log."""
_TOO_MANY = 429
_OK, _ERRORS, _SERVER = 200, 400, 500


class Request(NamedTuple):
    """One request.

    Attributes:
        url: Address.
        params: The query, if it is not in the address.
        headers: Besides our own.
        login: User and password for HTTP Basic.
        secrets: Texts that must not appear anywhere.
    """

    url: str
    params: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    headers: Mapping[str, str] = {}
    login: tuple[str, str] | None = None
    secrets: tuple[str, ...] = ()


def get(request: Request, *, total_s: float = TOTAL_S, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the body of a successful answer.

    Raises:
        ProviderFault: There was none within the limits.
    """
    host = urlsplit(request.url).hostname or "?"
    secrets = request.secrets if request.login is None else (*request.secrets, _basic(request.login))
    _keep_secret(secrets)
    # Raised out here, so that no exception of requests hangs on it as its context.
    status, headers, body, trouble = _exchange(request, total_s, max_bytes)
    if trouble:
        message = f"{host}: {trouble}"
        raise ProviderFault(message)
    if status != _OK:
        raise _refusal(host, status, headers, _told(body, secrets))
    return body


def get_json(request: Request, *, total_s: float = TOTAL_S) -> Any:  # noqa: ANN401 - foreign JSON
    """Return the decoded JSON of a successful answer.

    Raises:
        ProviderFault: There was none, or it is no JSON: a page of HTML, garbage, a document without end.
    """
    body = get(request, total_s=total_s)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    host = urlsplit(request.url).hostname
    what = "a page of HTML" if body.lstrip()[:1] == b"<" else "no JSON"
    message = f"{host}: the answer is {what}"
    raise ProviderFault(message)


class _Exchange(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes
    trouble: str


_left_alone: list[threading.Thread] = []
_MOST_LEFT_ALONE = 4


def _exchange(request: Request, total_s: float, max_bytes: int) -> _Exchange:
    """Return what came within `total_s` seconds, whatever the other side does: it may send a byte now and then.

    Another thread asks, and is left alone when the time is over: a socket that is being read cannot be called back. As
    long as too many of those are still being answered, nobody is asked.
    """
    if total_s <= 0:  # earlier exchanges for the same answer took it all
        return _Exchange(0, {}, b"", "the answer takes too long")
    _left_alone[:] = [thread for thread in _left_alone if thread.is_alive()]
    if len(_left_alone) >= _MOST_LEFT_ALONE:
        return _Exchange(0, {}, b"", f"{_MOST_LEFT_ALONE} earlier answers are still coming in")
    answer: SimpleQueue[_Exchange] = SimpleQueue()
    until_s = time.monotonic() + total_s
    asker = threading.Thread(
        target=lambda: answer.put(_asked(request, until_s, max_bytes)), name="aimeter-http", daemon=True
    )
    try:
        asker.start()
        return answer.get(timeout=total_s)
    except Empty:
        _left_alone.append(asker)
        return _Exchange(0, {}, b"", "the answer takes too long")
    except RuntimeError:  # no thread can be had
        return _asked(request, until_s, max_bytes)


def _asked(request: Request, until_s: float, max_bytes: int) -> _Exchange:
    url, params = request.url, request.params
    try:
        with requests.Session() as session:
            # Followed here: requests reads the bodies of redirections, however long, and unfolds them, even if it is
            # told not to follow.
            session.get_redirect_target = lambda _: None
            for _ in range(_MOST_REDIRECTS + 1):
                left_s = max(until_s - time.monotonic(), 0.001)
                with session.get(
                    url,
                    params=params,
                    # Not compressed: a few bytes may unfold to gigabytes.
                    headers={
                        "User-Agent": f"aimeter/{__version__}",
                        "Accept-Encoding": "identity",
                        **request.headers,
                    },
                    auth=request.login or _no_login,
                    timeout=(min(CONNECT_S, left_s), min(READ_S, left_s)),
                    stream=True,
                    allow_redirects=False,
                ) as response:
                    onward = response.headers.get("Location") if response.is_redirect else None
                    # A redirection would carry the keys to another host.
                    if onward is None or request.secrets:
                        body, trouble = _body(response, until_s, max_bytes)
                        return _Exchange(response.status_code, dict(response.headers), body, trouble)
                before, url, params = url, urljoin(url, onward), ()
                if urlsplit(url).scheme not in {"https", urlsplit(before).scheme}:
                    return _Exchange(0, {}, b"", "it redirects from https to something else")
            trouble = f"it redirects more than {_MOST_REDIRECTS} times"
    except requests.exceptions.Timeout:
        trouble = f"no answer within {READ_S:g} s"
    except requests.exceptions.ConnectionError:
        trouble = "it cannot be reached, or broke off"
    except (requests.exceptions.RequestException, OSError, ValueError) as error:
        trouble = f"the exchange failed ({type(error).__name__})"
    except BaseException as error:  # noqa: BLE001 - urllib3's own, such as a broken chunk, come through a stream
        trouble = f"the exchange failed ({type(error).__name__})"
    return _Exchange(0, {}, b"", trouble)


def _no_login(request: PreparedRequest) -> PreparedRequest:
    """Add nothing. Without it requests would send what the user's ~/.netrc has for the host."""
    return request


def _body(response: Response, until_s: float, max_bytes: int) -> tuple[bytes, str]:
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        return b"", f"the answer is too long ({int(declared):,} bytes)"
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return b"", "the answer is compressed, and was not asked to be"
    # One read of the socket at a time, where urllib3 (2.0 and later) has that: a full block may take for ever.
    read = getattr(response.raw, "read1", None) or response.raw.read
    blocks, size = [], 0
    while block := read(_BLOCK, decode_content=False):
        size += len(block)
        if size > max_bytes:
            return b"", f"the answer is too long (more than {max_bytes:,} bytes)"
        if time.monotonic() > until_s:
            return b"", "the answer takes too long"
        blocks.append(block)
    return b"".join(blocks), ""


def _refusal(host: str, status: int, headers: Mapping[str, str], told: str) -> ProviderFault:
    wait_s = next(
        (_retry_after_s(text) for name, text in headers.items() if name.lower() == "retry-after"), None
    )
    refused = _ERRORS <= status < _SERVER and status != _TOO_MANY
    return ProviderFault(f"{host}: HTTP {status}{told}", refused=refused, retry_after_s=wait_s, status=status)


def _retry_after_s(text: str) -> float | None:
    """Return the seconds of a Retry-After, which is a number or a date (RFC 9110, 10.2.3)."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _told(body: bytes, secrets: tuple[str, ...]) -> str:
    """Return what an error's body says about itself: 401 may mean a wrong key or a plan without the zone."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for key in ("message", "error", "detail", "error_message"):
        found = document.get(key) if isinstance(document, dict) else None
        if isinstance(found, dict):
            found = found.get("message")
        if isinstance(found, str) and found.strip():
            plain = "".join(sign for sign in " ".join(found.split()) if sign.isprintable())
            return f" ({masked(plain, secrets)[:_EXCERPT]})"
    return ""


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every secret in it, as it is or encoded for an address, as three asterisks."""
    return _without(text, _forms(secrets))


def _without(text: str, forms: Iterable[str]) -> str:
    for form in forms:
        if len(form) < _SHORT_SECRET:
            text = re.sub(rf"(?<=[=: \"']){re.escape(form)}(?!\w)", "***", text)
        else:
            text = text.replace(form, "***")
    return text


def _basic(login: tuple[str, str]) -> str:
    """Return what of a log-in HTTP Basic sends, which a server may echo."""
    return b64encode(":".join(login).encode("latin-1", "replace")).decode()


def _forms(secrets: Iterable[str]) -> list[str]:
    """Return the forms in which secrets may be echoed, the longest first."""
    found = {
        form
        for secret in secrets
        if secret
        for form in (secret, quote(secret), quote(secret, ""), quote_plus(secret))
    }
    return sorted(found, key=len, reverse=True)


class _Mask(logging.Filter):
    """Takes our keys out of what urllib3 logs: at level DEBUG it logs the query of every request."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = _without(text, sorted(self.secrets, key=len, reverse=True))
        if clean != text:
            record.msg, record.args = clean, ()
        return True


_mask = _Mask()


def _keep_secret(secrets: Iterable[str]) -> None:
    found = _forms(secrets)
    if found:
        _mask.secrets.update(found)
        logging.getLogger("urllib3.connectionpool").addFilter(_mask)  # adding it again changes nothing
