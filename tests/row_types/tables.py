"""Watched tables with all that a database may have: types, names, and what is in no row."""

from __future__ import annotations

# Arrays of any element and of several dimensions, domains, types made of others, and values that no
# number of JSON holds. The second row has nulls wherever there may be one.
TYPES = r"""
    CREATE TYPE feeling AS ENUM ('sad', 'so "so"', E'new\nline');
    CREATE TYPE nothing AS ENUM ();
    CREATE DOMAIN price AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE DOMAIN present AS text NOT NULL;
    CREATE DOMAIN feeling_list AS feeling[];
    CREATE DOMAIN numbers AS integer[];
    CREATE TYPE point3 AS (x float8, y float8, "class" integer);
    CREATE TYPE city AS (name text, at point3, feelings feeling[], tags present[], note present);
    CREATE TYPE feeling_range AS RANGE (subtype = feeling);
    CREATE TABLE of_types (
        id bigint PRIMARY KEY,
        a_mood feeling NOT NULL, no_mood nothing, a_cents price, a_present present,
        a_place city, places city[], points point3[] NOT NULL,
        mood_list feeling[], domain_of_list feeling_list, lists_of_domain numbers[],
        moods_of_domain feeling_list[], vector int2vector, oids oidvector,
        range_of_moods feeling_range,
        jsons jsonb[], days date[], generated integer GENERATED ALWAYS AS (7) STORED,
        a_real real, a_double float8, a_numeric numeric
    );
    SELECT brain.watch('of_types', 'of-types', ARRAY['id', 'a_mood', 'no_mood', 'a_cents',
        'a_present', 'a_place', 'places', 'points', 'mood_list', 'domain_of_list',
        'lists_of_domain', 'moods_of_domain', 'vector', 'oids', 'range_of_moods', 'jsons', 'days',
        'generated', 'a_real', 'a_double', 'a_numeric']);
"""
ROWS_OF_TYPES = r"""
    INSERT INTO of_types VALUES (
        9007199254740993, 'so "so"', NULL, 12.5, 'here',
        ROW('Rome', ROW(0.1::float8 + 0.2::float8, 'NaN', 3), '{sad,NULL}', ARRAY['a', 'b'], 'n'),
        ARRAY[ROW('Rome', ROW(1, 2, 3), NULL, NULL, 'n')::city, NULL],
        ARRAY[[ROW(1, 2, 3)::point3, ROW(1, 2, 4)::point3], [NULL::point3, NULL]],
        '{{sad},{NULL}}', '{sad}', ARRAY['{1,2}'::numbers], ARRAY['{sad}'::feeling_list],
        '1 2', '3 4294967295', '[sad,"new
line")',
        ARRAY['1', '{"a": [12345678901234567890]}', NULL]::jsonb[],
        '{2026-02-06,infinity,0044-03-15 BC}',
        DEFAULT, 'Infinity', '-Infinity', 'NaN');
    -- To a domain, an empty subquery is no null.
    INSERT INTO of_types (id, a_mood, points, a_present)
    VALUES (2, E'new\nline', '{}', (SELECT 'x'::present WHERE false));
    INSERT INTO of_types (id, a_mood, points, a_real, a_double, a_numeric, a_place, places,
                          a_present)
    VALUES (3, 'sad', ARRAY[ROW(1, 2, 3)::point3], 3.4e38, 1.7e308,
            123456789012345678901234567890.5, ROW(NULL, NULL, NULL, NULL, 'n'), '{}', '');
    INSERT INTO of_types (id, a_mood, points, a_real, a_double, a_numeric, a_present)
    VALUES (4, 'sad', '{}', 1e-45, 5e-324, 0.10, ''),
           (5, 'sad', '{}', 16777217, 123456789012345, 1e15, ''),
           (6, 'sad', '{}', -0.0, -0.0, -99999999999999999999, '');
"""

# Names that are none in a program, or the same as another one there, and ones that end what they
# are written into.
NAMES = r'''
    CREATE SCHEMA "Sales dept";
    CREATE TYPE order_status AS ENUM ('open', 'paid');
    CREATE TABLE order_items (id integer PRIMARY KEY, status order_status, unlisted text);
    CREATE TABLE "order-items" (id integer PRIMARY KEY);
    CREATE TABLE "Sales dept".order_items (id integer PRIMARY KEY, of_public order_items);
    CREATE TYPE "Sales dept".order_status AS (id integer);
    CREATE TABLE "Tables" (id integer PRIMARY KEY, status "Sales dept".order_status);
    CREATE TABLE "json" (id integer PRIMARY KEY);
    CREATE TABLE "none" (id integer PRIMARY KEY);
    CREATE TABLE "date" (id integer PRIMARY KEY, "Date" date, date date);
    CREATE TABLE "2 quick" (id integer PRIMARY KEY);
    CREATE TABLE "заказы" (id integer PRIMARY KEY, "имя" text, "ﬁnal" text);
    CREATE TABLE "💶" (id integer PRIMARY KEY);
    CREATE TABLE "*/ export const evil = 1 /* "" \ """""" # " (id integer PRIMARY KEY);
    CREATE TABLE columns (
        id integer PRIMARY KEY, "class" text, class_ text, "None" text, "int" text, json text,
        model_dump text, model_config text, _private text, "__proto__" text, "constructor" text,
        "2nd" text, "a b" text, "a-b" text, a_b text, "quote "" and \ and '" text, "`${evil}`" text,
        "💶" text, "💷" text, "x: 1; }" text, "OrderItems" text, copy text, self text,
        validate text, "toString" text, "Field" text, U&"u\202Eu" text, U&"tab\0009tab" text,
        "  " text
    );
    SELECT brain.watch('order_items', 'order items', '{id,status}');
    SELECT brain.watch('"order-items"', 'order-items', '{id}');
    SELECT brain.watch('"Sales dept".order_items', 'Order Items', '{id,of_public}');
    SELECT brain.watch('"Tables"', '__proto__', '{id,status}');
    SELECT brain.watch('"json"', 'orders"', '{id}');
    SELECT brain.watch('"none"', 'back\slash', '{id}');
    SELECT brain.watch('"date"', E'new\nline', '{id,Date,date}');
    SELECT brain.watch('"2 quick"', 'constructor', '{id}');
    SELECT brain.watch('"заказы"', 'заказы', '{id,имя,ﬁnal}');
    SELECT brain.watch('"💶"', '💶', '{id}');
    SELECT brain.watch(oid, 'evil', '{id}') FROM pg_class
     WHERE relname LIKE '*/%' AND relkind = 'r';
    SELECT brain.watch('columns', 'columns', ARRAY(
        SELECT attname::text FROM pg_attribute WHERE attrelid = 'columns'::regclass AND attnum > 0
         ORDER BY attnum));
'''

ROWS_OF_NAMES = r"""
    INSERT INTO order_items VALUES (1, 'open', 'not shown');
    INSERT INTO "order-items" VALUES (1);
    INSERT INTO "Sales dept".order_items VALUES (1, ROW(1, 'paid', 'shown'));
    INSERT INTO "Tables" VALUES (1, ROW(1));
    INSERT INTO "date" VALUES (1, '2026-02-06', 'infinity');
    INSERT INTO "заказы" VALUES (1, 'да', NULL);
    INSERT INTO columns (id, class, class_, "__proto__", "constructor", "a b", a_b, "💷")
    VALUES (1, 'class', 'class_', 'proto', 'constructor', 'a b', 'a_b', '💷');
"""
