"""The statements that read the log and cut ticks."""

from __future__ import annotations

from typing import NamedTuple


class Way(NamedTuple):
    """How the columns of the events `r` are read."""

    columns: str
    joined: str = ""
    """What follows `r` in the FROM clause."""


AS_WRITTEN = Way(
    """
    r.at_tick, r.at_nonce, r.transaction_id::text::bigint AS transaction_id, r.id, r.at, r.channel,
    r.type, r.operation, r.key, r.data, r.old, r.recipient, r.omitted, r.rule_values,
    r.old_rule_values
    """
)
# No client has a name, or knows a channel, without an equivalent in UTF-8; a repaired name may be
# another one's.
NAMES = """
    CASE brain.repaired(r.channel) WHEN r.channel THEN r.channel ELSE left(r.channel, 0) END
        AS channel,
    CASE brain.repaired(r.recipient) WHEN r.recipient THEN r.recipient ELSE left(r.recipient, 0) END
        AS recipient
"""
# A repaired value may equal the value of another client: nobody is sent such a row.
RULES = """
    CASE WHEN brain.repaired(r.rule_values) <> r.rule_values THEN '{}'
         ELSE r.rule_values END AS rule_values,
    CASE WHEN brain.repaired(r.old_rule_values) <> r.old_rule_values THEN '{}'
         ELSE r.old_rule_values END AS old_rule_values
"""
# Repairing a long text takes a while: OFFSET keeps the subquery from being evaluated for each use.
REPAIRED = Way(
    f"""
    r.at_tick, r.at_nonce, r.transaction_id::text::bigint AS transaction_id, r.id, r.at, {NAMES},
    brain.repaired(r.type) AS type, r.operation,
    f.key, f.data, f.old, brain.repaired(r.omitted::text)::text[] AS omitted, {RULES},
    (f.data, f.old, f.key) IS DISTINCT FROM (r.data, r.old, r.key) AS is_repaired
    """,
    """
    CROSS JOIN LATERAL (SELECT brain.repaired(r.key) AS key, brain.repaired(r.data) AS data,
                               brain.repaired(r.old) AS old OFFSET 0) f
    """,
)
# In place of an event that cannot be read, its clients load the state again.
AS_RESET = Way(
    f"""
    r.at_tick, r.at_nonce, r.transaction_id::text::bigint AS transaction_id, r.id, r.at, {NAMES},
    NULL AS type, CASE WHEN r.channel IS NOT NULL THEN 'R'::"char" END AS operation, NULL AS key,
    '"a change cannot be read from the log"' AS data, NULL AS old,
    NULL::text[] AS omitted, NULL AS rule_values, NULL AS old_rule_values
    """
)
WAYS = (AS_WRITTEN, REPAIRED, AS_RESET)
"""Each for what the one before cannot read."""

Statements = tuple[str, ...]
"""A statement for each way."""


def in_each_way(statement: str) -> Statements:
    return tuple([statement.format(**way._asdict()) for way in WAYS])


# A page ends at a tick with a round number, so that clients share pages.
AFTER = in_each_way("""
    SELECT {columns}
      FROM brain.read($1, $2, $3,
                      least((SELECT max(id) FROM brain.ticks), ($1::bigint / 1024 + 1) * 1024),
                      $4, $5) r {joined}
""")
# From the last tick before that time, or from the one after which there are few enough events.
RECENT = """
    SELECT id, nonce FROM brain.ticks
     WHERE id >= coalesce(greatest(
         (SELECT t.id FROM brain.ticks t
           WHERE t.at <= clock_timestamp() - make_interval(secs => $1) ORDER BY t.id DESC LIMIT 1),
         (SELECT t.id FROM brain.ticks t
           WHERE pg_snapshot_xmax(t.snapshot) <= (
               SELECT e.transaction_id FROM brain.events e
                ORDER BY e.transaction_id DESC, e.id DESC OFFSET $2 LIMIT 1)
           ORDER BY t.id DESC LIMIT 1)), 0)
     ORDER BY id
"""
# The last tick before that time, or else the oldest one.
SINCE = """
    SELECT t.id, t.nonce, greatest(t.at, wanted.at) AS at
      FROM (SELECT clock_timestamp() - make_interval(secs => $1) AS at) wanted,
           LATERAL (SELECT id, nonce, at FROM brain.ticks
                     WHERE id >= coalesce((SELECT max(b.id) FROM brain.ticks b
                                            WHERE b.at <= wanted.at), 0)
                     ORDER BY id LIMIT 1) t
"""
# A century: PostgreSQL has no time so much earlier as a client may ask for.
MOST_SECONDS = 100 * 365 * 86400.0
# Nothing that is read here is sent before this statement, and with it the tick, is committed.
NEWEST = in_each_way("""
    SELECT {columns}, r.written, r.flushed FROM brain.newest($1, $2, $3, $4, $5) r {joined}
""")

# Of the transactions of a page, those that the page does not hold the beginning or the end of.
SPLIT = """
    SELECT ARRAY(SELECT t::text::bigint
                   FROM brain.split_transactions($1::text[]::xid8[], $2, $3) t) AS begun,
           ARRAY(SELECT t::text::bigint
                   FROM brain.split_transactions($4::text[]::xid8[], 0, $5) t) AS unfinished
"""
