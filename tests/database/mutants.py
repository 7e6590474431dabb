"""Mutants of Brain's log: each has one defect, and the scene that detects it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from brain.database.log import Log
from brain.database.table_access import tick_at_snapshot
from tests.database import scenes
from tests.database.history import NewLog, TickAt
from tests.database.scenes import Scene
from tests.database.stage import Stage, rewrite, staged
from tests.database.wrong_readers import LogById, tick_after, tick_before, tick_unlocked


@dataclass(frozen=True)
class Mutant:
    name: str
    scene: Scene
    function: str = ""
    edits: tuple[tuple[str, str], ...] = ()
    """Texts in `brain.function`, each with its replacement."""
    statement: str = ""
    new_log: NewLog = Log
    tick_at: TickAt = tick_at_snapshot
    cuts_apart: bool = False
    """True if it is in what cuts a tick or reads up to it, but not in what does both at once."""

    @asynccontextmanager
    async def staged(self, url: str) -> AsyncIterator[Stage]:
        """Yield a stage on which the log has this defect."""
        async with staged(url, self.new_log, self.tick_at, cuts_apart=self.cuts_apart) as stage:
            session = await stage.session()
            if self.function:
                await rewrite(session, self.function, *self.edits)
            if self.statement:
                await session.execute(self.statement)
            yield stage


ANY_LATE = """
                        UNION ALL
                        SELECT l.* FROM brain.events l WHERE l.transaction_id = ANY (late)"""
TICK_LOCK = "LOCK TABLE brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE;"
TRIED_LOCK = """
    BEGIN
        LOCK TABLE brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        SELECT t.id, t.nonce INTO id, nonce FROM brain.ticks t ORDER BY t.id DESC LIMIT 1;
        RETURN;
    END;"""
TRIED_LOCK_OF_NEWEST = """
    BEGIN
        LOCK TABLE brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        at_tick := tick;
        at_nonce := nonce;
        id := at_end;
        written := 0;
        flushed := 0;
        RETURN NEXT;
        RETURN;
    END;"""
LATE_IN_TICK = """
        OR EXISTS (SELECT FROM brain.events e
                    WHERE e.transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(last.snapshot))))"""
SLOT_LOCK = "EXECUTE format('LOCK TABLE brain.%I IN ACCESS EXCLUSIVE MODE NOWAIT', slot);"
SECOND_LOOK = (
    "EXECUTE format('SELECT NOT EXISTS (SELECT FROM brain.%I WHERE transaction_id >= $1)', slot)\n"
    "               INTO is_old USING oldest;"
)
FIRST_CONDITION = """WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            CONTINUE"""
SECOND_CONDITION = """WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            IF"""
LAST_LOOK = """
    SELECT reached.nonce, reached.at INTO at_nonce, at
      FROM brain.ticks t JOIN brain.ticks reached ON reached.id = at_tick
     WHERE t.id = tick AND t.nonce = read.nonce
       AND (after = at_end OR EXISTS (SELECT FROM brain.ticks former WHERE former.id = tick - 1));
    IF FOUND THEN"""
NO_LOOK = """
    at_nonce := coalesce(at_nonce, nonce);
    at := clock_timestamp();
    IF true THEN"""
FIRST_LOOK = """at_tick := tick;
    IF NOT EXISTS (SELECT FROM brain.ticks t WHERE t.id = tick AND t.nonce = read.nonce) THEN
        RETURN;
    END IF;"""


def by_time(condition: str) -> tuple[str, str]:
    by_id, by_clock = "transaction_id >= $1", "at >= now() - $1"
    return condition, condition.replace(by_id, by_clock).replace("oldest", "keep")


MUTANTS = [
    Mutant(
        "the newest events are ordered by transaction",
        scenes.an_early_transaction_changes_a_row_last,
        "newest",
        (("ORDER BY 3, e.id LIMIT most", "ORDER BY 3, e.transaction_id, e.id LIMIT most"),),
    ),
    Mutant(
        "the newest events are given up while another node cuts a tick",
        scenes.a_change_is_committed_while_another_node_cuts_a_tick,
        "newest",
        ((TICK_LOCK, TRIED_LOCK_OF_NEWEST),),
    ),
    Mutant(
        "the newest events lack the late transactions",
        scenes.a_transaction_commits_late,
        "newest",
        (("l.transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(former)))", "false"),),
    ),
    Mutant(
        "the newest events all belong to the newest tick",
        scenes.another_node_has_cut_a_tick_since,
        "newest",
        (("last.id + (NOT coalesce(", "newest.tick + 1 + 0 * (NOT coalesce("),),
    ),
    Mutant(
        "nothing is looked up after the newest events",
        scenes.a_slot_is_emptied_while_the_newest_events_are_read,
        "newest",
        (("IF last.id > newest.tick AND NOT EXISTS", "IF false AND NOT EXISTS"),),
    ),
    Mutant(
        "events are ordered by transaction",
        scenes.an_early_transaction_changes_a_row_last,
        "read",
        (
            (
                "(late)) e\n                 ORDER BY ",
                "(late)) e ORDER BY e.transaction_id, ",
            ),
        ),
        cuts_apart=True,
    ),
    Mutant(
        "in the middle of a tick events are ordered by transaction",
        scenes.an_early_transaction_is_read_from_the_middle_of_its_tick,
        "read",
        (
            (
                "ORDER BY n.transaction_id, n.id LIMIT most) e\n                 ORDER BY e.id",
                "ORDER BY n.transaction_id, n.id LIMIT most) e ORDER BY e.transaction_id, e.id",
            ),
        ),
    ),
    Mutant(
        "events are read after the highest id",
        scenes.a_transaction_commits_late,
        new_log=LogById,
    ),
    Mutant(
        "sessions draw ids in advance",
        scenes.two_sessions_change_a_row_in_turn,
        statement="ALTER SEQUENCE brain.event_id CACHE 32",
    ),
    Mutant(
        "a tick is given up while another is cut",
        scenes.a_change_is_committed_while_another_node_cuts_a_tick,
        "tick",
        ((TICK_LOCK, TRIED_LOCK),),
        cuts_apart=True,
    ),
    Mutant(
        "no tick is cut for a late transaction",
        scenes.a_transaction_commits_late,
        "tick",
        ((LATE_IN_TICK, ""),),
        cuts_apart=True,
    ),
    Mutant(
        "a batch lacks the late transactions",
        scenes.a_transaction_commits_late,
        "read",
        ((ANY_LATE, ""),),
        cuts_apart=True,
    ),
    Mutant(
        "the middle of a tick lacks the late transactions",
        scenes.a_late_transaction_is_read_from_the_middle_of_its_tick,
        "read",
        (("SELECT unnest(late)", "SELECT NULL::xid8"),),
    ),
    Mutant(
        "a batch has what is committed by now",
        scenes.a_transaction_commits_between_the_tick_and_its_reading,
        "read",
        (("AND pg_visible_in_snapshot(b.transaction_id, snapshot)", ""),),
    ),
    Mutant(
        "the middle of a tick has what is committed by now",
        scenes.a_transaction_commits_while_its_tick_is_read,
        "read",
        (("WHERE pg_visible_in_snapshot(b.transaction_id, snapshot)", ""),),
    ),
    Mutant(
        "a slot is emptied without a second look",
        scenes.a_change_is_committed_after_the_first_look_into_its_slot,
        "trim",
        ((SECOND_LOOK, ""),),
    ),
    Mutant(
        "a slot is emptied without the lock",
        scenes.a_change_is_made_after_the_second_look_into_its_slot,
        "trim",
        ((SLOT_LOCK, ""),),
    ),
    Mutant(
        "a slot is old by the clock",
        scenes.a_long_transaction_writes_into_a_slot_that_is_emptied,
        "trim",
        (by_time(FIRST_CONDITION), by_time(SECOND_CONDITION)),
    ),
    Mutant(
        "a slot is old though a transaction in it was open",
        scenes.a_long_transaction_writes_into_a_slot_that_is_emptied,
        "trim",
        (("pg_snapshot_xmin(t.snapshot)", "pg_snapshot_xmax(t.snapshot)"),),
    ),
    Mutant(
        "nothing is looked up after the read",
        scenes.a_slot_is_emptied_while_it_is_read,
        "read",
        ((LAST_LOOK, NO_LOOK),),
    ),
    Mutant(
        "the cursor is looked up before the read",
        scenes.a_slot_is_emptied_while_it_is_read,
        "read",
        (("at_tick := tick;", FIRST_LOOK), (LAST_LOOK, NO_LOOK)),
    ),
    Mutant(
        "the nonce is ignored",
        scenes.a_standby_takes_over_that_lacks_the_last_change,
        "read",
        (("AND t.nonce = read.nonce", ""),),
    ),
    Mutant(
        "a restored log goes on",
        scenes.a_log_is_restored_where_transaction_ids_are_lower,
        "tick",
        (("PERFORM brain.check_history();", "NULL;"),),
    ),
    Mutant(
        "the trigger fires after those of the application",
        scenes.a_trigger_of_the_application_writes_the_row_again,
        statement='ALTER TRIGGER "!brain_1_row_1" ON tasks RENAME TO "~brain_1_row_1"',
    ),
    Mutant(
        "the tick of a snapshot is cut before it",
        scenes.a_snapshot_is_taken_between_changes,
        tick_at=tick_before,
    ),
    Mutant(
        "the tick of a snapshot is cut after it",
        scenes.a_snapshot_is_taken_between_changes,
        tick_at=tick_after,
    ),
    Mutant(
        "the tick of a snapshot holds another snapshot",
        scenes.a_snapshot_is_taken_between_changes,
        "tick_at",
        (("max(t.id) + 1, $1", "max(t.id) + 1, pg_current_snapshot()"),),
    ),
    Mutant(
        "others cut ticks between a snapshot and its tick",
        scenes.a_snapshot_is_taken_between_changes,
        tick_at=tick_unlocked,
    ),
]
