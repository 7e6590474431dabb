"""The short fault battery, and tests of its judge. `python -m tests.faults` runs the full one."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections import Counter, defaultdict
from math import inf, nan
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from tests.faults.battery import MISDEEDS, SCENARIOS
from tests.faults.figures import Figure, Findings, percentile, percentile_of_all, usual_percentile
from tests.faults.ledger import Fact, Notes, Order, Truth
from tests.faults.link import CannotBePlayed
from tests.faults.onlookers import Onlooker
from tests.faults.passing import Loaded, Passing, verdict_on_snapshots
from tests.faults.replica import Chains, Replica, Verdict
from tests.faults.scene import Stage
from tests.raw_websocket import (
    BINARY,
    CLOSE,
    NO_MASK,
    Frame,
    client_frame,
    close_code,
    close_frame,
    split_frames,
)

SEED = 5221


@pytest.mark.parametrize("name", SCENARIOS)
async def test_nothing_is_lost_doubled_reordered_or_leaked(
    name: str, postgres: str, tmp_path: Path
) -> None:
    report = await SCENARIOS[name].short(Stage(postgres, tmp_path, Random(f"{SEED} {name}")))

    assert report.verdict == Verdict(), report
    assert report.is_clean, str(Findings(report.figures))
    assert report.writes and report.deliveries and report.faults, report


@pytest.mark.parametrize("name", MISDEEDS)
async def test_clients_that_misbehave_are_gone_in_time_and_do_no_harm(
    name: str, postgres: str, tmp_path: Path
) -> None:
    try:
        findings = await MISDEEDS[name].short(Stage(postgres, tmp_path, Random(f"{SEED} {name}")))
    except CannotBePlayed as reason:
        pytest.skip(str(reason))

    assert findings.is_clean, str(findings)


def fact(task: str, version: int, agent: str | None = None) -> Fact:
    return Fact(task, version, agent or f"{task}{version}", "run_update")


def message(fact: Fact) -> dict[str, object]:
    data = {"id": fact.task, "progress": fact.version, "agent": fact.agent}
    return {"type": fact.type, "data": data}


def truth(*facts: Fact) -> Truth:
    notes = Notes()
    notes.sent = {fact.agent: float("inf") for fact in facts}
    return Truth([(*fact, fact.agent) for fact in facts], notes)


WRITTEN = [fact("a", 1), fact("b", 1), fact("a", 2), fact("a", 3), fact("b", 2)]


def judged(*facts: Fact) -> Verdict:
    replica = Replica(set(), known={})
    for each in facts:
        replica.receive(message(each))
    return replica.verdict(truth(*WRITTEN), expects_resets=False)


def test_a_client_that_got_everything_once_and_in_order_has_no_faults() -> None:
    assert judged(*WRITTEN) == Verdict()


@pytest.mark.parametrize("missing", range(len(WRITTEN)))
def test_what_a_client_did_not_get_is_lost(missing: int) -> None:
    assert judged(*WRITTEN[:missing], *WRITTEN[missing + 1 :]) == Verdict(lost=1)


@pytest.mark.parametrize("twice", range(len(WRITTEN)))
def test_what_a_client_got_twice_is_duplicated(twice: int) -> None:
    assert judged(*WRITTEN, WRITTEN[twice]) == Verdict(duplicated=1)


def test_changes_of_a_task_in_another_order_are_reordered() -> None:
    a1, b1, a2, a3, b2 = WRITTEN

    assert judged(a1, b1, a3, a2, b2) == Verdict(reordered=1)
    assert judged(b1, a1, b2, a2, a3) == Verdict()


def test_what_was_never_committed_is_leaked() -> None:
    assert truth(*WRITTEN).leaked({*WRITTEN, fact("a", 3, "rolled back")}) == 1


def test_after_a_reset_nothing_may_be_missing_of_what_is_committed_from_then_on() -> None:
    def judged_after_reset(*facts: Fact) -> Verdict:
        replica = Replica(set(), known={})
        replica.start_over("for a test")
        for each in facts:
            replica.receive(message(each))
        return replica.verdict(truth(*WRITTEN), expects_resets=True)

    assert judged_after_reset(*WRITTEN) == Verdict()
    assert judged_after_reset(*WRITTEN[1:]) == Verdict(lost=1)
    assert judged_after_reset(*WRITTEN[:3]) == Verdict(lost=2)
    assert judged_after_reset() == Verdict(lost=5)


def test_a_reset_without_need_is_unexpected() -> None:
    replica = Replica(set(), known={each.task: each.version for each in WRITTEN})
    replica.start_over("for a test")
    over = truth()

    assert replica.verdict(over, expects_resets=False) == Verdict(unexpected=1)
    assert replica.verdict(over, expects_resets=True) == Verdict()


def test_a_client_that_is_reset_beyond_the_end_does_not_wait_for_it() -> None:
    replica = Replica(set(), known={})
    replica.note_end(since=monotonic())
    assert not replica.has_received_the_end
    replica.start_over("for a test")
    assert replica.has_received_the_end


def test_late_numbers_are_distinguished_from_lost_ones() -> None:
    chains = Chains({"a": 10})
    for number in (11, 14, 13, 13):
        chains.receive("a", number)

    assert chains.verdict() == Verdict(lost=1, duplicated=1, reordered=1)


def test_a_figure_has_to_be_within_its_bounds_and_a_number() -> None:
    assert Figure("cut after", 65, "s", most=65).holds
    assert not Figure("cut after", 65.1, "s", most=65).holds
    assert not Figure("received", 0, least=1).holds
    assert not Figure("p99", nan, "ms", most=65).holds
    assert not Findings((Figure("received", 1, least=1), Figure("lost", 1, most=0))).is_clean


def test_a_figure_prints_its_bound_if_it_has_one() -> None:
    assert str(Figure("cut after", 57.93, "s", most=65)) == "cut after 57.9 s (<= 65)"
    assert str(Figure("cut after", inf, "s", most=65)) == "cut after never (NOT <= 65)"
    assert str(Figure("lost", 0, most=0)) == "lost 0"
    assert str(Figure("lost", 2, most=0)) == "lost 2 (NOT <= 0)"


def test_the_usual_percentile_is_not_moved_by_one_bad_moment() -> None:
    calm, bad = {10: 99, 500: 1}, {9000: 100}

    assert percentile(calm, 0.99) == 1
    assert percentile_of_all([calm, calm, bad], 0.99) == 900
    assert usual_percentile([calm, bad, {}, calm], 0.99) == 1


@pytest.mark.parametrize("size", (0, 125, 126, 65535, 65536))
@pytest.mark.parametrize("mask", (NO_MASK, b"\x01\x80\xff\x00"))
def test_frames_are_found_in_whatever_pieces_they_come(size: int, mask: bytes) -> None:
    payload = bytes(range(256)) * 257
    sent = client_frame(payload[:size], BINARY, mask=mask) + close_frame(4029)
    found: list[Frame] = []
    rest = b""
    for start in range(0, len(sent), 1000):
        frames, rest = split_frames(rest + sent[start : start + 1000])
        found += frames

    assert found == [Frame(BINARY, payload[:size]), Frame(CLOSE, (4029).to_bytes(2, "big"))]
    assert list(map(close_code, found)) == [None, 4029]


async def test_an_onlooker_counts_lost_and_duplicated_messages() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        notes = (
            b'{"type":"note","data":{"sent": "0", "number": "%d"},"cursor":"after %d"}' % (n, n)
            for n in (7, 8, 10, 10, 11)
        )
        frames = b"".join(b"\x81" + bytes([len(note)]) + note for note in notes)
        # The first frame begins together with the response to the handshake.
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frames[:9])
        await writer.drain()
        writer.write(frames[9:])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    options = Namespace(
        port=server.sockets[0].getsockname()[1], path="/", source="127.0.0.1", receive_buffer=0
    )
    onlooker = Onlooker(defaultdict(Counter))
    await asyncio.to_thread(onlooker.connect, options)
    async with server:
        while onlooker.is_connected:
            onlooker.receive()
            await asyncio.sleep(0)
    onlooker.leave()

    assert (onlooker.last, onlooker.lost, onlooker.doubled) == (11, 1, 1)
    assert onlooker.cursor == "after 11"


def test_a_bad_cursor_is_answered_by_one_reset_and_then_by_everything() -> None:
    order = Order(WRITTEN, truth(*WRITTEN))

    def judged_passing(*facts: Fact | str) -> Verdict:
        passing = Passing()
        for each in facts:
            if isinstance(each, str):
                passing.start_over(each)
            else:
                passing.receive(message(each))
        return passing.verdict_after_reset(order)

    assert judged_passing("too old", *WRITTEN[:2]) == Verdict()
    assert judged_passing(*WRITTEN[:2]) == Verdict(unexpected=1)
    assert judged_passing("too old") == Verdict(unexpected=1)
    assert judged_passing("", *WRITTEN[:2]) == Verdict(unexpected=1)
    assert judged_passing("too old", "again", *WRITTEN[:2]) == Verdict(unexpected=1)
    assert judged_passing("too old", *WRITTEN[1:3]) == Verdict(lost=1)
    assert judged_passing("too old", WRITTEN[0], WRITTEN[2]) == Verdict(lost=1)


def test_a_snapshot_is_the_state_at_the_place_where_its_cursor_goes_on() -> None:
    order = Order(WRITTEN, truth(*WRITTEN))

    def judged_loaded(rows: dict[str, tuple[int, str | None]], *facts: Fact) -> Verdict:
        loaded = Loaded(facts=list(facts), rows=rows)
        return verdict_on_snapshots([loaded], order)

    exact: dict[str, tuple[int, str | None]] = {"a": (2, "a2"), "b": (1, "b1"), "never": (0, None)}
    assert judged_loaded(exact, *WRITTEN[3:]) == Verdict()
    assert judged_loaded(exact, *WRITTEN[4:]) == Verdict(lost=1)
    assert judged_loaded(exact, *WRITTEN[2:4]) == Verdict(duplicated=1)
    assert judged_loaded({**exact, "a": (2, "rolled back")}, *WRITTEN[3:]) == Verdict(leaked=1)
    assert judged_loaded(exact).unexpected == 1
