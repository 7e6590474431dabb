"""The definitions of a database's objects, so that two databases can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

KINDS: Mapping[str, str] = {
    "function": """
        SELECT p.oid::regprocedure, pg_get_functiondef(p.oid)
          FROM pg_proc p WHERE p.pronamespace = 'brain'::regnamespace
    """,
    "relation": """
        SELECT c.oid::regclass,
               concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity,
                         (SELECT array_agg(i.inhparent::regclass) FROM pg_inherits i
                           WHERE i.inhrelid = c.oid))
          FROM relations c
    """,
    "column": """
        SELECT format('%s.%s', c.oid::regclass, a.attname),
               concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                         a.attgenerated, a.attcollation::regcollation)
          FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'p')
    """,
    "default": """
        SELECT format('%s.%s', c.oid::regclass, a.attname), pg_get_expr(d.adbin, d.adrelid)
          FROM relations c JOIN pg_attrdef d ON d.adrelid = c.oid
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.adnum
    """,
    "index": """
        SELECT i.indexrelid::regclass, pg_get_indexdef(i.indexrelid)
          FROM relations c JOIN pg_index i ON i.indrelid = c.oid
    """,
    "constraint": """
        SELECT format('%s.%s', c.oid::regclass, k.conname), pg_get_constraintdef(k.oid)
          FROM relations c JOIN pg_constraint k ON k.conrelid = c.oid
    """,
    "trigger": """
        SELECT format('%s.%s', c.oid::regclass, t.tgname),
               concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
          FROM relations c JOIN pg_trigger t ON t.tgrelid = c.oid
    """,
    "view": """
        SELECT c.oid::regclass, pg_get_viewdef(c.oid) FROM relations c WHERE c.relkind = 'v'
    """,
    "sequence": """
        SELECT s.seqrelid::regclass,
               concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqcache)
          FROM pg_sequence s JOIN relations c ON c.oid = s.seqrelid
    """,
    "owner": """
        SELECT o.oid::regprocedure::text, o.proowner::regrole
          FROM pg_proc o WHERE o.pronamespace = 'brain'::regnamespace
        UNION ALL SELECT c.oid::regclass::text, c.relowner::regrole FROM relations c
        UNION ALL SELECT n.nspname, n.nspowner::regrole
          FROM pg_namespace n WHERE n.nspname = 'brain'
    """,
    "right": """
        SELECT name, array_agg(a::text ORDER BY a::text) FROM (
            SELECT p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
              FROM pg_proc p WHERE p.pronamespace = 'brain'::regnamespace
            UNION ALL SELECT c.oid::regclass::text,
                             coalesce(c.relacl, acldefault(
                                 CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
              FROM relations c
            UNION ALL SELECT format('type %s', t.oid::regtype),
                             coalesce(t.typacl, acldefault('T', t.typowner))
              FROM pg_type t
             WHERE t.typnamespace = 'brain'::regnamespace AND t.typcategory <> 'A'
            UNION ALL SELECT n.nspname, n.nspacl FROM pg_namespace n WHERE n.nspname = 'brain'
            UNION ALL SELECT d.defaclrole::regrole::text, d.defaclacl FROM pg_default_acl d
        ) o (name, rights) LEFT JOIN LATERAL unnest(o.rights) a ON true
         GROUP BY name
    """,
    "comment": """
        SELECT pg_describe_object(classoid, objoid, objsubid), description FROM pg_description
         WHERE pg_describe_object(classoid, objoid, objsubid) ~ 'brain|public'
           AND objoid >= 16384
    """,
    "feed": "SELECT f.name, to_jsonb(f) FROM brain.feeds f",
    "watch": "SELECT w.channel, to_jsonb(w) FROM brain.watches w",
}

RELATIONS = """
    WITH relations AS (
        SELECT c.* FROM pg_class c
         WHERE c.relnamespace IN ('brain'::regnamespace, 'public'::regnamespace))
"""


async def catalog(connection: asyncpg.Connection) -> dict[tuple[str, str], str]:
    """
    Return the objects of schema `brain` and the tables in `public`: (kind, name) → definition.

    The order of a table's columns is left out: a column that was added later comes last.
    """
    found = {}
    for kind, query in KINDS.items():
        rows = await connection.fetch(
            RELATIONS + f"SELECT n::text AS name, d::text AS definition FROM ({query}) q (n, d)"
        )
        for row in rows:
            found[kind, row["name"]] = row["definition"]
    return found


def differences(
    one: Mapping[tuple[str, str], str], other: Mapping[tuple[str, str], str]
) -> set[tuple[str, str]]:
    """Return the objects that differ, or that one of the two lacks."""
    return {thing for thing in {*one, *other} if one.get(thing) != other.get(thing)}
