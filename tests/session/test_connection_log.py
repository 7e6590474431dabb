from __future__ import annotations

import asyncio
import logging

import pytest

from brain.session.connection_log import (
    LINES_PER_SECOND,
    SUMMARY_SECONDS,
    ClosedConnection,
    ConnectionLog,
)
from tests.hub.test_ends_of_transactions import new_hub
from tests.session.test_many_subscriptions import new_session

BURST = 2 * LINES_PER_SECOND
CLOSED = ClosedConnection(
    code=1000,
    seconds=1.5,
    sent_bytes=None,
    transport="websocket",
    wire_format="brain.v1",
    user=None,
    channels=0,
    address=None,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def close(log: ConnectionLog, code: int = 1000) -> None:
    if log.note(code):
        log.write(CLOSED)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.event for record in caplog.records]  # type: ignore[attr-defined]


async def test_of_thousands_of_ends_a_few_are_lines_and_the_others_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = ConnectionLog(clock=clock)
    for number in range(10_000):
        close(log, 1012 if number % 10 else 1006)
    clock.now += 0.5
    log.summarize()

    *lines, last = caplog.records
    assert events(caplog) == ["connection_closed"] * BURST + ["connections_closed"]
    assert len(lines) == BURST
    assert (last.count, last.seconds) == (10_000 - BURST, 0.5)  # type: ignore[attr-defined]
    assert last.codes == {"1006": 998, "1012": 8982}  # type: ignore[attr-defined]
    assert last.getMessage() == (
        "9980 more connections were closed within 0.5 s: 998 with 1006, 8982 with 1012"
    )


async def test_the_number_comes_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    log = ConnectionLog()
    for _ in range(BURST + 5):
        close(log)
    async with asyncio.timeout(SUMMARY_SECONDS + 30):
        while "connections_closed" not in events(caplog):
            await asyncio.sleep(0.01)


async def test_after_a_second_there_are_lines_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = ConnectionLog(clock=clock)
    for _ in range(BURST + 1):
        close(log)
    log.summarize()
    caplog.clear()
    clock.now += 1.0
    for _ in range(LINES_PER_SECOND + 2):
        close(log)
    log.summarize()

    assert events(caplog) == ["connection_closed"] * LINES_PER_SECOND + ["connections_closed"]


async def test_without_ends_there_is_nothing_to_summarize(caplog: pytest.LogCaptureFixture) -> None:
    log = ConnectionLog()
    close(log)
    log.summarize()
    log.summarize()

    assert events(caplog) == ["connection_closed"]


async def test_above_its_level_nothing_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log = ConnectionLog()
    for _ in range(10 * BURST):
        assert not log.note(1000)
    log.summarize()

    assert caplog.records == []


async def test_a_session_whose_line_cannot_be_written_leaves_nothing_behind() -> None:
    class NoSpace(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise OSError("no space left on device")

    hub = new_hub([])
    session, _ = await new_session(hub)
    assert hub.statistics().subscribers == 1
    logger, full = logging.getLogger("brain.session.connection_log"), NoSpace()
    logger.addFilter(full)
    try:
        with pytest.raises(OSError, match="no space left"):
            session.connection_lost()
    finally:
        logger.removeFilter(full)
    assert hub.statistics().subscribers == 0
