"""Compiles the programs of the benchmarks that are written in C."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")


class CompilerMissing(SystemExit):
    """This machine has no C compiler."""


def installed_compiler() -> str:
    """Return the path of the C compiler, or of the one that CC names. Raises `CompilerMissing`."""
    names = [name] if (name := os.environ.get("CC")) else COMPILERS
    for name in names:
        if path := shutil.which(name):
            return path
    raise CompilerMissing(
        f"the clients of this benchmark are written in C, and no compiler ({', '.join(names)}) is"
        " installed; on Debian: apt install gcc libc6-dev"
    )


async def compile_program(name: str, folder: Path) -> Path:
    """Compile `bench/<name>.c` into a folder, and return the program. Raises `CompilerMissing`."""
    program = folder / name
    source = Path(__file__).with_name(f"{name}.c")
    process = await asyncio.create_subprocess_exec(
        *(installed_compiler(), "-O2", "-Wall", "-o", program, source)
    )
    if status := await process.wait():
        raise SystemExit(f"{source.name} cannot be compiled: the compiler ended with {status}")
    return program
