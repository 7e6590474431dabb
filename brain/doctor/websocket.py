"""The way to Brain as clients go it: WebSockets, event streams, and what a proxy does to them."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

import brain
from brain.auth.hosts import REFUSED as HOST_REFUSED
from brain.auth.origin import REFUSED as ORIGIN_REFUSED
from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok
from brain.errors import CursorLost
from brain.message.cursor import Cursor

OPEN_SECONDS = 4.0


UPGRADE = (
    "have the proxy pass on Upgrade and Connection over HTTP/1.1 (nginx: proxy_http_version 1.1;"
    " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"
    " deploy/ has whole files)"
)


async def hello_of(
    place: Place, token: str | None, origin: str | None = None
) -> Mapping[str, Any] | None:
    """
    Return the first frame of a WebSocket; None if the server accepts, and sends nothing.

    Raises OSError, TimeoutError, `WebSocketException`, and ValueError for a frame that is no hello.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if origin is not None:
        headers["Origin"] = origin
    context = ssl.create_default_context() if place.scheme == "https" else None
    async with connect(
        f"{place.websocket}/ws/v1",
        additional_headers=headers,
        open_timeout=OPEN_SECONDS,
        close_timeout=0.5,
        ssl=context,
    ) as connection:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return hello_in(await connection.recv())
        except TimeoutError:
            return None


def hello_in(text: str | bytes) -> Mapping[str, Any]:
    """Return the first frame of Brain. Raises ValueError."""
    frame = json.loads(text)
    if not isinstance(frame, dict) or not isinstance(frame.get("cursor"), str):
        raise ValueError("it has no cursor")
    try:
        Cursor.parse(frame["cursor"])
    except CursorLost as error:
        raise ValueError(str(error)) from None
    return frame


@check("connection.websocket", most_seconds=9)
async def websocket(examination: Examination) -> Finding:
    """A WebSocket is accepted, and carries the first frame."""
    place = Place.of(examination.url)
    started = time.monotonic()
    try:
        hello = await hello_of(place, examination.request.token)
    except InvalidStatus as refused:
        return of_status(refused.response.status_code, text_in(refused))
    except TimeoutError:
        return failure(f"a WebSocket is not accepted within {OPEN_SECONDS:g} s", UPGRADE)
    except InvalidHandshake as error:
        return failure(f"the answer to a WebSocket handshake is none: {error}", UPGRADE)
    except (WebSocketException, OSError) as error:
        return failure(
            f"a WebSocket breaks before its first frame: {error}",
            "does the proxy accept it without a Brain behind it? See its log, and that of the node",
        )
    except ValueError:
        return failure(
            "a WebSocket is accepted, and its first frame is not Brain's",
            "correct host, port and path of --url, or the route of the proxy for /ws/v1",
        )
    if hello is None:
        return failure(
            f"a WebSocket is accepted, and nothing comes within {OPEN_SECONDS:g} s",
            "the proxy holds back what it gets, or the process hangs: see nodes.alive",
        )
    examination.shared["hello"] = hello
    milliseconds = round((time.monotonic() - started) * 1000, 1)
    theirs = hello.get("version")
    details = []
    if theirs != brain.__version__:
        details.append(f"the node is Brain {theirs}, and this is {brain.__version__}")
    return ok(
        f"a WebSocket is accepted, and says hello after {milliseconds:g} ms",
        details,
        milliseconds=milliseconds,
        version=theirs,
    )


def text_in(refused: InvalidStatus) -> str:
    return (refused.response.body or b"").decode(errors="replace").strip()


def of_status(status: int, text: str) -> Finding:
    """Return what it means that a handshake is answered with an HTTP status."""
    says = f"a WebSocket is refused with {status}" + (f": {text[:200]}" if text else "")
    match status:
        case 401:
            return failure(says, "pass another token: see the token.… checks")
        case 403 if HOST_REFUSED in text:
            return failure(says, "see connection.host: BRAIN_ALLOWED_HOSTS")
        case 403:
            return failure(says, "see connection.origin; or does the proxy itself refuse it?")
        case 429:
            return failure(
                says,
                "a quota is used up: end connections, or raise BRAIN_MAX_CONNECTIONS_PER_ADDRESS or"
                " BRAIN_MAX_CONNECTIONS_PER_USER; does the proxy send X-Forwarded-For?",
            )
        case 502 | 504:
            return failure(says, "the proxy does not reach Brain for this path: see its log")
        case 503:
            return failure(
                says,
                "see connection.ready; if it is ready, BRAIN_MAX_CONNECTIONS or"
                " BRAIN_MAX_ANONYMOUS_CONNECTIONS is used up",
            )
        case _:
            return failure(says, UPGRADE)


@check("connection.origin", most_seconds=9)
async def origin(examination: Examination) -> Finding:
    """Pages of the origin may connect: those of Brain's own host, or of `--origin`."""
    place = Place.of(examination.url)
    given = examination.request.origin
    page = given or place.origin
    try:
        await hello_of(place, examination.request.token, page)
    except InvalidStatus as refused:
        if refused.response.status_code == 403 and ORIGIN_REFUSED in text_in(refused):
            return of_refused_origin(page, given is None or given == place.origin)
        raise NotChecked("no WebSocket is accepted", "see connection.websocket") from None
    except (WebSocketException, OSError, ValueError):
        raise NotChecked("no WebSocket is accepted", "see connection.websocket") from None
    if given is None:
        return ok(
            f"pages of {page} may connect",
            ["for pages of another host pass --origin, as https://app.example.org"],
        )
    return ok(f"pages of {page} may connect")


def of_refused_origin(page: str, is_own: bool) -> Finding:
    allow = (
        f"set BRAIN_ALLOWED_ORIGINS={page} (added to those that it has), and restart brain serve"
    )
    if is_own:
        allow = (
            "have the proxy pass on the Host with the port (nginx: proxy_set_header Host"
            f" $http_host); or {allow}"
        )
    return failure(f"pages of {page} may not connect: Brain refuses the origin", allow)


@check("connection.idle")
async def idle(examination: Examination) -> Finding:
    """The proxy keeps idle connections: that takes too long to try."""
    place, settings = Place.of(examination.url), examination.settings
    longest = max(settings.ping_seconds, settings.heartbeat_seconds)
    raise NotChecked(
        f"a limit of {place.authority} for idle connections cannot be tried within 30 s",
        f"it has to be longer than {longest:g} s (BRAIN_PING_SECONDS, BRAIN_HEARTBEAT_SECONDS):"
        " brain listen CHANNEL --url … shows whether a connection lasts for minutes",
    )


@check("connection.database")
async def same_database(examination: Examination) -> Finding:
    """The Brain behind the URL follows this database."""
    place = Place.of(examination.url)
    connection = await examination.migrated()
    hello = examination.shared.get("hello")
    if hello is None:
        raise NotChecked("no WebSocket is accepted", "see connection.websocket")
    cursor = Cursor.parse(hello["cursor"])
    nonce = await connection.fetchval("SELECT nonce FROM brain.ticks WHERE id = $1", cursor.tick)
    if nonce != cursor.nonce:
        return failure(
            f"the Brain at {place.http} follows another database than this one",
            "give both the same BRAIN_DATABASE_URL; or correct --url or the route of the proxy",
        )
    return ok(f"the Brain at {place.http} follows this database")
