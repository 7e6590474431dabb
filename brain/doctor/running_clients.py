"""The clients of a running Brain, by its metrics: how many, which are slow, who was refused."""

from __future__ import annotations

from collections.abc import Mapping

from brain.doctor.check import check
from brain.doctor.examination import Examination
from brain.doctor.exposition import Exposition
from brain.doctor.finding import Facts, Finding, failure, ok, warning
from brain.doctor.metrics import scraped, scraped_again

NEARLY_ALL = 0.9
OLD_KEYS_SECONDS = 900.0
# What happened to so many clients since the start is told, even if it does not happen now.
COMMON_SHARE = 0.01
# What ends refusals, by their reason.
REFUSALS: Mapping[str, str] = {
    "origin": "set BRAIN_ALLOWED_ORIGINS to the origins of your pages",
    "host": "set BRAIN_ALLOWED_HOSTS to the names by which clients address Brain",
    "max_connections": "more workers or nodes, or a higher BRAIN_MAX_CONNECTIONS",
    "max_anonymous_connections": "a higher BRAIN_MAX_ANONYMOUS_CONNECTIONS",
    "max_connections_per_address": (
        "have the proxy send X-Forwarded-For, or raise BRAIN_MAX_CONNECTIONS_PER_ADDRESS"
    ),
    "max_connections_per_user": (
        "end connections that clients leave open, or raise BRAIN_MAX_CONNECTIONS_PER_USER"
    ),
    "expired": "have clients get a new token in time",
    "signature": "have tokens signed with Brain's key: BRAIN_JWT_SECRET, BRAIN_JWT_KEY_FILE",
    "unknown_key": "have BRAIN_JWKS_URL publish the key that tokens are signed with",
    "audience": "compare BRAIN_JWT_AUDIENCE with the claim aud",
    "issuer": "compare BRAIN_JWT_ISSUER with the claim iss",
    "algorithm": "compare BRAIN_JWT_ALGORITHMS with the header alg",
    "not_yet_valid": "synchronise the clocks of who issues tokens and of Brain",
}


@check("metrics.connections")
async def connections(examination: Examination) -> Finding:
    """The quota of connections is not used up."""
    return of_connections(scraped(examination), examination.settings.max_connections)


def of_connections(metrics: Exposition, most: int) -> Finding:
    """Return how many clients there are of those that there may be."""
    count = metrics.total("brain_connections") or 0.0
    workers = metrics.total("brain_workers", state="up") or 1.0
    text = f"{count:,.0f} clients are connected, and {most * workers:,.0f} may be"
    if count >= NEARLY_ALL * most * workers:
        return warning(
            text, "more workers or nodes, or a higher BRAIN_MAX_CONNECTIONS", connections=count
        )
    return ok(text, connections=count)


@check("metrics.refusals")
async def refusals(examination: Examination) -> Finding:
    """No handshake and no token was refused for a reason that a setting ends."""
    return of_refusals(scraped_again(examination), scraped(examination))


def of_refusals(metrics: Exposition, before: Exposition | None = None) -> Finding:
    """Return for which reasons clients are refused now, or were often, the most frequent first."""
    counts: dict[str, float] = {}
    now: dict[str, float] = {}
    for name in ("brain_handshakes_refused_total", "brain_tokens_refused_total"):
        counts |= metrics.by(name, "reason")
        now |= metrics.grown(name, "reason", before)
    told = sorted(
        ((now[reason], count, reason) for reason, count in counts.items() if reason in REFUSALS),
        reverse=True,
    )
    lines = [
        f"{count:,.0f} clients were refused since its start: {reason}"
        + (f"; {new:,.0f} of them just now" if new else "")
        for new, count, reason in told
        if count
    ]
    facts: Facts = {"refused": {reason: count for reason, count in counts.items() if count}}
    admitted = metrics.total("brain_connections_opened_total") or 0.0
    most = max((count for _, count, _ in told), default=0.0)
    if lines and (told[0][0] or most >= COMMON_SHARE * (admitted + most)):
        return warning(lines[0], REFUSALS[told[0][2]], lines[1:], **facts)
    return ok("no client is refused for a reason that a setting ends", lines, **facts)


@check("metrics.slow_clients")
async def slow_clients(examination: Examination) -> Finding:
    """No client reads too slowly."""
    return of_slow_clients(scraped_again(examination), scraped(examination))


def of_slow_clients(metrics: Exposition, before: Exposition | None = None) -> Finding:
    """Return how many clients lag, and are cut for it now, or were often."""
    lagging = metrics.total("brain_subscribers_lagging") or 0.0
    cut = metrics.total("brain_connections_closed_total", code="4008") or 0.0
    now = metrics.grown("brain_connections_closed_total", "code", before).get("4008", 0.0)
    closed = metrics.total("brain_connections_closed_total") or 0.0
    if lagging or now or (cut and cut >= COMMON_SHARE * closed):
        return warning(
            f"clients read too slowly: {lagging:,.0f} lag now, {cut:,.0f} were cut (4008) since its"
            " start; they resume with their cursors",
            "look at these clients: their network, or a loop that handles messages more slowly than"
            " they come; have them subscribe with a filter, or with latest=1; docs/protocol.md,"
            " Slow consumers and conflation",
            lagging=lagging,
            cut=cut,
        )
    details = [f"{cut:,.0f} were cut (4008) since its start"] if cut else []
    return ok("no client reads too slowly", details, lagging=lagging, cut=cut)


@check("metrics.keys")
async def keys(examination: Examination) -> Finding:
    """The keys at BRAIN_JWKS_URL are fetched."""
    return of_keys(scraped_again(examination), scraped(examination))


def of_keys(metrics: Exposition, before: Exposition | None = None) -> Finding:
    """Return how old the keys are that verify tokens."""
    age = metrics.total("brain_jwks_age_seconds") or 0.0
    failed = metrics.total("brain_jwks_fetches_failed_total") or 0.0
    fails_now = sum(metrics.grown("brain_jwks_fetches_failed_total", "", before).values()) > 0
    way_out = "correct BRAIN_JWKS_URL, or what it leads to; the log has the reason"
    if failed and (age == 0 or fails_now):
        return failure(
            f"the keys at BRAIN_JWKS_URL cannot be fetched: {failed:g} attempts failed",
            way_out,
            age_seconds=age,
        )
    # They are fetched as tokens come: a quiet Brain has old ones, too.
    if failed and age > OLD_KEYS_SECONDS:
        return warning(
            f"the keys at BRAIN_JWKS_URL were fetched {age:,.0f} s ago, and since its start"
            f" {failed:g} attempts failed",
            f"if tokens have come since: {way_out}",
            age_seconds=age,
        )
    return ok("no key set is missing", age_seconds=age)
