from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain.session.json_depth import is_deeper

texts = st.text(alphabet='[]{}"\\ab,:')
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(values)
def test_the_depth_of_json_is_found(value: Any) -> None:
    text = json.dumps(value)
    assert not is_deeper(text, depth(value))
    assert is_deeper(text, depth(value) - 1) or not depth(value)


@pytest.mark.parametrize("text", ["[" * 100, '{"a":' * 100, '["' + "[" * 100 + '", ' + "[" * 100])
def test_brackets_count_also_in_text_that_is_not_json(text: str) -> None:
    assert is_deeper(text, 99)


def test_brackets_in_an_unterminated_string_do_not_count() -> None:
    assert not is_deeper('"' + "[" * 100, 5)
