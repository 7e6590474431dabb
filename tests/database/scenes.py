"""
Minimal orders of steps in which a wrong log fails.

A scene raises `Violation` if the log is wrong. The tests run it with Brain's log, which must pass,
and with mutants of that log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.database.history import must
from tests.database.stage import Stage, closed_gate

Scene = Callable[[Stage], Awaitable[None]]

TRIM = "SELECT brain.trim('0 s')"
FIRST_PAGE = (
    "FOR transaction_id, id, at, channel, type, operation, key, data, old, recipient, omitted,"
    " rule_values,\n                old_rule_values IN\n                SELECT"
)
# Writers stay in the slot, as one does that drew its id before the others moved on.
STAY = "UPDATE brain.current_block SET since = 'infinity'"


async def an_early_transaction_changes_a_row_last(stage: Stage) -> None:
    reader, writer, early = await stage.reader(), await stage.writer(), await stage.writer()
    await early.begin()
    await writer.advance("row")
    await early.advance("row")
    await early.commit()
    await reader.check()


async def an_early_transaction_is_read_from_the_middle_of_its_tick(stage: Stage) -> None:
    reader, writer, early = await stage.reader(), await stage.writer(), await stage.writer()
    await early.begin()
    await writer.advance("other", "row")
    await early.advance("row")
    await early.commit()
    await reader.read(1)
    await reader.check()


async def a_transaction_commits_late(stage: Stage) -> None:
    reader, writer, late = await stage.reader(), await stage.writer(), await stage.writer()
    await late.begin()
    await late.advance("row")
    await writer.advance("other")
    await reader.read()
    await late.commit()
    await reader.check()


async def a_late_transaction_is_read_from_the_middle_of_its_tick(stage: Stage) -> None:
    reader, writer, late = await stage.reader(), await stage.writer(), await stage.writer()
    await late.begin()
    await late.advance("row")
    await writer.advance("other")
    await reader.read()
    await late.advance("other", "row")
    await late.commit()
    await reader.read(1)
    await reader.check()


async def a_transaction_commits_between_the_tick_and_its_reading(stage: Stage) -> None:
    reader, writer, late = await stage.reader(), await stage.writer(), await stage.writer()
    await late.begin()
    await late.advance("row")
    await writer.advance("other")
    await reader.log.tick()
    await late.commit()
    await reader.read(cut=False)
    await reader.check()


async def a_transaction_commits_while_its_tick_is_read(stage: Stage) -> None:
    reader, writer, late = await stage.reader(), await stage.writer(), await stage.writer()
    await late.begin()
    await writer.advance("other")
    await late.advance("row")
    await writer.advance("other")
    await reader.log.tick()
    await reader.read(1, cut=False)
    await late.commit()
    await reader.read(cut=False)
    await reader.check()


async def two_sessions_change_a_row_in_turn(stage: Stage) -> None:
    reader, one, other = await stage.reader(), await stage.writer(), await stage.writer()
    await one.advance("row")
    await other.advance("row")
    await one.advance("row")
    await reader.check()


async def a_change_is_committed_while_another_node_cuts_a_tick(stage: Stage) -> None:
    reader, writer, node = await stage.reader(), await stage.writer(), await stage.session()
    await node.execute("BEGIN; SELECT brain.tick()")
    await writer.advance("row")
    reading = stage.start(reader.read())
    await stage.waits_or_is_done(reader.session, reading)
    await node.execute("COMMIT")
    must(await reading == 1, "the node would park now although a change is committed")
    await reader.check()


async def a_long_transaction_writes_into_a_slot_that_is_emptied(stage: Stage) -> None:
    reader, writer, late = await stage.reader(), await stage.writer(), await stage.writer()
    await late.begin()
    await late.advance("row")
    await writer.advance("other")
    await reader.read()
    await late.commit()
    await writer.session.execute(TRIM)
    await reader.check()


async def a_change_is_committed_after_the_first_look_into_its_slot(stage: Stage) -> None:
    reader, writer, node = await stage.reader(), await stage.writer(), await stage.session()
    await writer.advance("row")
    await reader.read()
    await node.execute(STAY)
    async with closed_gate(stage, "trim", "EXECUTE format('LOCK TABLE"):
        trimming = stage.start(node.execute(TRIM))
        await stage.waits_or_is_done(node, trimming)
        await writer.advance("row")
    await trimming
    await reader.check()


async def a_change_is_made_after_the_second_look_into_its_slot(stage: Stage) -> None:
    reader, writer, node = await stage.reader(), await stage.writer(), await stage.session()
    await writer.advance("row")
    await reader.read()
    await node.execute(STAY)
    async with closed_gate(stage, "trim", "EXECUTE format('TRUNCATE"):
        trimming = stage.start(node.execute(TRIM))
        await stage.waits_or_is_done(node, trimming)
        writing = stage.start(writer.advance("row"))
        await stage.waits_or_is_done(writer.session, writing)
    await asyncio.gather(trimming, writing)
    await reader.check()


async def a_slot_is_emptied_while_it_is_read(stage: Stage) -> None:
    reader, writer, node = await stage.reader(), await stage.writer(), await stage.session()
    await writer.advance("row")
    await node.execute("SELECT brain.tick()")
    async with closed_gate(stage, "read", FIRST_PAGE):
        reading = stage.start(reader.read(cut=False))
        await stage.waits_or_is_done(reader.session, reading)
        await node.execute(TRIM)
    await reading
    await reader.check()


async def another_node_has_cut_a_tick_since(stage: Stage) -> None:
    reader, writer, node = await stage.reader(), await stage.writer(), await stage.session()
    await writer.advance("row")
    await node.execute("SELECT brain.tick()")
    await writer.advance("row")
    await reader.read()
    await reader.check()


async def a_slot_is_emptied_while_the_newest_events_are_read(stage: Stage) -> None:
    reader, writer, node = await stage.reader(), await stage.writer(), await stage.session()
    await writer.advance("row")
    await node.execute("SELECT brain.tick()")
    async with closed_gate(stage, "newest", "FOR seen, wal, at_tick"):
        reading = stage.start(reader.read())
        await stage.waits_or_is_done(reader.session, reading)
        await node.execute(TRIM)
    await reading
    await reader.check()


async def a_standby_takes_over_that_lacks_the_last_change(stage: Stage) -> None:
    reader, writer = await stage.reader(), await stage.writer()
    await writer.advance("row")
    await reader.read()
    await writer.session.execute(
        """
        DELETE FROM brain.ticks WHERE id = (SELECT max(id) FROM brain.ticks);
        DELETE FROM brain.events WHERE id = (SELECT max(id) FROM brain.events);
        ALTER TABLE tasks DISABLE TRIGGER USER;
        UPDATE tasks SET progress = progress - 1 WHERE id = 'row';
        ALTER TABLE tasks ENABLE TRIGGER USER;
        """
    )
    await writer.advance("other")
    await reader.check()


async def a_log_is_restored_where_transaction_ids_are_lower(stage: Stage) -> None:
    reader, writer = await stage.reader(), await stage.writer()
    await writer.session.execute(
        """
        UPDATE brain.ticks SET snapshot = '999999999:999999999:'
         WHERE id = (SELECT max(id) FROM brain.ticks)
        """
    )
    await writer.advance("row")
    await reader.check()


async def a_trigger_of_the_application_writes_the_row_again(stage: Stage) -> None:
    reader, writer = await stage.reader(), await stage.writer()
    await writer.session.execute(
        """
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE tasks SET progress = progress + 1 WHERE id = NEW.id AND progress < 3;
            RETURN NULL;
        END $$;
        CREATE TRIGGER a_business AFTER UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION again();
        """
    )
    await writer.advance("row")
    await reader.check()


async def a_snapshot_is_taken_between_changes(stage: Stage) -> None:
    node, reader, writer = await stage.reader(), await stage.reader(), await stage.writer()
    cutting: list[asyncio.Task[int]] = []

    async def change() -> None:
        await writer.advance("row")

    async def change_and_cut() -> None:
        await writer.advance("row")
        cutting.append(stage.start(node.read()))
        await stage.waits_or_is_done(node.session, cutting[0])

    reader.tables.before, reader.tables.after = change, change_and_cut
    await reader.begin()
    reader.tables.before = reader.tables.after = None
    await asyncio.gather(*cutting)
    await writer.advance("row")
    await reader.check()
    await node.check()


SCENES = [
    an_early_transaction_changes_a_row_last,
    an_early_transaction_is_read_from_the_middle_of_its_tick,
    a_transaction_commits_late,
    a_late_transaction_is_read_from_the_middle_of_its_tick,
    a_transaction_commits_between_the_tick_and_its_reading,
    a_transaction_commits_while_its_tick_is_read,
    two_sessions_change_a_row_in_turn,
    a_change_is_committed_while_another_node_cuts_a_tick,
    a_long_transaction_writes_into_a_slot_that_is_emptied,
    a_change_is_committed_after_the_first_look_into_its_slot,
    a_change_is_made_after_the_second_look_into_its_slot,
    a_slot_is_emptied_while_it_is_read,
    another_node_has_cut_a_tick_since,
    a_slot_is_emptied_while_the_newest_events_are_read,
    a_standby_takes_over_that_lacks_the_last_change,
    a_log_is_restored_where_transaction_ids_are_lower,
    a_trigger_of_the_application_writes_the_row_again,
    a_snapshot_is_taken_between_changes,
]
