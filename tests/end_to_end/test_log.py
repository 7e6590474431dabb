"""What clients without a token can make a running Brain log."""

from __future__ import annotations

import socket

from tests.end_to_end.brain import RunningBrain

MALFORMED = b"x\r\n\r\n"
UPGRADE = (
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
    b"Upgrade: h2c\r\n\r\n"
)


async def test_requests_that_uvicorn_refuses_are_one_line_of_the_log_each(
    shared_brain: RunningBrain,
) -> None:
    for request in [MALFORMED, UPGRADE] * 50:
        with socket.create_connection(("localhost", shared_brain.port)) as client:
            client.settimeout(10)
            client.sendall(request)
            while client.recv(1000):
                pass

    log = shared_brain.output.read_text()
    assert log.count("Invalid HTTP request received.") == 1
    assert log.count("Unsupported upgrade request.") == 1
