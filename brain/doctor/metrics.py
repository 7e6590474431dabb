"""Where the metrics of the running Brain are, and what they are now."""

from __future__ import annotations

import time
from contextlib import suppress
from email.utils import parsedate_to_datetime

from httpx2 import HTTPError, Response

from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.exposition import Exposition
from brain.doctor.finding import Finding, NotChecked, failure, ok
from brain.doctor.http import http_client
from brain.settings import is_loopback_name

ANYWHERE = ("0.0.0.0", "::")
NO_METRICS = NotChecked(
    "no metrics of the running Brain are known",
    "pass --metrics-url; brain serve shows them where BRAIN_METRICS_PORT is set",
)


def metrics_url(examination: Examination) -> tuple[str, str | None]:
    """Return where the metrics are, and the token for them. Raises `NotChecked`."""
    settings = examination.settings
    token = settings.metrics_token
    secret = None if token is None else token.get_secret_value()
    if (url := examination.request.metrics_url) is not None:
        return url, secret
    if settings.metrics_port:
        host = "localhost" if settings.metrics_host in ANYWHERE else settings.metrics_host
        return (
            f"http://{f'[{host}]' if ':' in host else host}:{settings.metrics_port}/metrics",
            None,
        )
    if secret is not None and examination.request.url is not None:
        return f"{Place.of(examination.request.url).http}/metrics", secret
    raise NO_METRICS


async def scrape(examination: Examination) -> Exposition:
    """Return the metrics of now. Raises `NotChecked`, `HTTPError` and ValueError."""
    url, token = metrics_url(examination)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with http_client(Place.of(url)) as client:
        response = await client.get(url, headers=headers)
    response.raise_for_status()
    return Exposition.parse(response.text, time_of(response, Place.of(url).host))


def time_of(response: Response, host: str) -> float:
    """Return the time of the machine that has answered; 0 if that is not known."""
    with suppress(ValueError):
        return parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    return time.time() if is_loopback_name(host) else 0.0


def scraped_again(examination: Examination) -> Exposition:
    """Return the metrics of the last scrape, which may be the first. Raises `NotChecked`."""
    found: Exposition | None = examination.shared.get("metrics again")
    return scraped(examination) if found is None else found


def scraped(examination: Examination) -> Exposition:
    """Return the metrics of the first scrape. Raises `NotChecked`."""
    metrics_url(examination)
    found: Exposition | None = examination.shared.get("metrics")
    if found is None:
        raise NotChecked("the metrics cannot be read", "see metrics.reachable")
    return found


@check("metrics.reachable")
async def reachable(examination: Examination) -> Finding:
    """The metrics of the running Brain can be read."""
    url, _ = metrics_url(examination)
    try:
        found = await scrape(examination)
    except HTTPError as error:
        return failure(
            f"the metrics at {url} cannot be read: {str(error) or type(error).__name__}",
            "start brain serve with BRAIN_METRICS_PORT, and correct --metrics-url; on the port of"
            " clients they need BRAIN_METRICS_TOKEN",
        )
    except ValueError:
        found = Exposition()
    if not any(name.startswith("brain_") for name in found.samples):
        return failure(f"{url} has no metrics of Brain", "correct --metrics-url")
    examination.shared["metrics"] = found
    version = next((labels["version"] for labels, _ in found.of("brain_build_info")), "?")
    return ok(f"the metrics of Brain {version} can be read", version=version)
