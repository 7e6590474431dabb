"""JSON texts of columns: what PostgreSQL may write into a row, as odd as it can be."""

from __future__ import annotations

from hypothesis import strategies as st

from brain.message.json_text import dumps

TEXTS = (
    *('"dev"', '""', '"a\\"b\\\\"', '"\\n\\t\\u0001\\u001f"', '"\\u0041\\/"', '"ü€😀\u2028\x7f"'),
    *('"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"</script>"', '"%s {brace} $1"'),
)
NUMBERS = ("0", "-0", "5", "1.10", "-0.0", "1e400", "12345678901234567890.12", "9" * 400, "1E-7")
MOMENTS = (
    *('"2026-02-06T01:30:00+00:00"', '"2026-02-06T01:30:00.1+00:00"'),
    *('"2026-02-06T01:30:00.999999+05:45"', '"2026-02-06T01:30:00"', '"2026-02-06 01:30:00Z"'),
    *('"infinity"', '"-infinity"', '"9999-12-31T23:59:59-01:00"', '"2026-02-30T01:30:00+00:00"'),
    *('"0001-01-01T00:00:00+00:00"', '"10000-01-01T00:00:00+00:00"', '"2026-W06-5"'),
    *('"0044-03-15T12:00:00+00:00 BC"', '"20260206"'),
)
OTHERS = ("null", "true", "false", "[]", "{}", '["a", {"b" : "\\ud800"}]', "[" * 3000 + "]" * 3000)

ANY_TEXT = st.sampled_from((*TEXTS, *NUMBERS, *MOMENTS, *OTHERS)) | st.text().map(dumps)
MISSING = st.just("")


def odd_columns(**usual: tuple[str, ...]) -> st.SearchStrategy[dict[str, str]]:
    """Generate the texts of some columns, `""` for one that is missing; each has usual ones."""
    columns = {name: st.sampled_from(texts) | ANY_TEXT | MISSING for name, texts in usual.items()}
    return st.fixed_dictionaries({}, optional=columns)


def written(columns: dict[str, str]) -> str:
    """Return the JSON of a row, without the columns that are missing."""
    members = ", ".join(f'"{name}" : {text}' for name, text in columns.items() if text)
    return f"{{{members}}}"
