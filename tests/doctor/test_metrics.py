from __future__ import annotations

from typing import Any

import pytest
from httpx2 import Response
from pydantic import SecretStr

from brain.doctor import metrics, running_clients, running_processes
from brain.doctor.examination import Examination
from brain.doctor.exposition import Exposition
from brain.doctor.finding import NotChecked
from brain.settings import Settings
from tests.doctor.answering import answering, response
from tests.doctor.examining import found, request

NOW = 1000.0
SOUND = """
# TYPE brain_build_info gauge
brain_build_info{version="0.1.0",python="3.11.7"} 1
# TYPE brain_workers gauge
brain_workers{state="wanted"} 2
brain_workers{state="up"} 2
# TYPE brain_worker_restarts counter
brain_worker_restarts_total{reason="died"} 0
brain_worker_restarts_total{reason="hung"} 0
brain_worker_restarts_total{reason="replaced"} 4
# TYPE brain_heartbeat_timestamp_seconds gauge
brain_heartbeat_timestamp_seconds{process="1"} 999.5
brain_heartbeat_timestamp_seconds{process="2"} 999.1
# TYPE brain_database_up gauge
brain_database_up 1
# TYPE brain_tick_lag_seconds gauge
brain_tick_lag_seconds 0.4
# TYPE brain_open_files gauge
brain_open_files{process="1"} 60
brain_open_files{process="2"} 70
# TYPE brain_open_files_limit gauge
brain_open_files_limit{process="1"} 100000
brain_open_files_limit{process="2"} 100000
# TYPE brain_memory_bytes gauge
brain_memory_bytes{process="1"} 1.0e+08
# TYPE brain_connections gauge
brain_connections{format="brain.v1",transport="websocket"} 30
brain_connections{format="brain.v1",transport="sse"} 10
# TYPE brain_handshakes_refused counter
brain_handshakes_refused_total{status="400",reason="request"} 7
# TYPE brain_connections_closed counter
brain_connections_closed_total{code="1000"} 12
# TYPE brain_subscribers_lagging gauge
brain_subscribers_lagging 0
# TYPE brain_event_loop_lag_seconds histogram
brain_event_loop_lag_seconds_bucket{le="0.001"} 90
brain_event_loop_lag_seconds_bucket{le="0.25"} 99
brain_event_loop_lag_seconds_bucket{le="+Inf"} 100
brain_event_loop_lag_seconds_count 100
brain_event_loop_lag_seconds_sum 1
"""


def exposed() -> Exposition:
    return Exposition.parse(SOUND, NOW)


def with_line(old: str, new: str) -> Exposition:
    """Return a scrape with another line in place of one."""
    assert old in SOUND
    return Exposition.parse(SOUND.replace(old, new), NOW)


def test_a_sound_brain_has_no_finding() -> None:
    scrape = exposed()

    assert running_processes.of_workers(scrape).verdict == "ok"
    assert running_processes.of_database(scrape, 5.0).verdict == "ok"
    assert running_processes.of_files(scrape, 50_000).verdict == "ok"
    assert running_clients.of_connections(scrape, 50_000).verdict == "ok"
    assert running_clients.of_refusals(scrape).verdict == "ok"
    assert running_clients.of_slow_clients(scrape).verdict == "ok"
    assert running_processes.of_event_loop(scrape).verdict == "ok"
    assert running_clients.of_keys(scrape).verdict == "ok"
    assert running_processes.of_memory(scrape, 10**12).verdict == "ok"


def test_a_worker_whose_event_loop_does_not_run_hangs() -> None:
    finding = running_processes.of_workers(with_line('{process="2"} 999.1', '{process="2"} 980'))

    assert finding.verdict == "failure"
    assert "worker 2 hangs" in finding.text
    assert "20 s" in finding.text
    assert "BRAIN_WORKER_TIMEOUT_SECONDS" in str(finding.way_out)


