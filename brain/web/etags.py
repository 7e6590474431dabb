"""Responses that clients may keep, and ask again whether they are still the same."""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response


def tagged_json(
    request: Request, text: str | bytes, etag: str, vary: str | None = None
) -> Response:
    """
    Return JSON with an etag; 304 if the client has it.

    `vary` names the headers of requests on which it depends.
    """
    return tagged(request, text, etag, "application/json", vary)


def tagged(
    request: Request, text: str | bytes, etag: str, media_type: str, vary: str | None = None
) -> Response:
    """Return a text of any media type, like `tagged_json`."""
    headers = {"etag": etag, "cache-control": "no-cache"} | ({"vary": vary} if vary else {})
    if is_listed(etag, request.headers.getlist("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(text, 200, headers, media_type=media_type)


def etag_of(text: bytes) -> str:
    return f'"{hashlib.sha256(text).hexdigest()[:32]}"'


def is_listed(etag: str, if_none_match: list[str]) -> bool:
    """
    Return True if the header If-None-Match lists `etag`, or is `*`.

    Source: RFC 9110, section 13.1.2: etags are compared weakly.
    """
    listed = {each.strip().removeprefix("W/") for line in if_none_match for each in line.split(",")}
    return etag.removeprefix("W/") in listed or "*" in listed
