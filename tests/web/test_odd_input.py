"""Odd claims and odd parameters are refused, or mean nothing; they are no error of the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import asyncpg
import pytest
from httpx2 import AsyncClient

from brain.app import build_app
from brain.system import installed_systems
from tests.raw_websocket import connected_to, handshake
from tests.session.test_commands import SECRET, with_secret
from tests.transport.served import served

ODD = [
    *("1e400", "-1e400", "NaN", "-Infinity", "9" * 400, "1.5", "-0", "null", "true"),
    *('""', "[]", "{}", '"\\u0000"', '"\\ud800"', '"a\\u0000b"', '["\\u0000"]', '"\\r\\n\\u001b"'),
    *('{"\\u0000": "\\udfff"}', "[" * 60 + "]" * 60, "[" * 500 + "]" * 500),
    *('{"a":' * 60 + "1" + "}" * 60, '"' + "x" * 3000 + '"'),
    *("[1e400]", f"[{'9' * 30}]", "[null, [], {}]", '"[]"', '"{}"', "9223372036854775808", "1e308"),
]
ODD_FILTERS = [
    *ODD,
    *(f'{{"status": {value}}}' for value in ODD),
    *(f'{{"id": {value}, "status": "a"}}' for value in ODD),
    *('{"\\u0000": 1}', '{"\\ud800": 1}', "{", "{}{}", "\0", "\ud7ff", '{"a": 1, "a": 2}', "'"),
]
NAMES = ("sub", "exp", "iat", "nbf", "aud", "iss", "channels", "publish", "customer_id", "x", "jti")
PATHS = (
    *("/api/brain/tasks", "/api/brain/snapshot/tasks", "/api/brain/snapshot/orders"),
    *("/api/workflows", "/api/mine", "/api/ws/stats", "/api/ws/channels/tasks"),
)
SOCKETS = ("/ws?channel=tasks&", "/ws?channel=orders&snapshot&", "/ws/connect?", "/ws/mine?", "/?")

BODIES = {
    "/api/ws/broadcast": (
        '{"channel": "a", "message": VALUE}',
        '{"channel": VALUE, "message": 1}',
    ),
    "/api/ws/broadcast/all": ('{"type": VALUE, "data": VALUE}',),
    "/api/brain/users/revoke": ('{"user": VALUE}',),
}

SETUP = """
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int, note text);
    SELECT brain.watch('orders', 'orders', ARRAY['id', 'customer_id', 'note']);
    SELECT brain.restrict('orders', '{"customer_id": "customer_id"}');
    SELECT brain.define_feed('mine', 'SELECT to_jsonb($1::text)', ARRAY['tasks'],
                             takes_argument => true, argument_claim => 'x');
"""


def token(name: str, value: str) -> str:
    """Return a token with a claim in any JSON."""
    claims = {"sub": '"ann"', "exp": str(int(time.time()) + 60), "publish": '"*"', name: value}
    body = "{" + ", ".join(f'"{key}": {text}' for key, text in claims.items()) + "}"
    signed = f"{base64url(json.dumps(HEADER).encode())}.{base64url(body.encode())}"
    signature = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64url(signature)}"


# Of these the values decide about rows, or are passed to the access function.
USED = ("x", "customer_id", "sub")
HEADER = {"alg": "HS256", "typ": "JWT"}


class Wrong(list[tuple[object, ...]]):
    """What was answered with an error of the server."""

    def note(self, status: int, where: tuple[str, ...]) -> None:
        if status >= 500:
            self.append((status, *where))

    def check(self, caplog: pytest.LogCaptureFixture) -> None:
        assert not self, "\n".join(map(str, self))
        assert all(record.getMessage().isprintable() for record in caplog.records)
        assert not any(record.exc_info for record in caplog.records)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(SETUP)
    async with served(build_app(database, with_secret(), list(installed_systems().values()))) as (
        port,
        _,
    ):
        yield port


async def status_of(port: int, path: str) -> int:
    async with connected_to(port) as raw:
        await raw.send(handshake(path))
        return int((await raw.receive()).split(b" ")[1])


@pytest.mark.parametrize("has_function", [False, True])
async def test_odd_claims_are_no_error_of_the_server(
    port: int,
    connection: asyncpg.Connection,
    has_function: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if has_function:
        await connection.execute(
            "CREATE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean"
            " LANGUAGE sql AS $$ SELECT (claims ->> 'x')::int > 0 OR true $$"
        )
    found = set()
    wrong = Wrong()
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        for name in USED if has_function else NAMES:
            for value in ODD:
                given = token(name, value)
                is_used = name in USED
                for path in PATHS if is_used else PATHS[-1:]:
                    headers = {"authorization": f"Bearer {given}"}
                    answer = await client.get(path, headers=headers)
                    found.add(answer.status_code)
                    wrong.note(answer.status_code, (name, value, path, answer.text))
                for path in SOCKETS if is_used else SOCKETS[:1]:
                    status = await status_of(port, f"{path}token={given}")
                    found.add(status)
                    wrong.note(status, (name, value, path))
    assert {101, 200, 401} <= found
    wrong.check(caplog)


async def test_odd_filters_and_parameters_are_no_error_of_the_server(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    good = token("y", "1")
    wrong = Wrong()
    for value in ODD_FILTERS:
        asked = quote(value, safe="")
        for path in (
            f"/ws?channel=tasks&where={asked}",
            f"/ws?channel={asked}",
            f"/ws?channel=tasks&cursor={asked}",
            f"/ws?channel=tasks:{asked}&numbers={asked}&latest={asked}",
            f"/ws?channel=orders&where={asked}",
        ):
            if len(path) < 8000:
                wrong.note(await status_of(port, f"{path}&token={good}"), (path,))
    wrong.check(caplog)


async def test_odd_addresses_and_bodies_are_no_error_of_the_server(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    good, publisher = token("y", "1"), token("publish", '["*"]')
    wrong = Wrong()
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        headers = {"authorization": f"Bearer {good}"}
        for value in ODD_FILTERS:
            asked = quote(value, safe="")
            for path in (
                f"/api/brain/snapshot/{asked}",
                f"/api/brain/snapshot/tasks?numbers={asked}",
                f"/api/mine/{asked}",
                f"/api/{asked}",
                f"/api/ws/channels/{asked}",
                f"/api/brain/tasks?{asked}={asked}",
            ):
                answer = await client.get(path, headers=headers)
                wrong.note(answer.status_code, (path, answer.text))
            for path, templates in BODIES.items():
                for template in ("VALUE", *templates):
                    body = template.replace("VALUE", value)
                    content = body.encode(errors="surrogatepass")
                    answer = await client.post(
                        path,
                        content=content,
                        headers={
                            "authorization": f"Bearer {publisher}",
                            "content-type": "application/json",
                        },
                    )
                    wrong.note(answer.status_code, (path, body, answer.text))
    wrong.check(caplog)