def test_a_worker_that_is_missing_is_a_failure_and_one_that_was_replaced_a_warning() -> None:
    missing = running_processes.of_workers(with_line('{state="up"} 2', '{state="up"} 1'))
    hung = running_processes.of_workers(with_line('{reason="hung"} 0', '{reason="hung"} 3'))

    assert (missing.verdict, hung.verdict) == ("failure", "warning")
    assert "1 of 2 workers" in missing.text
    assert "3 that hung" in hung.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("brain_database_up 1", "brain_database_up 0"),
        ("brain_tick_lag_seconds 0.4", "brain_tick_lag_seconds 44"),
    ],
)
def test_a_worker_that_does_not_follow_the_database_is_named(old: str, new: str) -> None:
    assert running_processes.of_database(with_line(old, new), 5.0).verdict == "failure"


def test_open_files_of_a_worker_that_are_used_up_are_named() -> None:
    finding = running_processes.of_files(
        with_line('brain_open_files{process="2"} 70', 'brain_open_files{process="2"} 99999'), 50_000
    )

    assert finding.verdict == "failure"
    assert "worker 2" in finding.text


def test_connections_near_their_limit_are_a_warning() -> None:
    finding = running_clients.of_connections(exposed(), 21)

    assert finding.verdict == "warning"
    assert "BRAIN_MAX_CONNECTIONS" in str(finding.way_out)


REFUSALS = [
    ('{status="403",reason="origin"} 7', "BRAIN_ALLOWED_ORIGINS"),
    ('{status="403",reason="host"} 7', "BRAIN_ALLOWED_HOSTS"),
    ('{status="503",reason="max_connections"} 7', "BRAIN_MAX_CONNECTIONS"),
]


@pytest.mark.parametrize(("line", "setting"), REFUSALS)
def test_refused_clients_are_counted_with_the_setting(line: str, setting: str) -> None:
    finding = running_clients.of_refusals(with_line('{status="400",reason="request"} 7', line))

    assert finding.verdict == "warning"
    assert setting in str(finding.way_out)
    assert list(finding.facts["refused"].values()) == [7]


def test_refused_tokens_are_counted_with_the_way_out() -> None:
    line = 'brain_tokens_refused_total{reason="expired"} 9\n'
    finding = running_clients.of_refusals(Exposition.parse(SOUND + line, NOW))

    assert finding.verdict == "warning"
    assert "new token" in str(finding.way_out)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("brain_subscribers_lagging 0", "brain_subscribers_lagging 2"),
        (
            'brain_connections_closed_total{code="1000"} 12',
            'brain_connections_closed_total{code="4008"} 2',
        ),
    ],
)
def test_a_slow_client_is_named(old: str, new: str) -> None:
    finding = running_clients.of_slow_clients(with_line(old, new))

    assert finding.verdict == "warning"
    assert "read too slowly" in finding.text
    assert "latest=1" in str(finding.way_out)


def test_a_late_event_loop_is_a_warning_by_what_was_measured_between_two_scrapes() -> None:
    before = exposed()
    after = Exposition.parse(SOUND.replace('le="+Inf"} 100', 'le="+Inf"} 150'), NOW + 1)

    assert running_processes.of_event_loop(after, before).verdict == "warning"
    with pytest.raises(NotChecked):
        running_processes.of_event_loop(before, before)


def test_a_key_set_that_cannot_be_fetched_is_a_failure() -> None:
    lines = "brain_jwks_age_seconds 0\nbrain_jwks_fetches_failed_total 12\n"
    finding = running_clients.of_keys(Exposition.parse(SOUND + lines, NOW))

    assert finding.verdict == "failure"
    assert "BRAIN_JWKS_URL" in str(finding.way_out)


def test_old_keys_of_a_quiet_brain_are_a_warning_unless_fetching_them_fails_now() -> None:
    def keys(age: int, failed: int) -> Exposition:
        lines = f"brain_jwks_age_seconds {age}\nbrain_jwks_fetches_failed_total {failed}\n"
        return Exposition.parse(SOUND + lines, NOW)

    assert running_clients.of_keys(keys(4000, 1), keys(3999, 1)).verdict == "warning"
    assert running_clients.of_keys(keys(4000, 2), keys(3999, 1)).verdict == "failure"
    assert running_clients.of_keys(keys(0, 1), keys(0, 1)).verdict == "failure"
    assert running_clients.of_keys(keys(100, 1), keys(99, 1)).verdict == "ok"


