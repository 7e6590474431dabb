from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.blocks import Block, Command
from tests.documents.terminal import Terminal, expect_output


def test_numbers_and_values_may_differ_from_what_is_shown() -> None:
    expect_output('{"a": 1, "b": {"c": "x"}}', '{"b": {"c": null}, "a": 2}', "here")
    expect_output("orders in 3 ms", "agents in 4 ms\norders in 15 ms\n", "here")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('{"a": 1}', '{"b": 1}'),
        ('{"a": {"b": 1}}', '{"a": 1}'),
        ("watching orders", "watching agents"),
        ("one\ntwo", "one"),
    ],
)
def test_names_and_words_may_not(shown: str, printed: str) -> None:
    with pytest.raises(AssertionError, match="here"):
        expect_output(shown, printed, "here")


async def test_a_command_that_fails_fails_the_test(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {}, "", {"name": "nowhere"})
    block = Block(Path("page.md"), 7, (Command("echo begun", "begun"), Command("ls name", "")))
    with pytest.raises(AssertionError, match=r"(?s)page.md:7.*nowhere"):
        await terminal.type(block)


async def test_a_client_that_prints_something_else_than_is_shown_fails_the_test(
    tmp_path: Path,
) -> None:
    terminal = Terminal(tmp_path, {}, "", {"wscat": "echo"})
    block = Block(Path("page.md"), 7, (Command("wscat '{}'", '< {"type": "hello"}'),))
    with pytest.raises(AssertionError, match="type"):
        await terminal.type(block)
        await terminal.expect_what_is_shown()
    await terminal.close()
