"""The file in which a program keeps how far each of its subscriptions has come."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

from brain.client.errors import CursorFileError

FORMAT = "brain cursors 1"


class CursorFile:
    """
    Cursors by the names of subscriptions; None for one that was within its first rows.

    One program uses it at a time: the lock beside it is the kernel's, and ends with the program.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._cursors: dict[str, str | None] = {}
        self._unwritten: set[str] = set()
        """The names of those that may not be on the disk."""
        self._lock_file: IO[bytes] | None = None
        self._writing = threading.Lock()

    def open(self) -> None:
        """Lock and read the file; raises CursorFileError."""
        try:
            self._lock()
            self._cursors = self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another program use the file; a write that goes on is waited for."""
        with self._writing:
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    def __contains__(self, name: str) -> bool:
        return name in self._cursors

    def cursor(self, name: str) -> str | None:
        """Return where a subscription goes on, if it has a place."""
        return self._cursors.get(name)

    async def store(self, name: str, cursor: str | None) -> None:
        """Return once it is on the disk; raises CursorFileError."""
        is_known = name in self._cursors and self._cursors[name] == cursor
        if is_known and name not in self._unwritten:
            return
        self._cursors[name] = cursor
        # Until it is known to be on the disk: the write may fail, or be cancelled before it begins.
        self._unwritten.add(name)
        await asyncio.to_thread(self._write)
        self._unwritten.discard(name)

    def _write(self) -> None:
        with self._writing:
            if self._lock_file is None:
                # It was cancelled before it began: the file may be another program's by now.
                raise self._error("it is closed", "Store within the client's `async with`")
            content = {"format": FORMAT, "cursors": dict(self._cursors)}
            new = self.path.with_name(f"{self.path.name}.new")
            try:
                with new.open("w", encoding="utf-8") as file:
                    json.dump(content, file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, self.path)
                sync_folder(self.path.parent)
            except OSError as error:
                advice = "Make room and let the program write there"
                raise self._error(f"it cannot be written: {error.strerror}", advice) from error

    def _read(self) -> dict[str, str | None]:
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            problem = f"it cannot be read: {error.strerror}"
            raise self._error(problem, "Let the program read it") from error
        except ValueError as error:
            raise self._error(f"it is damaged: {error}", DAMAGED) from error
        if not is_content(content):
            raise self._error(f"it is none: it lacks the format {FORMAT!r}", DAMAGED)
        cursors: dict[str, str | None] = content["cursors"]
        return cursors

    def _lock(self) -> None:
        try:
            self._lock_file = self.path.with_name(f"{self.path.name}.lock").open("ab")
        except OSError as error:
            problem = f"its folder cannot be written to: {error.strerror}"
            advice = "Name a file in a folder where the program may write"
            raise self._error(problem, advice) from error
        if not locked(self._lock_file):
            advice = "Give each program a cursor file of its own"
            raise self._error("another program uses it, or another Brain of this one", advice)

    def _error(self, problem: str, advice: str) -> CursorFileError:
        return CursorFileError(self.path, problem, advice)


DAMAGED = "Restore it, or remove it to begin anew"


def is_content(content: Any) -> bool:
    """Return True for what `CursorFile` writes."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    cursors = content.get("cursors")
    return isinstance(cursors, dict) and all(
        cursor is None or isinstance(cursor, str) for cursor in cursors.values()
    )


if sys.platform == "win32":
    import msvcrt

    def locked(file: IO[bytes]) -> bool:
        """Lock a file for this program, unless another one has it."""
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def sync_folder(folder: Path) -> None:
        """Do nothing: Windows cannot open a folder."""

else:
    import fcntl

    def locked(file: IO[bytes]) -> bool:
        """Lock a file for this program, unless another one has it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def sync_folder(folder: Path) -> None:
        """Have the name of a new file survive a power failure."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