def test_what_was_rare_and_does_not_happen_now_is_no_warning() -> None:
    def counted(count: int) -> Exposition:
        lines = (
            "brain_connections_opened_total 9000\n"
            'brain_tokens_refused_total{reason="issuer"} 50\n'
            f'brain_tokens_refused_total{{reason="expired"}} {count}\n'
            f'brain_connections_closed_total{{code="4008"}} {count}\n'
            'brain_connections_closed_total{code="1001"} 8000\n'
        )
        return Exposition.parse(SOUND + lines, NOW)

    refused = running_clients.of_refusals(counted(9), counted(9))
    refused_now = running_clients.of_refusals(counted(9), counted(8))
    cut = running_clients.of_slow_clients(counted(9), counted(9))
    cut_now = running_clients.of_slow_clients(counted(9), counted(8))

    assert (refused.verdict, cut.verdict) == ("ok", "ok")
    assert (refused_now.verdict, cut_now.verdict) == ("warning", "warning")
    assert "9 clients were refused since its start: expired" in refused.details
    assert refused_now.text.endswith("expired; 1 of them just now")
    assert "new token" in str(refused_now.way_out)
    assert cut.details == ["9 were cut (4008) since its start"]


async def test_heartbeats_are_judged_by_the_clock_of_the_machine_that_answers() -> None:
    async def hangs(date: str) -> bool:
        async with answering(response(200, SOUND, date=date)) as port:
            url = f"http://127.0.0.1:{port}/metrics"
            finding = await found(running_processes.workers, metrics.reachable, metrics_url=url)
        return finding.verdict == "failure"

    assert not await hangs("Thu, 01 Jan 1970 00:16:41 GMT")
    assert await hangs("Thu, 01 Jan 1970 00:17:41 GMT")


def test_without_its_clock_the_heartbeats_of_another_machine_are_not_judged() -> None:
    assert metrics.time_of(Response(200), "brain.example.org") == 0.0
    assert metrics.time_of(Response(200), "localhost") > 0.0
    assert running_processes.of_workers(Exposition.parse(SOUND)).verdict == "ok"


def test_memory_of_nearly_the_whole_machine_is_a_warning() -> None:
    assert running_processes.of_memory(exposed(), 110_000_000).verdict == "warning"


async def test_metrics_are_read_from_the_url() -> None:
    async with answering(response(200, SOUND)) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        reachable = await found(metrics.reachable, metrics_url=url)
        slow = await found(running_clients.slow_clients, metrics.reachable, metrics_url=url)

    assert (reachable.verdict, reachable.facts["version"]) == ("ok", "0.1.0")
    assert slow.verdict == "ok"


@pytest.mark.parametrize("answer", [response(404, "no"), response(200, "<html>"), response(200)])
async def test_what_has_no_metrics_of_brain_is_named(answer: bytes) -> None:
    async with answering(answer) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        finding = await found(metrics.reachable, metrics_url=url)
        other = await found(running_processes.workers, metrics.reachable, metrics_url=url)

    assert finding.verdict == "failure"
    assert other.verdict == "not checked"


async def test_without_metrics_it_says_what_to_pass() -> None:
    finding = await found(running_processes.workers, settings=Settings())

    assert finding.verdict == "not checked"
    assert "BRAIN_METRICS_PORT" in str(finding.way_out)


PLACES: list[tuple[dict[str, Any], dict[str, Any], str, str | None]] = [
    ({"metrics_port": 9521}, {}, "http://localhost:9521/metrics", None),
    (
        {"metrics_port": 9521, "metrics_host": "0.0.0.0"},
        {"url": "https://brain.example.org"},
        "http://localhost:9521/metrics",
        None,
    ),
    (
        {"metrics_token": SecretStr("t")},
        {"url": "wss://brain.example.org/brain"},
        "https://brain.example.org/brain/metrics",
        "t",
    ),
    ({"metrics_port": 9521}, {"metrics_url": "http://one/metrics"}, "http://one/metrics", None),
]


@pytest.mark.parametrize(("settings", "members", "url", "token"), PLACES)
def test_the_settings_say_where_the_metrics_are(
    settings: dict[str, Any], members: dict[str, Any], url: str, token: str | None
) -> None:
    examination = Examination(request(settings=Settings(**settings), **members))

    assert metrics.metrics_url(examination) == (url, token)
