"""A link over loopback that goes dead silently: no reset, no close frame, no answer to anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from random import SystemRandom


class CannotBePlayed(Exception):
    """This machine or this user lacks something that a scenario needs."""


class Link:
    """An address of this machine that clients connect from."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._is_dead = False

    def die(self) -> None:
        """Drop every packet to the address from now on."""
        change_route("add", self.address)
        self._is_dead = True

    def mend(self) -> None:
        if self._is_dead:
            change_route("del", self.address)
            self._is_dead = False


@contextmanager
def link() -> Iterator[Link]:
    """Yield a link that can die, and mend it at the end; raise `CannotBePlayed`."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise CannotBePlayed("a dead link needs root and the command `ip`")
    # Not from the seed: several batteries may run on one machine.
    chosen = [SystemRandom().randrange(1, 255) for _ in range(3)]
    found = Link(".".join(map(str, (127, *chosen))))
    # Try it here: in the middle of a scenario it would be too late to skip it.
    found.die()
    found.mend()
    try:
        yield found
    finally:
        found.mend()


def change_route(deed: str, address: str) -> None:
    # In the table that is looked up first, which has all of 127.0.0.0/8 as local.
    command = ("ip", "route", deed, "blackhole", f"{address}/32", "table", "local")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotBePlayed(f"{' '.join(command)}: {done.stderr.strip()}")
