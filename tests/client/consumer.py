"""A program that writes down each change that it has handled, and dies wherever it is killed."""

from __future__ import annotations

import asyncio
import os
import sys

from brain.client import Brain


async def main(url: str, cursor_file: str, output: str) -> None:
    """Append a line before and a line after the handling of each change."""
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with Brain(url, cursor_file=cursor_file) as brain:
        async for change in brain.subscribe("orders", snapshot=True):
            word = f"{change.op} {change.key[0] if change.key else '-'}\n"
            os.write(descriptor, f"begin {word}".encode())
            await asyncio.sleep(0)
            os.write(descriptor, f"end {word}".encode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
