"""nginx with nchan, a pub/sub module in C: `apt install nginx libnginx-mod-nchan` on Debian."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.contender import Contender, connected_poster, free_port
from bench.note import Notes
from bench.server import PATIENCE_SECONDS

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# One worker, as Brain is one process. Like Brain it keeps messages for lagging clients.
CONFIGURATION = """\
load_module {module};
user {user};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location = /ws {{
            nchan_subscriber websocket;
            nchan_channel_id fanout;
            nchan_subscriber_first_message newest;
        }}
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id fanout;
            nchan_message_buffer_length 1000;
        }}
    }}
}}
"""


class NchanMissing(Exception):
    """nginx or its nchan module is not installed on this machine."""


def installed_nginx() -> str:
    """Return the path of nginx. Raises `NchanMissing`, with a text that names what is missing."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if nginx is None or not MODULE.exists():
        missing = "nginx" if nginx is None else "the module libnginx-mod-nchan"
        raise NchanMissing(f"{missing} is not installed")
    return nginx


def version_of(nginx: str) -> str:
    output = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    match = re.search(r"nginx/(\S+)", output)
    assert match, output
    return match[1]


@asynccontextmanager
async def running_nchan(
    name: str, notes: Notes, clients: int, folder: Path
) -> AsyncIterator[Contender]:
    """
    Run nginx in the foreground, with its files in `folder`, until the context ends.

    Raises `NchanMissing`.
    """
    nginx = installed_nginx()
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            module=MODULE,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=folder,
            connections=2 * clients + 1000,
            port=port,
        )
    )
    with (folder / "nginx.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(nginx, "-p", folder, "-c", configuration, "-e", folder / "error.log"),
            stdout=log,
            stderr=log,
        )
    try:
        await accepts(port, process)
        async with connected_poster(port) as poster:

            async def publish(numbers: Sequence[int]) -> None:
                await poster.post("/publish", [notes.message(n).encode() for n in numbers])

            yield Contender(name, port, process.pid, publish, waits_for_clients=True)
    finally:
        # The worker process ends with it.
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def accepts(port: int, process: asyncio.subprocess.Process) -> None:
    """Return once the port accepts connections."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
    raise ConnectionError("nginx has ended")
