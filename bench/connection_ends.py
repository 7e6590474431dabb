"""
What the line about the end of a connection costs: `python -m bench.connection_ends`.

The bytes are asked of a real TCP connection, and the lines are written to a real file.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import time
from collections.abc import Callable
from typing import TextIO, cast

from brain.process.log_config import configure_logging
from brain.process.log_formatters import formatter_for
from brain.session.connection_log import ClosedConnection, ConnectionLog
from brain.transport.direct import DirectSending

ENDS = 10_000


def microseconds(work: Callable[[], object], count: int) -> float:
    """Return how long `work` takes on average."""
    begun = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - begun) / count * 1e6


async def measure(log_format: str) -> None:
    """Print what an end costs with a line, and without one of its own."""
    with tempfile.TemporaryFile("w") as file, socket.create_server(("127.0.0.1", 0)) as server:
        configure_logging(formatter_for(log_format), "info")
        handler = cast("logging.StreamHandler[TextIO]", logging.getLogger().handlers[0])
        handler.setStream(file)
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, *server.getsockname()
        )
        sending = DirectSending(transport)
        log = ConnectionLog()

        def write() -> None:
            log.write(
                ClosedConnection(
                    code=1006,
                    seconds=12.3456,
                    sent_bytes=sending.sent_bytes(),
                    transport="websocket",
                    wire_format="brain.v1",
                    user="user_ann@example.org",
                    channels=3,
                    address=None,
                )
            )

        with_line = microseconds(write, 2000)
        line_bytes = file.tell() / 2000
        begun = time.process_time()
        lines = sum(log.note(1012) for _ in range(ENDS))
        for _ in range(lines):
            write()
        log.summarize()
        all_milliseconds = (time.process_time() - begun) * 1e3
        sending.end()
        transport.close()
    print(
        f"{log_format:<5} a line: {with_line:.1f} us, {line_bytes:.0f} bytes;"
        f" {ENDS} ends at once: {all_milliseconds:.1f} ms, {lines + 1} lines"
    )


def main() -> None:
    for log_format in ("text", "json"):
        asyncio.run(measure(log_format))


if __name__ == "__main__":
    main()
