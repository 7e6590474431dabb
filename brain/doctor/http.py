"""The way to Brain over plain HTTP: does Brain answer, below this path, by this name."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from typing import Any

from httpx2 import AsyncClient, HTTPError, Response, TimeoutException

from brain.auth.hosts import REFUSED as HOST_REFUSED
from brain.doctor.address import Place, unverified_certificate_of
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, failure, ok, warning

ANSWER_SECONDS = 4.0
HANGS = (
    "the process hangs, or its open files are used up: see nodes.alive and host.open_files; restart"
    " it (its supervisor does, if it is killed)"
)
MOST_SHOWN = 5


def http_client(place: Place) -> AsyncClient:
    """Return a client that trusts what other programs of this machine trust."""
    context = ssl.create_default_context() if place.scheme == "https" else False
    return AsyncClient(timeout=ANSWER_SECONDS, verify=context)


@check("connection.http")
async def http(examination: Examination) -> Finding:
    """Brain answers below the path of the URL."""
    place = Place.of(examination.url)
    try:
        async with http_client(place) as client:
            started = time.time()
            response = await client.get(f"{place.http}/healthz")
            ended = time.time()
    except TimeoutException:
        finding = failure(
            f"{place.authority} accepts connections, and does not answer a request within"
            f" {ANSWER_SECONDS:g} s",
            HANGS,
        )
    except HTTPError as error:
        finding = await of_broken_answer(place, error)
    else:
        if is_brain(response):
            examination.shared["date"] = (response.headers.get("date"), started, ended)
            milliseconds = round((ended - started) * 1000, 1)
            return ok(f"Brain answers after {milliseconds:g} ms", milliseconds=milliseconds)
        finding = await of_other_answer(place, response)
    examination.give_up_url("connection.http")
    return finding


def is_brain(response: Response) -> bool:
    """Return True for the answer of Brain's /healthz."""
    with suppress(ValueError, AttributeError):
        return response.status_code == 200 and response.json().get("status") == "alive"
    return False


async def of_broken_answer(place: Place, error: HTTPError) -> Finding:
    """Return what it means that a connection ends without an HTTP response."""
    if place.scheme == "http":
        with suppress(OSError, TimeoutError):
            await unverified_certificate_of(place)
            return failure(
                f"{place.authority} speaks TLS, and not plain HTTP",
                f"pass --url https://{place.authority}{place.path}",
            )
    return failure(
        f"{place.authority} ends the connection without an answer"
        f" ({str(error) or type(error).__name__})",
        "is it a proxy without a Brain behind it, or another program? See its log",
    )


async def of_other_answer(place: Place, response: Response) -> Finding:
    """Return what it means that the answer is not the one of Brain's /healthz."""
    status = response.status_code
    server = response.headers.get("server", "a server without a name")
    if 300 <= status < 400:
        location = response.headers.get("location", "")
        return failure(
            f"{place.http} redirects to {location}: a WebSocket does not follow that",
            f"give clients the address that it redirects to: --url"
            f" {location.partition('?')[0].removesuffix('/healthz')}",
        )
    if status in (502, 503, 504):
        return failure(
            f"the proxy at {place.authority} ({server}) answers {status}: it does not reach Brain",
            "start brain serve, and correct its address in the proxy (proxy_pass, reverse_proxy,"
            " server)",
        )
    if "HTTPS port" in response.text:
        return failure(
            f"{place.authority} speaks TLS, and not plain HTTP",
            f"pass --url https://{place.authority}{place.path}",
        )
    if place.path and await is_brain_at_root(place):
        return failure(
            f"Brain answers at {place.origin}, and not below {place.path}",
            f"pass --url {place.origin}, or have the proxy take the path {place.path} away from"
            " requests (nginx: a slash at the end of proxy_pass)",
        )
    return failure(
        f"{place.http} is not Brain: {server} answers /healthz with {status}",
        "correct host, port and path of --url, or the route of the proxy",
    )


async def is_brain_at_root(place: Place) -> bool:
    with suppress(HTTPError):
        async with http_client(place) as client:
            return is_brain(await client.get(f"{place.origin}/healthz"))
    return False


async def answer_of(place: Place, path: str) -> Response:
    """Return what a path of Brain answers. Raises `HTTPError`."""
    async with http_client(place) as client:
        return await client.get(f"{place.http}{path}")


def of_no_answer(place: Place, path: str, error: HTTPError) -> Finding:
    """Return what it means that one path is not answered, where /healthz is."""
    return failure(
        f"{place.authority} does not answer {path} ({str(error) or type(error).__name__})",
        "the process hangs or ends, or the proxy routes this path elsewhere: see their logs",
    )


@check("connection.host")
async def host(examination: Examination) -> Finding:
    """Brain goes by the name in the URL."""
    place = Place.of(examination.url)
    try:
        response = await answer_of(place, "/api/brain/status/ws")
    except HTTPError as error:
        return of_no_answer(place, "/api/brain/status/ws", error)
    if response.status_code == 403 and HOST_REFUSED in response.text:
        return failure(
            f"Brain does not go by the name {place.host}, or the proxy passes on another Host",
            f"set BRAIN_ALLOWED_HOSTS={place.host} and restart brain serve; have the proxy pass on"
            " the Host (nginx: proxy_set_header Host $http_host)",
        )
    if response.status_code != 200:
        return failure(
            f"Brain's status is answered with {response.status_code}",
            "does the proxy refuse or route this path elsewhere? See its log",
        )
    return ok(f"Brain goes by the name {place.host}")


@check("connection.ready")
async def ready(examination: Examination) -> Finding:
    """The node that answers follows the database, and has no problems."""
    place = Place.of(examination.url)
    try:
        response = await answer_of(place, "/readyz")
    except HTTPError as error:
        return of_no_answer(place, "/readyz", error)
    try:
        found = response.json()
        status = str(found["status"])
    except (ValueError, KeyError, TypeError):
        return failure(
            f"/readyz is answered with {response.status_code}, and not by Brain",
            "correct the route of the proxy: /readyz is Brain's own",
        )
    problems = [problem_line(each) for each in found.get("problems", [])]
    if status == "draining":
        return failure(
            "the node that answers is stopping, and takes no new clients",
            "have the load balancer ask /readyz, and send clients to another node",
            problems[:MOST_SHOWN],
        )
    if response.status_code != 200:
        return failure(
            f"the node that answers is {status}",
            "see the database.… checks; if all are well, its own BRAIN_DATABASE_URL and its log",
            problems[:MOST_SHOWN],
        )
    if problems:
        return warning(
            f"the node that answers has had problems in the last ten minutes: {problems[0]}",
            "see its log, which has a line for each; docs/operating.md, What happens when",
            problems[1:MOST_SHOWN],
        )
    return ok("the node that answers follows the database, and has no problems")


def problem_line(problem: dict[str, Any]) -> str:
    """Return a problem of /readyz; where clients need tokens it has no text."""
    text = f": {problem['text']}" if "text" in problem else ""
    return (
        f"{problem.get('address')}{text} ({problem.get('count')} times, last {problem.get('at')})"
    )
