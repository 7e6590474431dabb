"""The way to Brain, as far as it is a network's: the name, the port, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509

from brain.client.address import HTTP, SCHEMES
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.finding import Finding, failure, ok, warning
from brain.settings import is_loopback_name

CONNECT_SECONDS = 3.0
SOON_DAYS = 14.0
PORTS = {"http": 80, "https": 443}
# Of OpenSSL, X509_V_ERR_…
EXPIRED, NOT_YET, WRONG_NAME = 10, 9, 62


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads."""

    scheme: str
    """http or https."""
    host: str
    port: int
    path: str
    """Below which Brain is served; empty for the root."""

    @classmethod
    def of(cls, url: str) -> Place:
        parts = urlsplit(url)
        scheme = HTTP[SCHEMES[parts.scheme]]
        port = parts.port or PORTS[scheme]
        return cls(scheme, parts.hostname or "", port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin of Brain's own pages."""
        return f"{self.scheme}://{self.authority}"

    @property
    def http(self) -> str:
        return f"{self.origin}{self.path}"

    @property
    def websocket(self) -> str:
        return f"{'wss' if self.scheme == 'https' else 'ws'}://{self.authority}{self.path}"


@check("connection.address")
async def address(examination: Examination) -> Finding:
    """The name resolves, and something listens on the port."""
    place = Place.of(examination.url)
    started = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(place.host, place.port)
        writer.transport.abort()
    except socket.gaierror:
        finding = failure(
            f"the name {place.host} does not resolve here",
            "correct --url, or the DNS record of that name",
        )
    except TimeoutError:
        finding = failure(
            f"{place.authority} does not answer within {CONNECT_SECONDS:g} s",
            "does a firewall drop the packets, or are the open files of Brain or of the proxy used"
            " up (ulimit -n, host.open_files)?",
        )
    except OSError as error:
        finding = failure(
            f"nothing listens on {place.authority} ({error.strerror or error})",
            "start brain serve, or the proxy; BRAIN_HOST and BRAIN_PORT say where Brain listens: on"
            " localhost it is reached from its own machine alone",
        )
    else:
        milliseconds = round((time.monotonic() - started) * 1000, 1)
        return ok(f"{place.authority} accepts connections", milliseconds=milliseconds)
    examination.give_up_url("connection.address")
    return finding


@check("connection.tls", most_seconds=3 * CONNECT_SECONDS)
async def tls(examination: Examination) -> Finding:
    """The certificate is trusted, has the right name, and is valid for a while."""
    place = Place.of(examination.url)
    if place.scheme == "http":
        if examination.request.token and not is_loopback_name(place.host):
            return warning(
                "the token goes over the network without TLS: every hop on the way can read it",
                "serve Brain behind a proxy with TLS (deploy/), and give clients an https:// URL",
            )
        return ok("plain HTTP, without TLS")
    try:
        certificate = await certificate_of(place, ssl.create_default_context())
    except ssl.SSLError as error:
        examination.give_up_url("connection.tls")
        return await of_tls_error(place, error)
    except (OSError, TimeoutError):
        examination.give_up_url("connection.tls")
        if await speaks_http(place):
            return without_tls(place)
        return failure(
            f"{place.authority} ends the connection within the TLS handshake",
            "look into the log of the proxy: does it speak TLS on this port, with a certificate?",
        )
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400
    text = f"the certificate is trusted, and valid for {days:.0f} days"
    if days < SOON_DAYS:
        return warning(text, "renew the certificate of the proxy", days=round(days, 1))
    return ok(text, days=round(days, 1))


async def certificate_of(place: Place, context: ssl.SSLContext) -> x509.Certificate:
    """Return the certificate of a server. Raises OSError, of which ssl.SSLError is one."""
    async with asyncio.timeout(CONNECT_SECONDS):
        _, writer = await asyncio.open_connection(place.host, place.port, ssl=context)
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return x509.load_der_x509_certificate(found)


async def speaks_http(place: Place) -> bool:
    """Return True if a server answers in plain HTTP."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {place.authority}\r\n\r\n".encode())
                return (await reader.read(5)).startswith(b"HTTP/")
            finally:
                writer.transport.abort()
    return False


def without_tls(place: Place, reason: str | None = None) -> Finding:
    return failure(
        f"{place.authority} does not speak TLS" + (f" ({reason})" if reason else ""),
        f"pass --url http://{place.authority}{place.path}, or have the proxy speak TLS there",
    )


async def unverified_certificate_of(place: Place) -> x509.Certificate:
    """Return the certificate of a server, whether it is trusted or not. Raises `OSError`."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    return await certificate_of(place, unverified)


async def of_tls_error(place: Place, error: ssl.SSLError) -> Finding:
    """Return why a TLS handshake failed."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return without_tls(place, error.reason)
    certificate = await unverified_certificate_of(place)
    match error.verify_code:
        case code if code == EXPIRED:
            return failure(
                f"the certificate of {place.authority} expired at"
                f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                "renew it, and have the proxy load it again",
            )
        case code if code == NOT_YET:
            return failure(
                f"the certificate of {place.authority} is valid from"
                f" {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
                "correct the clock of this machine, or the certificate",
            )
        case code if code == WRONG_NAME:
            return failure(
                f"the certificate is not that of {place.host}: it names"
                f" {', '.join(names_in(certificate)) or 'no name'}",
                "pass --url with a name of the certificate, or have one made for this name",
            )
        case _:
            return failure(
                f"the certificate of {place.authority} is not trusted here: {error.verify_message}",
                "have the proxy send the whole chain of a known authority; for one of your own, set"
                " SSL_CERT_FILE here, and have each client trust it",
            )


def names_in(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in extension.value]
