"""Joins the rooms: for each batch of the source, each sink delivers it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, Protocol, TypedDict, TypeVar

import asyncpg
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from brain.auth.access_function import AccessFunction
from brain.auth.authenticator import Authenticator
from brain.auth.hosts import Hosts, hosts_of
from brain.auth.origin import Origins
from brain.auth.policy import authority_for
from brain.auth.revocations import Revocations
from brain.auth.row_rules import RowRules
from brain.auth.tickets import Tickets
from brain.database.connection import opened_pool
from brain.database.filter_binder import FilterBinder
from brain.database.history import HistoryReader
from brain.database.pages import PageReader
from brain.database.publish import publish_for_client
from brain.database.retention import trim_log
from brain.database.schema_follower import follow_schema
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.database.transactions import AwaitedTransactions
from brain.database.watches import WatchedColumns, report_to_watches, warn_of_problems
from brain.errors import BrainError
from brain.feeds import routes as feeds
from brain.feeds.reader import FeedReader
from brain.feeds.refresher import FeedRefresher
from brain.hub.hub import Hub
from brain.listener.batch_source import BatchSource
from brain.log_events import TASK_DIED
from brain.message.channel_schema import ChannelSchemas
from brain.message.event import Batch
from brain.metrics.metrics import Metrics, Sampled
from brain.presence.cluster import Cluster
from brain.presence.tracker import PresenceTracker
from brain.problems import Problems, printable
from brain.reload import LiveSettings, limits, quotas
from brain.session.admission import Admission
from brain.session.connection_limiter import ConnectionLimiter
from brain.session.connection_log import ConnectionLog
from brain.session.draining import Draining
from brain.session.registry import SessionRegistry
from brain.session.session import SessionContext
from brain.session.sources import Sources
from brain.settings import Settings
from brain.system import System, schemas_of
from brain.timing import NoteSeconds, timed
from brain.transport.handshake import Handshake
from brain.transport.refusal_counts import RefusalCounts
from brain.web import (
    client,
    documents,
    event_stream,
    pages,
    publish,
    revocations,
    snapshot,
    status,
    unmatched,
    v1_endpoint,
    websocket_endpoint,
)
from brain.web import metrics as metrics_endpoint
from brain.web import tickets as tickets_endpoint
from brain.web.body_budget import BodyBudgetMiddleware
from brain.web.counting import CountingApplication
from brain.web.cross_origin import CrossOriginMiddleware
from brain.web.error_responses import exception_handlers
from brain.web.host_check import HostMiddleware
from brain.web.safe_headers import SafeHeadersMiddleware
from brain.web.services import Services

# How long to wait for the database before serving without it.
STARTUP_SECONDS = 5.0
# How many events of a batch that could not be delivered are named.
MOST_NAMED = 3
MAX_BODY_BYTES = 1024 * 1024
# All bodies that are being read, or of requests that are being answered.
MOST_BODIES_BYTES = 32 * MAX_BODY_BYTES

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Sink(Protocol):
    """Where batches go."""

    def deliver(self, batch: Batch) -> None: ...


class State(TypedDict):
    """What requests find in their state."""

    pool: asyncpg.Pool
    sources: Sources
    feeds: FeedRefresher
    feed_reader: FeedReader


async def relay(source: BatchSource, sinks: Mapping[str, Sink], problems: Problems) -> None:
    """
    Carry every change from the database to the clients.

    What a sink cannot deliver is lost to that sink alone: it is a problem of the sink's, and of the
    batch's first channel.
    """
    async for batch in source.batches():
        for name, sink in sinks.items():
            try:
                sink.deliver(batch)
            except Exception as error:
                text = f"cannot deliver {contents(batch)}: {type(error).__name__}: {error}"
                channel = batch.events[0].channel if batch.events else ""
                problems.report(f"{name} {channel}".rstrip(), text, unexpected=error)


def contents(batch: Batch) -> str:
    """Return what is in a batch: the channels and keys of its first events."""
    named = [f"{event.channel} {event.key}" for event in batch.events[:MOST_NAMED]]
    more = len(batch.events) - len(named)
    return ", ".join(named) + (f" and {more} more events" if more else "") or "no events"


async def maintain(hub: Hub, registry: SessionRegistry, heartbeat_seconds: float) -> None:
    """For ever: expire old events, send heartbeats, close silent clients."""
    while True:
        await asyncio.sleep(min(1.0, heartbeat_seconds / 4))
        hub.maintain(datetime.now(UTC), heartbeat_seconds)
        registry.close_silent()


def end_process(failure: BaseException) -> None:
    """End the process: a server that answers and sends nothing is worse than none."""
    signal.raise_signal(signal.SIGTERM)


def build_app(
    url: str,
    settings: Settings,
    systems: Sequence[System] = (),
    *,
    warns: bool = True,
    hosts: Hosts | None = None,
    authenticator: Authenticator | None = None,
    on_failure: Callable[[BaseException], None] = end_process,
    metrics: Metrics | None = None,
) -> Starlette:
    """
    Return the application that serves the changes of a database to the clients of `systems`.

    `on_failure` is called with what one of its tasks died of, which is `app.state.failure` from
    then on; `app.state.services` is what its routes are built with. With `warns`, problems of
    watched tables are logged, and figures of the database read for the metrics: of several workers
    one is enough. `hosts` are those by which it may be addressed, unless the settings say it;
    `authenticator` takes the place of tokens; `metrics` are those that show this process.
    """
    metrics = metrics or Metrics(settings)
    refusals = RefusalCounts()
    problems = Problems()
    connection_log = ConnectionLog(has_addresses=settings.log_addresses)
    channel_schemas = [schema for system in systems for schema in system.channel_schemas]
    schemas = ChannelSchemas(channel_schemas, problems)
    hub = Hub(settings.ring_bytes, settings.ring_seconds, schemas)
    presence = PresenceTracker()
    registry = SessionRegistry(presence)
    access_function = AccessFunction(
        settings.database_timeout_seconds, problems=problems, on_change=registry.reauthorize
    )
    row_rules = RowRules(settings.database_timeout_seconds, problems, registry.reauthorize)
    revoked = Revocations(registry.revoke, problems, settings.jwt_leeway_seconds)
    watched_columns = WatchedColumns(settings.database_timeout_seconds, problems)
    filters = FilterBinder(settings.database_timeout_seconds, problems, registry.rebind_filters)

    async def check_everybody() -> None:
        # Which rules and tokens have changed in a gap of the log is not in the log.
        await revoked.load_again()
        registry.reauthorize()

    source = BatchSource(
        url,
        settings,
        before_gap=check_everybody,
        problems=problems,
        on_read=metrics.listener.note_read,
        on_flush=metrics.listener.note_flush,
    )
    transactions = AwaitedTransactions(
        settings.database_timeout_seconds, problems, source.look, source.comparable
    )
    authority = authority_for(settings, access_function, revoked, row_rules, authenticator)
    tickets = Tickets(settings.database_timeout_seconds, problems)
    cluster = Cluster(
        url,
        presence,
        settings.database_timeout_seconds,
        problems,
        settings.presence_grace_seconds,
    )
    hosts, origins = hosts or hosts_of(settings), Origins(settings.allowed_origins)
    limiter = ConnectionLimiter(quotas(settings))
    admission = Admission(authority, limiter, origins)
    access = TableAccess(
        settings.snapshot_bytes,
        settings.table_timeout_seconds,
        problems,
        on_tick=source.look,
        comparable=source.comparable,
    )
    services = Services(
        settings=settings,
        database_url=url,
        schemas=schemas,
        source=source,
        authority=authority,
        tickets=tickets,
        handshake=Handshake(admission, settings.unread_timeout_seconds),
        sessions=SessionContext(
            authority,
            registry,
            limits(settings),
            settings.jwt_leeway_seconds,
            settings.heartbeat_seconds,
            refuse_filters=watched_columns.refusal,
            bind_filter=filters.bind,
            problems=problems,
            columns_of=watched_columns.columns_of,
            connection_log=connection_log,
        ),
        draining=Draining(registry, settings.drain_seconds, workers=settings.workers),
        presence=presence,
        cluster=cluster,
        problems=problems,
        snapshots=SnapshotReader(access),
    )

    sampled = Sampled(
        hub=hub,
        source=source,
        sessions=registry,
        refusals=refusals,
        authority=authority,
        tickets=tickets,
        presence=presence,
        cluster=cluster,
        problems=problems,
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        async with opened_pool(url) as pool:
            reader = FeedReader(
                pool,
                settings.snapshot_bytes,
                settings.database_timeout_seconds,
                problems,
                metrics.listener.note_feed,
            )
            refresher = FeedRefresher(reader, settings.feed_interval_seconds)
            revoked.connect(pool)
            watched_columns.connect(pool)
            filters.connect(pool)
            row_rules.connect(pool)
            tickets.connect(pool)
            transactions.connect(pool)
            work: dict[str, Coroutine[Any, Any, None]] = {
                "batch source": relay(
                    source,
                    {
                        "revocations": revoked,
                        "hub": hub,
                        **metrics.sinks(),
                        "feeds": refresher,
                        "watched columns": watched_columns,
                        "filters": filters,
                        "row rules": row_rules,
                    },
                    problems,
                ),
                "watched columns": watched_columns.run(),
                "filters": filters.run(),
                "row rules": row_rules.run(),
                "transactions": transactions.run(),
                "feeds": refresher.run(),
                "hub": maintain(hub, registry, settings.heartbeat_seconds),
                "cluster": cluster.run(),
                "access function": access_function.follow(pool),
                "problems": report_to_watches(pool, problems),
                "retention": trim_log(
                    pool, settings.retention_seconds, problems, metrics.listener.note_trim
                ),
                "schema": follow_schema(pool, url, schemas_of(systems), problems, warns=warns),
            }
            if warns:
                work["watches"] = warn_of_problems(pool, problems)
            work |= metrics.work(sampled, refresher.statistics, pool, reads_database=warns)
            tasks = [asyncio.create_task(one, name=name) for name, one in work.items()]
            for task in tasks:
                task.add_done_callback(fail)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STARTUP_SECONDS):
                        await source.live()
                        await access_function.known()
                history = HistoryReader(pool, settings.database_timeout_seconds, problems)
                yield {
                    "pool": pool,
                    "sources": Sources(
                        hub,
                        history,
                        noting(
                            metrics.delivery.note_snapshot, partial(services.snapshots.read, pool)
                        ),
                        noting(metrics.delivery.note_page, partial(PageReader(access).read, pool)),
                        partial(publish_for_client, pool, settings.database_timeout_seconds),
                        transactions,
                        problems,
                    ),
                    "feeds": refresher,
                    "feed_reader": reader,
                }
            finally:
                for task in tasks:
                    task.remove_done_callback(fail)
                    task.cancel()
                await asyncio.wait(tasks)
                connection_log.summarize()

    def fail(task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        app.state.failure = failure = failure or asyncio.CancelledError()
        name = task.get_name()
        if isinstance(failure, BrainError):
            TASK_DIED.log(logger, "%s", printable(str(failure)), task=name)
        else:
            TASK_DIED.log(logger, "the task %r died", name, error=failure, task=name)
        on_failure(failure)

    app = CountingApplication(
        refusals,
        routes=[
            *metrics_endpoint.routes(settings.metrics_token, metrics.exposition),
            *routes_of(services, systems),
        ],
        middleware=[
            Middleware(SafeHeadersMiddleware),
            Middleware(HostMiddleware, hosts),
            Middleware(CrossOriginMiddleware, origins),
            Middleware(BodyBudgetMiddleware, MOST_BODIES_BYTES),
        ],
        exception_handlers=exception_handlers(problems),
        max_body_size=MAX_BODY_BYTES,
        lifespan=lifespan,
    )
    app.router.default = unmatched.not_found
    app.router.redirect_slashes = False
    app.state.failure = None
    app.state.services = services
    app.state.live_settings = LiveSettings(settings, authority, limiter, services.sessions)
    return app


def routes_of(services: Services, systems: Sequence[System]) -> list[BaseRoute]:
    """Return the routes of the core, of the systems, and of feeds."""
    profiles = [profile for system in systems for profile in system.profiles(services.schemas)]
    front_page = next((system.front_page for system in systems if system.front_page), None)
    links = {name: path for system in systems for name, path in system.links.items()}
    own_routes: list[BaseRoute] = [
        *v1_endpoint.routes(services),
        *event_stream.routes(services),
        *websocket_endpoint.routes(services, profiles),
        *(route for system in systems for route in system.routes(services)),
        *tickets_endpoint.routes(services),
        *revocations.routes(services),
        *publish.routes(services),
        *status.routes(services),
        *snapshot.routes(services),
        *documents.routes(services),
        *client.routes(),
        *pages.routes(front_page, links),
    ]
    # Feeds come last: their addresses have names of their own choice.
    return [*own_routes, *unmatched.upgrade_routes(own_routes), *feeds.routes(services)]


def noting(
    note: NoteSeconds, read: Callable[Arguments, Awaitable[Result]]
) -> Callable[Arguments, Awaitable[Result]]:
    """Return what does the same as `read`, and notes the seconds of each call."""

    def noted(*arguments: Arguments.args, **options: Arguments.kwargs) -> Awaitable[Result]:
        return timed(read(*arguments, **options), note)

    return noted
