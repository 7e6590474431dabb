"""nginx, HAProxy and Caddy as the files in `deploy/` configure them, each on a free port."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from httpx2 import AsyncClient, ConnectError

from tests.end_to_end.brain import PATIENCE_SECONDS, ended, running

DEPLOY = Path(__file__).parents[2] / "deploy"


# The line for a second Brain is a comment.
SECOND = re.compile(r"# (?=(?:server(?: two)?|to) 192\.0\.2\.2:5221)")


@dataclass(frozen=True)
class RunningProxy:
    port: int
    certificates: ssl.SSLContext
    """Trusts the certificate of the proxy."""

    @property
    def https(self) -> str:
        return f"https://localhost:{self.port}/brain"

    @property
    def wss(self) -> str:
        return f"wss://localhost:{self.port}/brain"


class Place(NamedTuple):
    """Where a proxy of a test runs, and how."""

    folder: Path
    port: int
    brain_port: int
    idle_seconds: int
    second_port: int | None = None
    """Of another Brain."""

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def both(self) -> Path:
        return self.folder / "certificate-and-key.pem"

    def adapted(self, file: str, changes: Mapping[str, str]) -> str:
        """Return a file of `deploy/` with what a test has to change."""
        text = (DEPLOY / file).read_text()
        changes = {
            "127.0.0.1:5221": f"127.0.0.1:{self.brain_port}",
            "/etc/ssl/brain/": f"{self.folder}/",
            **changes,
        }
        if self.second_port is not None:
            text, count = SECOND.subn("", text)
            assert count == 1, f"{file} has no line for a second Brain"
            changes["192.0.2.2:5221"] = f"127.0.0.1:{self.second_port}"
        for old, new in changes.items():
            assert old in text, f"{file} has no {old}"
            text = text.replace(old, new)
        return text


def nginx(program: str, place: Place) -> tuple[str, ...]:
    folder, config = place.folder, place.folder / "nginx.conf"
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    changes = {
        "listen 443": f"listen 127.0.0.1:{place.port}",
        "brain.example.org": "localhost",
        "proxy_read_timeout 60s": f"proxy_read_timeout {place.idle_seconds}s",
    }
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {folders}\n{place.adapted('nginx.conf', changes)} }}"
    )
    return program, "-p", str(folder), "-c", str(config)


def haproxy(program: str, place: Place) -> tuple[str, ...]:
    place.both.write_text(place.certificate.read_text() + place.key.read_text())
    config = place.folder / "haproxy.cfg"
    changes = {
        "bind :443": f"bind 127.0.0.1:{place.port}",
        **{
            f"timeout {what}  60s": f"timeout {what} {place.idle_seconds}s"
            for what in ("client", "server", "tunnel")
        },
    }
    config.write_text(place.adapted("haproxy.cfg", changes))
    return program, "-db", "-f", str(config)


def caddy(program: str, place: Place) -> tuple[str, ...]:
    # It has no limit for an idle connection.
    config = place.folder / "Caddyfile"
    options = (
        f"{{\n admin off\n auto_https off\n storage file_system {place.folder}/storage\n"
        f" servers {{\n  protocols h1 h2\n }}\n}}\n"
    )
    changes = {"brain.example.org {": f"https://localhost:{place.port} {{\n bind 127.0.0.1"}
    config.write_text(options + place.adapted("Caddyfile", changes))
    return program, "run", "--adapter", "caddyfile", "--config", str(config)


PROXIES: Mapping[str, Callable[[str, Place], tuple[str, ...]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


@asynccontextmanager
async def running_proxy(
    name: str,
    folder: Path,
    brain_port: int,
    idle_seconds: int = 60,
    *,
    second_port: int | None = None,
) -> AsyncIterator[RunningProxy]:
    """Run a proxy in front of a Brain until the context ends, or skip the test without it."""
    # Debian has them where only root's PATH leads.
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"there is no {name}")
    place = Place(folder, free_port(), brain_port, idle_seconds, second_port)
    await make_certificate(place)
    command = PROXIES[name](program, place)
    certificates = ssl.create_default_context(cafile=place.certificate)
    proxy = RunningProxy(place.port, certificates)
    output = folder / f"{name}.log"
    async with running(command, output, {"HOME": str(folder)}) as process:
        async with (
            AsyncClient(trust_env=False, verify=certificates) as client,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            while True:
                assert process.returncode is None, output.read_text()
                try:
                    await client.get(f"{proxy.https}/healthz")
                except ConnectError:
                    await asyncio.sleep(0.05)
                else:
                    break
        yield proxy


async def make_certificate(place: Place) -> None:
    """Make a key and a certificate for `localhost`."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("there is no openssl")
    made = await ended(
        (
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-noenc", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(place.key), "-out", str(place.certificate)),
        )
    )
    assert made.status == 0, made.stderr


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
