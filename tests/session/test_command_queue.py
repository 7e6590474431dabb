from __future__ import annotations

import asyncio

from brain.message.commands import Command, Reply
from brain.session.command_queue import CommandQueue


async def test_a_command_that_ends_its_session_is_the_last_one_that_is_executed() -> None:
    executed: list[Command] = []
    is_empty = asyncio.Event()

    async def execute(command: Command) -> None:
        executed.append(command)
        queue.cancel()

    queue = CommandQueue(execute, on_empty=is_empty.set, on_failure=print)
    queue.add(Reply("first"))
    queue.add(Reply("second"))
    await is_empty.wait()

    assert executed == [Reply("first")]
