from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.blocks import Command, blocks_of

PAGE = Path("page.md")


def test_a_prompt_tells_commands_from_what_they_print() -> None:
    text = (
        "Type\n\n```\n$ brain watches\norders\n$ curl localhost:5221/x \\\n    -d 1\n{}\n{}\n```\n"
    )
    (block,) = blocks_of(PAGE, text)
    assert block.line == 3
    assert block.commands == (
        Command("brain watches", "orders"),
        Command("curl localhost:5221/x \\\n    -d 1", "{}\n{}"),
    )


@pytest.mark.parametrize(
    "body",
    [
        "make run     # set everything up",
        "brain listen orders",
        ".venv/bin/brain serve",
        "AUTOBAHN=suite python -m tests.conformance.autobahn",
        "python2.7 -m pip install x",
    ],
)
def test_a_block_without_prompts_that_begins_with_a_program_has_commands(body: str) -> None:
    for text in (f"Type\n\n```\n{body}\n```\n", f"Type\n\n    {body}\n\nand see.\n"):
        (block,) = blocks_of(PAGE, text)
        assert block.commands == (Command(body, ""),)
        assert block.is_run_here


@pytest.mark.parametrize(
    "text",
    [
        "```python\nbrain = 1\n```\n",
        "```\n{'brain': 1}\n```\n",
        '```\nBRAIN_JWT_USER_CLAIM="sub userId"\n```\n',
        "- an item\n    brain watch is in a list, and no block\n",
    ],
)
def test_other_blocks_are_no_commands(text: str) -> None:
    assert blocks_of(PAGE, f"See\n\n{text}") == []


def test_a_language_of_shells_makes_a_block_one_of_commands() -> None:
    (block,) = blocks_of(PAGE, "```sh\nfrobnicate --all\n```\n")
    assert block.commands == (Command("frobnicate --all", ""),)


def test_a_comment_says_who_runs_a_block() -> None:
    text = "{}\n```\n$ brain serve\n```\n\n```\n$ brain watches\n```\n"
    first, second = blocks_of(PAGE, text.format("<!-- not run: it needs a moon -->"))
    assert (first.not_run, first.is_run_here) == ("it needs a moon", False)
    assert second.is_run_here
    first, second = blocks_of(PAGE, text.format("<!-- run by tests/test_a.py::test_b -->"))
    assert (first.run_by, first.is_run_here) == ("tests/test_a.py::test_b", False)
    first, second = blocks_of(PAGE, text.format("<!-- not run on this page: later -->\n"))
    assert first.not_run == second.not_run == "later"
