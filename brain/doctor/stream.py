"""The way to Brain for a stream of events, and what a proxy does to it."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from urllib.parse import urlencode

from httpx2 import HTTPError, ReadTimeout, Response

from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok
from brain.doctor.http import http_client
from brain.doctor.subscribing import ANY_CHANNEL

FIRST_EVENT_SECONDS = 3.0
BUFFERING = (
    "switch off buffering and compression of text/event-stream in the proxy (nginx: proxy_buffering"
    " off; gzip off)"
)


@check("connection.sse", most_seconds=9)
async def sse(examination: Examination) -> Finding:
    """A stream of events comes as it is sent: neither buffered nor compressed."""
    place = Place.of(examination.url)
    channel = (examination.request.channels or [ANY_CHANNEL])[0]
    headers = {"Accept": "text/event-stream"}
    if examination.request.token is not None:
        headers["Authorization"] = f"Bearer {examination.request.token}"
    url = f"{place.http}/sse?{urlencode({'channel': channel})}"
    started = time.monotonic()
    try:
        async with (
            http_client(place) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code in (401, 403):
                raise NotChecked(
                    f"a stream of the channel {channel} is refused with {response.status_code}",
                    "pass --channel with one that the token may read",
                )
            if (finding := of_head(response)) is not None:
                return finding
            async with (
                asyncio.timeout(FIRST_EVENT_SECONDS),
                aclosing(response.aiter_raw()) as parts,
            ):
                if await anext(parts, None) is None:
                    return failure(
                        "a stream of events ends before its first event",
                        "have the proxy pass on the body of /sse as it comes; see its log",
                    )
    except (TimeoutError, ReadTimeout):
        return buffered()
    except HTTPError as error:
        return failure(
            f"a stream of events breaks: {str(error) or type(error).__name__}",
            "see the log of the proxy",
        )
    milliseconds = round((time.monotonic() - started) * 1000, 1)
    return ok(
        f"a stream of events begins after {milliseconds:g} ms, neither buffered nor compressed",
        milliseconds=milliseconds,
    )


def of_head(response: Response) -> Finding | None:
    """Return what is wrong with the head of a stream, if anything."""
    kind = response.headers.get("content-type", "")
    if response.status_code != 200 or not kind.startswith("text/event-stream"):
        return failure(
            f"a stream of events is answered with {response.status_code} {kind}",
            "have the proxy pass on /sse; see connection.ready if it is 503",
        )
    if encoding := response.headers.get("content-encoding"):
        return failure(
            f"the proxy compresses streams of events ({encoding}): events wait until a block is"
            " full",
            BUFFERING,
        )
    return None


def buffered() -> Finding:
    return failure(
        f"nothing of a stream of events comes within {FIRST_EVENT_SECONDS:g} s: the proxy buffers",
        BUFFERING,
    )
