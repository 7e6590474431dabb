"""A real PgBouncer in front of a database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

CONFIGURATION = """
[databases]
* = host={host} port={port} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
auth_file =
pool_mode = {mode}
ignore_startup_parameters = extra_float_digits
logfile = {folder}/pgbouncer.log
pidfile =
"""


@contextmanager
def pgbouncer_to(url: str, mode: Literal["session", "transaction"]) -> Iterator[str]:
    """Yield a URL that leads to `url` through a PgBouncer that pools by `mode`."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen_port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        file = Path(folder) / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                host=parts.hostname,
                port=parts.port or 5432,
                # `auth_type = any` has no users: every client becomes the one named here.
                password=f"user={parts.username}"
                + (f" password={parts.password}" if parts.password else ""),
                listen_port=listen_port,
                mode=mode,
                folder=folder,
            )
        )
        # It refuses to run as root.
        user = 65534 if os.getuid() == 0 else None
        process = subprocess.Popen(
            [program, file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user
        )
        try:
            wait_for(listen_port, process)
            yield parts._replace(netloc=f"{parts.username}@127.0.0.1:{listen_port}").geturl()
        finally:
            process.terminate()
            process.wait(10)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, "pgbouncer did not start"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("pgbouncer did not answer")
